"""Experiments in processes of their own: the same numbers, and one line whatever happens to a process."""

import json
import os
import subprocess
import sys
import time
from multiprocessing import Pipe
from pathlib import Path
from queue import SimpleQueue

import pytest

from armillary.apart import Signs, _lead, _Shared
from armillary.errors import ArmillaryError
from armillary.experiment import Experiment, Sweep, likeness
from armillary.models import DeepLinear, Gaussian, Orthogonal
from armillary.probes import Losses
from armillary.rules import SGD, Descent
from armillary.tasks import LinearTeacher

STUDY = '''
"""Two experiments."""
import os, signal, time
from dataclasses import dataclass
from typing import ClassVar
import jax.numpy as jnp
import armillary as arm
from armillary.fields import at_least
from armillary.report.figure import Figure
from armillary.study import Claim, Paper, Study

@dataclass(frozen=True, kw_only=True)
class Two(Study):
    """Two linear regressions."""
    paper: ClassVar = Paper("Two", authors="N. N.", year=2000)
    dimension: int = at_least(2, default=4)
    """Inputs."""
    trouble: str = ""
    """What happens on the way."""

    def experiments(self):
        make = lambda n: arm.Experiment(
            arm.tasks.LinearTeacher(dimension=self.dimension, samples=n), arm.models.DeepLinear(depth=1, width=self.dimension),
            arm.rules.Descent(arm.rules.SGD(0.1), steps=10), [arm.probes.Losses()])
        return {"few": make(3), "many": make(12)}

    def measure(self, name, what, seeds, key, progress):
        if self.trouble == "error" and name == "many":
            raise arm.errors.InvalidValue("no more of this")
        if self.trouble == "killed" and name == "many":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.trouble == "slow":
            time.sleep(60)
        seen = super().measure(name, what, seeds, key, progress)
        return seen.assign(process=os.getpid())

    def claims(self, measured, theory):
        for name, seen in measured.items():
            yield Claim(name, "the loss at the end", measured=seen.train_loss.isel(time=-1).mean(), at_most=1.0)
        apart = {int(seen.process) for seen in measured.values()} - {os.getpid()}
        yield Claim("apart", "processes of their own", measured=len(apart), at_least=1)

    def figures(self, measured, theory):
        height = float(jnp.ones(3).sum())  # begins JAX in the process that draws, which must not be copied after that
        for name in ("first", "second", "third"):
            yield Figure(name, "A line.", lambda axes: axes[0][0].axhline(height))
'''


@pytest.fixture
def command(tmp_path):
    study = tmp_path / "two.py"
    study.write_text(STUDY)
    environment = {k: v for k, v in os.environ.items() if k not in ("NPROC", "JAX_PLATFORMS")}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    words = [
        sys.executable,
        "-m",
        "armillary",
        "run",
        str(study),
        "--seeds",
        "2",
        "--out",
        str(tmp_path / "r"),
        "--json",
    ]
    return lambda *more: subprocess.Popen(
        [*words, *more], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


forks = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="processes are forked on Linux, one a core"
)


@forks
def test_processes_give_the_numbers_that_threads_give(command, tmp_path, capsys):
    from armillary.cli import main

    run = command()
    said, errors = run.communicate(timeout=120)
    apart = {c["id"]: c for c in json.loads(said)["claims"]}
    assert run.returncode == 0 and errors == ""
    assert apart["apart"]["verdict"] == "holds"
    figures = Path(json.loads(said)["report"]).parent / "figures"
    assert {file.stem for file in figures.glob("*.svg")} == {"first", "second", "third"}
    assert main(["run", str(tmp_path / "two.py"), "--seeds", "2", "--out", str(tmp_path / "here"), "--json"]) == 0
    here = {c["id"]: c for c in json.loads(capsys.readouterr().out)["claims"]}
    assert here["apart"]["verdict"] == "fails"  # this process has threads: it cannot be forked
    assert [apart[name]["measured"] for name in ("few", "many")] == [here[name]["measured"] for name in ("few", "many")]


def test_a_process_takes_what_shares_its_programs_and_helps_out_at_the_end():
    taken = _Shared([("a", {1, 3}), ("b", {1}), ("c", {2}), ("d", {2, 4}), ("e", {1}), ("f", {1})])
    order = [taken.take(process)[0] for process in ("one", "other", "one", "other", "other", "one")]
    assert order == ["a", "c", "b", "d", "e", "f"]
    assert taken.take("one") is None and len(taken.futures) == 6


def test_what_differs_in_numbers_starts_and_times_alone_shares_programs():
    def make(depths, start, steps, rate=0.1):
        model = DeepLinear(width=4, initialisation=start)
        rule = Descent(SGD(rate), steps=steps)
        return Sweep(Experiment(LinearTeacher(4, samples=8), model, rule, [Losses()]), {"depth": depths})

    few, many = likeness(make([1, 2], Orthogonal(), 5)), likeness(make([1, 2, 3], Gaussian(), 9, rate=0.2))
    assert len(few) == 2 and len(many) == 3 and few < many
    assert few.isdisjoint(likeness(make([4], Orthogonal(), 5)))


def test_nobody_waits_for_what_a_lost_process_leaves():
    here, there = Pipe()
    there.close()
    left = _Shared([("a", {1}), ("b", {2})])
    _lead(left, "lost", here, print)
    for future in left.futures:
        with pytest.raises(ArmillaryError, match="was killed"):
            future.result(timeout=0)


def test_all_progress_is_told_in_the_end():
    told = SimpleQueue()
    signs = Signs(told)
    one, two = signs.begin("one", 10.0), signs.begin("two", 5.0)
    for _ in range(10):
        one(1.0)
    two(5.0)
    signs.flush()
    heard = [told.get() for _ in range(told.qsize())]
    runs = [run for run, sign in heard if isinstance(sign, tuple)]
    assert [sign for _, sign in heard[:2]] == [("one", 10.0), ("two", 5.0)]
    sums = [sum(sign for run, sign in heard[2:] if run == mine) for mine in runs]
    assert sums == [10.0, 5.0] and len(heard) <= 6


@forks
@pytest.mark.parametrize(("trouble", "says"), [("error", "no more of this"), ("killed", "was killed (out of memory?)")])
def test_trouble_in_a_process_is_one_line(command, trouble, says):
    run = command("--trouble", trouble)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 2 and says in errors and errors.count("\n") == 1


@forks
def test_processes_end_with_the_one_that_began_them(command):
    run = command("--trouble", "slow")
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    deadline = time.monotonic() + 60
    while not (begun := children.read_text().split()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert begun
    run.kill()
    run.communicate()
    while any(Path(f"/proc/{child}").exists() for child in begun) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [child for child in begun if Path(f"/proc/{child}").exists()]
