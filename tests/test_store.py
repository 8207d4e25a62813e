"""Results on disk are whole or not there."""

import json
import os

import numpy as np
import pytest
import xarray as xr

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
