"""An interrupted simulation goes on from its last checkpoint and ends with the same numbers."""

import contextlib
import shutil

import numpy as np
import pytest
import xarray as xr

import armillary as arm
from armillary import engine
from armillary.errors import ArmillaryError
from armillary.members import MANY
from armillary.simulation import simulate
from armillary.stages import Stages
from armillary.store.fingerprint import fingerprint
from armillary.store.keeper import Keep, keeping


def experiment(rate=0.1, steps=40, probes=None):
    task = arm.tasks.LinearTeacher(dimension=5, samples=12, noise=0.1)
    probes = [arm.probes.Losses(), arm.probes.Sharpness()] if probes is None else probes
    rule = arm.rules.Descent(arm.rules.SGD(rate), steps=steps, feed=arm.rules.MiniBatch(4))
    return arm.Experiment(task, arm.models.DeepLinear(depth=2, width=4), rule, probes, arm.Evenly(11))


def deep(steps):
    """A network of so many layers alike that they are handed through loops as one array."""
    rule = arm.rules.Descent(arm.rules.SGD(0.1), steps=steps)
    task, model = arm.tasks.LinearTeacher(dimension=3, samples=6), arm.models.MLP(3, MANY + 2, "tanh")
    return arm.Experiment(task, model, rule, [arm.probes.Losses()], arm.Evenly(6))


class Killed(Exception):
    pass


def interrupt_after(looks, monkeypatch):
    """The run stops at its so-many-th observation from now on, as if the process had been killed."""
    count = [0]
    real = engine._together

    def together(look, seen, memory):
        count[0] += 1
        if count[0] == looks:
            raise Killed
        return real(look, seen, memory)

    monkeypatch.setattr(engine, "_together", together)


CASES = {
    "steps": lambda: experiment(),
    "sweep": lambda: arm.Sweep(experiment(), {"learning_rate": [0.05, 0.1, 30.0], "width": [3, 4]}),
    "stages": lambda: Stages([experiment(), experiment(0.02, probes=[arm.probes.Losses()])]),
    "deep": lambda: Stages([deep(30), deep(10)]),
    "flow": lambda: arm.Experiment(
        arm.tasks.LinearTeacher(dimension=4, samples=9), arm.models.DeepLinear(depth=2, width=4),
        arm.rules.GradientFlow(until=3.0), [arm.probes.Losses()], arm.Evenly(9), precision="float64"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("looks", [1, 4, 9, 14])
def test_an_interrupted_run_ends_with_the_same_numbers(name, looks, tmp_path, monkeypatch):
    whole = simulate(CASES[name](), seeds=3)
    with monkeypatch.context() as patch, keeping(Keep(tmp_path, every=0.0)):
        interrupt_after(looks, patch)
        with contextlib.suppress(Killed):
            simulate(CASES[name](), seeds=3)
    with keeping(Keep(tmp_path, every=0.0)):
        again = simulate(CASES[name](), seeds=3)
    xr.testing.assert_identical(again, whole)
    assert not list((tmp_path / "checkpoints").iterdir()), "checkpoints of finished blocks are dropped"


def test_what_is_finished_is_not_run_again(tmp_path, monkeypatch):
    first = simulate(experiment(), seeds=2, keep=tmp_path)
    monkeypatch.setattr(engine, "follow", lambda *a, **k: pytest.fail("it ran again"))
    xr.testing.assert_identical(simulate(experiment(), seeds=2, keep=tmp_path), first)


def test_another_experiment_in_the_same_folder_is_another_block(tmp_path):
    one = simulate(experiment(0.1), seeds=2, keep=tmp_path)
    two = simulate(experiment(0.2), seeds=2, keep=tmp_path)
    three = simulate(experiment(0.1), seeds=2, key=1, keep=tmp_path)
    assert len(list(tmp_path.glob("*.nc"))) == 3
    assert not np.allclose(one.train_loss, two.train_loss) and not np.allclose(one.train_loss, three.train_loss)


def test_a_damaged_block_or_checkpoint_is_run_again(tmp_path, monkeypatch):
    whole = simulate(experiment(), seeds=2, keep=tmp_path)
    [block] = tmp_path.glob("*.nc")
    block.write_bytes(block.read_bytes()[:-200])
    with monkeypatch.context() as patch, keeping(Keep(tmp_path, every=0.0)):
        interrupt_after(5, patch)
        with pytest.raises(Killed):
            simulate(experiment(), seeds=2)
    [saved] = tmp_path.glob("checkpoints/*.npz")
    saved.write_bytes(b"PK")
    xr.testing.assert_identical(simulate(experiment(), seeds=2, keep=tmp_path), whole)


def test_a_slice_whose_checkpoint_was_never_written_is_taken_away(tmp_path, monkeypatch):
    whole = simulate(experiment(), seeds=2)
    with monkeypatch.context() as patch, keeping(Keep(tmp_path, every=0.0)):
        interrupt_after(5, patch)
        with pytest.raises(Killed):
            simulate(experiment(), seeds=2)
    last = max(tmp_path.glob("checkpoints/*.nc"))
    begun, end = last.stem.rsplit("-", 2)[0], int(last.stem.rsplit("-", 1)[1])
    stray = last.with_name(f"{begun}-{end:06d}-{end + 3:06d}.nc")  # another cut of what comes next, with other numbers
    shutil.copy(last, stray)
    left = []
    real = engine.follow

    def follow(members, clock, *args, **more):
        left.append((len(clock), stray.exists()))
        return real(members, clock, *args, **more)

    monkeypatch.setattr(engine, "follow", follow)
    with keeping(Keep(tmp_path, every=0.0)):
        xr.testing.assert_identical(simulate(experiment(), seeds=2), whole)
    assert left == [(11 - end + 1, False)], "it went on from the checkpoint"


def test_runs_from_a_url_go_on_too():
    where = "memory://armillary-test/kept"
    first = simulate(experiment(), seeds=2, keep=where)
    xr.testing.assert_identical(simulate(experiment(), seeds=2, keep=where), first)


@pytest.mark.parametrize("where", ["nowhere://x/y", "/proc/armillary"])
def test_folders_that_cannot_be_are_one_line(where):
    with pytest.raises(ArmillaryError) as error:
        simulate(experiment(), keep=where)
    assert "\n" not in str(error.value) and where.split(":")[0] in str(error.value)


def test_fingerprints_tell_functions_apart():
    def scaled(by):
        return lambda x: by * x

    assert fingerprint(scaled(1.0)) != fingerprint(scaled(2.0)) and fingerprint(scaled(1.0)) == fingerprint(scaled(1.0))
    assert fingerprint(lambda x: x + 1) != fingerprint(lambda x: x - 1)
    assert fingerprint(np.tanh) is None or fingerprint(np.tanh) != fingerprint(np.sin)
    assert fingerprint(experiment()) == fingerprint(experiment()) != fingerprint(experiment(steps=41))
