"""Results on disk are whole or not there."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from armillary.cli import main
from armillary.errors import ArmillaryError
from armillary.store import (
    last_runs,
    open_run,
    read_trajectories,
    run_name,
    write_text,
    write_trajectories,
    write_whole,
)
from armillary.store.files import children, make_folder, place


def test_trajectories_come_back_as_they_were(tmp_path):
    data = xr.Dataset({"loss": (("seed", "time"), np.random.default_rng(0).normal(size=(3, 5)))},
                      coords={"time": np.arange(5.0), "start": ("seed", ["a", "b", "c"])}, attrs={"key": 0})  # fmt: skip
    path = write_trajectories(tmp_path, {"a run": data}, {"a run": data[["loss"]].mean("seed")})
    back = read_trajectories(path)
    xr.testing.assert_identical(back["measured"]["a run"].drop_vars("start"), data.drop_vars("start"))
    assert set(back["theory"]) == {"a run"}


def test_complex_numbers_become_two_variables(tmp_path):
    path = write_trajectories(tmp_path, {"z": xr.Dataset({"z": ("i", np.array([1 + 2j]))})}, {})
    assert float(read_trajectories(path)["measured"]["z"].z_imag[0]) == 2.0


def test_an_interrupted_write_leaves_what_was_there(tmp_path):
    path = write_text(tmp_path / "x.txt", "old")

    def dies(hidden):
        hidden.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, dies)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["x.txt"]


def test_a_damaged_file_is_one_clear_line(tmp_path):
    path = tmp_path / "trajectory.nc"
    path.write_bytes(b"not netcdf")
    with pytest.raises(ArmillaryError, match="cannot read"):
        read_trajectories(path)


def test_a_run_that_begins_again_withdraws_its_verdict(tmp_path):
    folder = open_run(tmp_path, "a-run")
    (folder / "run.json").write_text("{}")
    open_run(tmp_path, "a-run")
    assert not (folder / "run.json").exists()


def test_names_cannot_leave_the_folder():
    with pytest.raises(ArmillaryError, match="cannot name a run"):
        run_name("../etc", "desk", {})


def test_last_runs_leave_out_what_cannot_be_read(tmp_path):
    for name, text in (("a", json.dumps({"slug": "s", "claims": []})), ("b", "{"), ("c", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
    assert set(last_runs(tmp_path)) == {"s"}


FULL = """
import resource, sys
import numpy as np
from pathlib import Path
from armillary.store.blocks import Block, read_block, write_block
from armillary.store.files import StoreError, write_text

folder = Path(sys.argv[1])
block = lambda seed: Block([], np.random.default_rng(seed).normal(size=20_000))
path = write_block(folder / "a.nc", block(0))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # as a full disk: no file grows beyond
for write in (lambda: write_block(path, block(1)), lambda: write_text(folder / "b.txt", "x" * 50_000)):
    try:
        write()
    except StoreError as error:
        print(str(error).replace(chr(10), "NEWLINE"))
assert (read_block(path).diverged == block(0).diverged).all()
print(sorted(p.name for p in folder.iterdir()))
"""


def test_a_full_disk_is_one_line_and_harms_nothing(tmp_path):
    told = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False)
    first, second, files = told.stdout.splitlines()
    assert told.returncode == 0 and files == "['a.nc']", told.stderr
    assert first.startswith("cannot write") and second.startswith("cannot write") and "NEWLINE" not in first + second


@pytest.mark.parametrize("command", [["run", "deep-linear"], ["sweep", "deep-linear", "--over", "small=0.1"]])
def test_a_folder_that_cannot_be_written_ends_with_status_2(command, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main([*command, "--size", "smoke", "--out", str(tmp_path / "file")]) == 2
    said = capsys.readouterr().err
    assert "cannot write" in said and said.count("\n") == 1
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "sweep"}', '{"kind": "sweep", "parts": [{"size": 0}]}'])
def test_an_unreadable_record_is_one_line(text, tmp_path, capsys):
    (tmp_path / "a-sweep").mkdir()
    (tmp_path / "a-sweep" / "run.json").write_text(text)
    assert main(["results", "list", "--out", str(tmp_path)]) == 0
    assert main(["results", "export", "--out", str(tmp_path), "--to", str(tmp_path / "x.nc")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Traceback" not in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-sweep"]


def test_a_service_that_does_not_answer_is_not_an_empty_folder(monkeypatch, capsys):
    from fsspec.implementations.memory import MemoryFileSystem

    def silent(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(MemoryFileSystem, "ls", silent)
    monkeypatch.setattr(MemoryFileSystem, "info", silent)
    for words in (["results", "list"], ["results", "verify"], ["list"]):
        assert main([*words, "--out", "memory://gone/r"]) == 2
        said = capsys.readouterr().err
        assert said.startswith("armillary: cannot read memory://") and "not known" in said and said.count("\n") == 1


@pytest.mark.parametrize("root", ["folder", "memory://children"])
def test_what_is_in_a_folder_does_not_include_itself(root, tmp_path):
    folder = place(tmp_path / root if "://" not in root else root) / "blocks"
    assert children(folder) == []
    for name in ("blocks", "other"):
        make_folder(folder / name)
        write_text(folder / name / "run.json", "{}")
    assert children(folder) == ["blocks", "other"]
