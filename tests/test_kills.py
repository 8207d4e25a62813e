"""A sweep whose process is killed at random moments loses nothing that was written, and ends as one that was not."""

import multiprocessing
import os
import random
import signal
import time

import pytest
import xarray as xr

KILLS = 20


def run(out: str, cache: str) -> None:
    """In a process of its own: the sweep, with a checkpoint at every observation."""
    import jax

    import armillary as arm
    from armillary.store import keeper
    from armillary.sweeps import sweep

    for name, value in (("dir", cache), ("enable_xla_caches", "none")):
        jax.config.update("jax_compilation_cache_dir" if name == "dir" else f"jax_persistent_cache_{name}", value)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    keeper.Kept.due = lambda self, first: True
    task = arm.tasks.LinearTeacher(dimension=6, samples=12, noise=0.1)
    experiment = arm.Experiment(
        task, arm.models.DeepLinear(depth=1, width=6), arm.rules.Descent(arm.rules.SGD(0.05), steps=300),
        [arm.probes.Losses(), arm.probes.WeightNorm()], arm.Evenly(11),
    )  # fmt: skip
    sweep(experiment, {"learning_rate": [0.01, 0.05], "depth": [1, 2, 3]}, seeds=2, out=out)


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["armillary.simulation", "armillary.sweeps", "armillary.probes", "netCDF4"])
    return context


def test_killed_at_random_moments_a_sweep_ends_as_if_it_had_not_been(tmp_path, processes):
    from armillary.store.blocks import digest_of, read_block
    from armillary.store.command import problems, runs_in
    from armillary.sweeps import gather

    cache = str(tmp_path / "cache")
    start = lambda out: processes.Process(target=run, args=(str(tmp_path / out), cache))
    lasted = 0.0
    for out in ("compiled", "whole"):  # the first fills the cache of compiled programs
        begun = time.monotonic()
        whole = start(out)
        whole.start()
        whole.join()
        lasted = time.monotonic() - begun
        assert whole.exitcode == 0
    [reference] = (tmp_path / "whole").iterdir()
    right = {path.name: digest_of(read_block(path)) for path in (reference / "blocks").glob("*.nc")}
    assert len(right) == 3
    chance, kills, done_before, ended = random.Random(0), 0, 0, False
    folder = tmp_path / "killed" / reference.name
    while kills < KILLS or not ended:
        child = start("killed")
        child.start()
        child.join(chance.uniform(0.1, 0.7) * lasted)
        if child.exitcode is None:
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            kills += 1
        ended = child.exitcode == 0
        found = {path.name: digest_of(read_block(path)) for path in (folder / "blocks").glob("[!.]*.nc")}
        assert found.items() <= right.items(), "each finished block is whole and equal to the reference's"
        assert len(found) >= done_before, "nothing that was finished is lost"
        done_before = len(found)
        if ended and kills < KILLS:  # begin again
            done_before, ended = 0, False
            for path in sorted((tmp_path / "killed").rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
    assert found == right, "none is missing, none is there twice"
    one, other = gather(reference)["experiment"], gather(folder)["experiment"]
    xr.testing.assert_identical(one, other)
    assert problems(folder, runs_in(tmp_path / "killed")[folder.name]) == []
