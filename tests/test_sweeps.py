"""Sweeps: planned as few programs, kept block by block, the same numbers for the same cell however they are run."""

import json
import os
import signal
import threading
import time

import numpy as np
import pytest
import xarray as xr

import armillary as arm
from armillary.cli import main
from armillary.errors import ArmillaryError, InvalidValue, UnknownName
from armillary.store.blocks import read_block
from armillary.sweeps import gather, sweep
from armillary.sweeps.grid import parse_axis, parse_values, read_grid
from armillary.sweeps.plan import plan
from armillary.sweeps.sweep import of_grid_file, prepare, run


def experiment(steps=20, **model):
    task = arm.tasks.LinearTeacher(dimension=4, samples=8, noise=0.1)
    network = arm.models.DeepLinear(**{"depth": 2, "width": 3, **model})
    return arm.Experiment(task, network, arm.rules.Descent(steps=steps), [arm.probes.Losses()], arm.Evenly(5))


AXES = {"learning_rate": [0.01, 0.1], "depth": [1, 2]}


def test_a_sweep_has_the_numbers_of_simulate(tmp_path):
    found = sweep(experiment(), AXES, seeds=3, out=tmp_path)
    plain = arm.simulate(arm.Sweep(experiment(), AXES), seeds=3)
    np.testing.assert_allclose(found.train_loss, plain.train_loss.transpose(*found.train_loss.dims), rtol=1e-6)
    assert found.train_loss.dims == ("learning_rate", "depth", "seed", "time")


@pytest.mark.parametrize(
    ("axes", "seeds"),
    [({"learning_rate": [0.1], "depth": [2]}, [2]), ({"depth": [2, 1], "learning_rate": [0.1, 0.01]}, [2, 0, 1])],
)
def test_a_sub_grid_and_another_order_have_the_same_cells(axes, seeds, tmp_path):
    whole = sweep(experiment(), AXES, seeds=3, out=tmp_path)
    part = sweep(experiment(), axes, seeds=seeds, out=tmp_path)
    same = whole.sel(learning_rate=axes["learning_rate"], depth=axes["depth"], seed=seeds)
    np.testing.assert_array_equal(part.train_loss, same.train_loss.transpose(*part.train_loss.dims))


def test_fields_of_a_study_and_of_its_experiments_are_swept(tmp_path):
    found = sweep(
        "deep-linear",
        {"small": [1e-2, 2e-2], "tolerance": [1e-6, 1e-8]},
        size="smoke",
        experiments=["random"],
        out=tmp_path,
    )
    assert {"small": 2, "tolerance": 2}.items() <= dict(found.train_loss.sizes).items()
    begin = found.train_loss.isel(time=0).sel(tolerance=1e-8)
    assert (begin.sel(small=1e-2) != begin.sel(small=2e-2)).all()


def test_several_experiments_come_back_as_one_dataset(tmp_path):
    names = ["random", "delay"]
    found = sweep("deep-linear", {"until": [3.0, 4.0]}, seeds=2, size="smoke", experiments=names, out=tmp_path)
    [folder] = (path.parent for path in tmp_path.glob("*/run.json"))
    apart = gather(folder)
    for name in names:
        seen, own = found[f"{name}.mode_strength"], apart[name].mode_strength
        assert seen.sizes["seed"] == 2 and seen.dims == tuple(
            d if d in found.sizes else f"{name}.{d}" for d in own.dims
        )
        np.testing.assert_array_equal(seen, own)
        np.testing.assert_array_equal(found[f"{name}.time"], own.time)
    assert "time" not in found.dims and found.attrs["what"] == apart["random"].attrs["what"]
    assert main(["results", "export", "--out", str(tmp_path), "--to", str(tmp_path / "x.nc")]) == 0
    with xr.open_dataset(tmp_path / "x.nc") as kept:
        np.testing.assert_array_equal(kept["random.mode_strength"], found["random.mode_strength"])


def test_a_sweep_of_which_nothing_can_be_finished_says_why(tmp_path, monkeypatch):
    def slip(*args, **kwargs):
        raise ArithmeticError("a slip")

    monkeypatch.setattr("armillary.programs.Program.block", slip)
    with pytest.raises(ArmillaryError, match="every block failed, p0-0 with: ArithmeticError: a slip") as caught:
        sweep(experiment(), AXES, seeds=1, out=tmp_path)
    assert "\n" not in str(caught.value)


def test_points_that_differ_in_numbers_alone_are_one_program():
    asked = prepare(
        "deep-linear", {"small": tuple(np.geomspace(1e-3, 1e-1, 9).tolist())}, size="smoke", experiments=("random",)
    )
    [part] = asked.parts()
    assert part.program.members == 9 * 2 and len(part.entries) == 9
    shapes = prepare("deep-linear", {"inputs": (8, 9)}, size="smoke", experiments=("random",)).parts()
    assert len(shapes) == 2


def test_missing_cells_are_missing(tmp_path):
    asked = prepare(experiment(), {"learning_rate": (0.01, 0.1), "depth": (1, 2, 3)}, seeds=2)
    outcome = run(asked, out=tmp_path)
    (outcome.folder / "blocks" / "p1-0.nc").unlink()
    found = gather(outcome.folder)["experiment"]
    assert found.depth.values.tolist() == [1, 2, 3] and found.train_loss.sel(depth=2).isnull().all()
    assert found.train_loss.sel(depth=[1, 3]).notnull().all()


class Broken(arm.models.DeepLinear):
    """A model that fails to be drawn at one depth, until it is mended."""

    broken = True

    def __call__(self, key, inputs, outputs):
        if self.depth == 2 and Broken.broken:
            raise ArithmeticError("a slip\nand more")
        return super().__call__(key, inputs, outputs)


def test_failures_are_kept_and_retried_on_request(tmp_path):
    Broken.broken = True
    whole = experiment()
    what = arm.Experiment(whole.task, Broken(depth=2, width=3), whole.rule, whole.probes, whole.observe)
    asked = prepare(what, {"depth": (1, 2)}, seeds=2)
    first = run(asked, out=tmp_path)
    assert first.failed == {"p1-0": "ArithmeticError: a slip"} and first.done == 1
    Broken.broken = False
    assert run(asked, out=tmp_path).failed == first.failed, "it stays failed"
    again = run(asked, out=tmp_path, retry=True)
    assert (again.done, again.failed) == (2, {})


def test_two_writers_into_one_folder_lose_nothing(tmp_path):
    asked = prepare(experiment(), {"learning_rate": (0.01, 0.1), "depth": (1, 2, 3)}, seeds=2)
    alone = run(asked, out=tmp_path / "alone")
    both = [threading.Thread(target=run, args=(asked,), kwargs={"out": tmp_path / "both"}) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    folder = tmp_path / "both" / alone.folder.name
    assert sorted(p.name for p in (folder / "blocks").iterdir()) == sorted(
        p.name for p in (alone.folder / "blocks").iterdir()
    )
    xr.testing.assert_identical(gather(folder)["experiment"], gather(alone.folder)["experiment"])


def test_a_worker_that_is_killed_loses_nothing(tmp_path):
    distributed = pytest.importorskip("distributed")
    asked = prepare(experiment(4000), {"depth": (1, 2), "width": (2, 3, 4)}, seeds=2)
    address = {}

    def kill_one():
        from psutil import Process

        folder = tmp_path / "cluster"
        while len(list(folder.glob("*/blocks/[!.]*.nc"))) < 1 and time.monotonic() < begun + 120:
            time.sleep(0.05)
        workers = [p for p in Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
        address["killed"] = workers[-1].pid
        os.kill(workers[-1].pid, signal.SIGKILL)

    begun = time.monotonic()
    killer = threading.Thread(target=kill_one)
    killer.start()
    outcome = run(asked, out=tmp_path / "cluster", cluster="local:2")
    killer.join()
    assert address and distributed and (outcome.done, outcome.failed) == (6, {})
    here = run(asked, out=tmp_path / "here")
    for path in (here.folder / "blocks").iterdir():
        ours, theirs = read_block(path), read_block(outcome.folder / "blocks" / path.name)
        np.testing.assert_array_equal(
            ours.records[0][1]["train_loss"].values, theirs.records[0][1]["train_loss"].values
        )


def test_a_schedulers_address_is_a_cluster_and_debris_is_cleared(tmp_path):
    from distributed import LocalCluster

    asked = prepare(experiment(), {"depth": (1, 2)}, seeds=2)
    first = run(asked, out=tmp_path)
    for path in (first.folder / "blocks").glob("*.nc"):
        path.unlink()
    old, young = (first.folder / "blocks" / f".p0-0.nc.{n}.tmp.nc" for n in (1, 2))
    for path in (old, young):
        path.write_text("half")
    os.utime(old, (0, 0))
    with LocalCluster(
        n_workers=1, threads_per_worker=1, protocol="tcp://", processes=False, dashboard_address=None
    ) as own:
        outcome = run(asked, out=tmp_path, cluster=own.scheduler_address)
    assert (outcome.done, outcome.failed) == (2, {}) and not old.exists() and young.exists()


@pytest.mark.parametrize("where", ["local:0", "local:9999", "local", "http://x", "tcp://127.0.0.1:9"])
def test_clusters_that_cannot_be_are_one_line(where, tmp_path, monkeypatch):
    monkeypatch.setattr("armillary.sweeps.cluster.PATIENCE", 1.0)
    with pytest.raises(ArmillaryError) as error:
        run(prepare(experiment(), {"depth": (1,)}), out=tmp_path, cluster=where)
    assert "\n" not in str(error.value)


def test_the_command_line_sweeps_shows_exports_verifies_and_removes(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = str(tmp_path / "out")
    command = [
        "sweep",
        "deep-linear",
        "--over",
        "small=0.01,0.02",
        "--seeds",
        "2",
        "--size",
        "smoke",
        "--experiment",
        "random",
    ]
    assert main([*command, "--out", out, "--dry-run"]) == 0 and "1 compiled programs" in capsys.readouterr().out
    assert not os.path.exists(out)
    assert main([*command, "--out", out, "--json"]) == 0
    name = json.loads(capsys.readouterr().out)["sweep"]
    assert main(["results", "list", "--out", out]) == 0 and "1 of 1 blocks done" in capsys.readouterr().out
    assert main(["results", "show", name, "--out", out]) == 0
    for ending in ("nc", "csv", "zarr"):
        assert main(["results", "export", "--out", out, "--to", str(tmp_path / f"x.{ending}")]) == 0
    whole = xr.open_dataset(tmp_path / "x.nc")
    assert dict(whole.train_loss.sizes)["small"] == 2
    xr.testing.assert_allclose(xr.open_zarr(tmp_path / "x.zarr").train_loss.compute(), whole.train_loss.load())
    assert (tmp_path / "x.csv").read_text().count("\n") > whole.train_loss.size
    assert main(["results", "verify", "--out", out]) == 0
    [block] = (tmp_path / "out" / name / "blocks").glob("*.nc")
    raw = bytearray(block.read_bytes())
    raw[len(raw) // 2] ^= 8
    block.write_bytes(raw)
    capsys.readouterr()
    assert main(["results", "verify", "--out", out]) == 1 and "damaged" in capsys.readouterr().out
    block.unlink()
    assert main(["results", "verify", name, "--out", out]) == 1 and "missing" in capsys.readouterr().out
    assert main(["results", "rm", name, "--out", out]) == 0 and not (tmp_path / "out" / name).exists()


def test_a_toml_file_is_the_same_sweep(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(
        'study = "deep-linear"\nsize = "smoke"\nseeds = 2\nexperiments = ["random"]\n[over]\nsmall = [0.01, 0.02]\n'
    )
    from_file = of_grid_file(read_grid(path))
    by_hand = prepare("deep-linear", {"small": (0.01, 0.02)}, seeds=2, size="smoke", experiments=("random",))
    assert from_file.said == by_hand.said


def test_another_versions_folder_is_left_alone(tmp_path):
    asked = prepare(experiment(), {"depth": (1,)})
    folder = run(asked, out=tmp_path).folder
    said = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**said, "source": "another", "armillary": "0.0.1"}))
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    with pytest.raises(ArmillaryError, match=r"was begun by Armillary 0\.0\.1"):
        run(asked, out=tmp_path)
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("depth", "must be NAME=VALUES"),
        ("depth=", "must be NAME=VALUES"),
        ("../x=1", "must be a field's name"),
        ("a=1,,2", "empty value"),
        ("a=1,1", "twice"),
        ("a=log:0:1:3", "both must be above 0"),
        ("a=log:1:2", "log:LOW:HIGH:COUNT"),
        ("a=lin:1:2:0", "must have 1 to"),
        ("a=lin:1:2:99999999", "must have 1 to"),
        ("a=[1,", "no JSON list"),
        ("a=nan", "finite"),
        ("a=" + "9" * 5000, "finite"),
        ("a=" + "9" * 50, "2^53"),
    ],
)
def test_axes_that_cannot_be_are_one_line(text, said):
    with pytest.raises(InvalidValue) as error:
        parse_axis(text)
    assert said in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 300


def test_unknown_fields_and_experiments_are_named():
    with pytest.raises(UnknownName, match="unknown field 'learning_rat'; nearest: learning_rate"):
        plan(experiment(), {"learning_rat": (1,)}, [0], 0)
    with pytest.raises(UnknownName, match="unknown experiment 'rando'"):
        prepare("deep-linear", {"small": (0.1,)}, size="smoke", experiments=("rando",)).parts()
    with pytest.raises(InvalidValue, match="must be above 0"):
        prepare("deep-linear", {"small": (-0.1,)}, size="smoke").parts()
    with pytest.raises(InvalidValue, match="must be of type float"):
        prepare("deep-linear", {"small": ("much",)}, size="smoke").parts()
    assert parse_values("a", {"lin": [0, 1, 3]}) == (0.0, 0.5, 1.0)
