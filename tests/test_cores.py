"""Programs side by side: in threads, never more at once than there are cores."""

import json
import os
import subprocess
import sys
import threading
import time

import jax.numpy as jnp
import pytest

from armillary import cores
from armillary.compiled import LIGHT, Compiled


@pytest.fixture
def crew(monkeypatch):
    """Two threads, whatever the machine; the work below compiles nothing."""
    monkeypatch.setattr(cores, "side_by_side", lambda: 2)
    cores._spare.cache_clear()
    yield
    cores._spare.cache_clear()


def test_two_threads_compile_a_program_once(crew):
    traced = []

    def slow(x):
        traced.append(threading.current_thread().name)
        time.sleep(0.2)
        return x + 1

    program = Compiled(slow, LIGHT)
    assert cores.all_of(lambda n: float(program(jnp.asarray(float(n)))), range(4)) == [1.0, 2.0, 3.0, 4.0]
    assert len(traced) == 1


def test_work_within_work_keeps_its_order_and_never_runs_on_more_threads(crew):
    busy, most, lock = [0], [0], threading.Lock()

    def leaf(n):
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        time.sleep(0.01)
        with lock:
            busy[0] -= 1
        return n

    found = cores.all_of(lambda row: cores.all_of(leaf, range(row, row + 5)), range(4))
    assert found == [list(range(row, row + 5)) for row in range(4)]
    assert most[0] == 2


def test_the_first_error_is_raised(crew):
    def work(n):
        if n >= 2:
            raise ValueError(f"number {n}")
        return n

    with pytest.raises(ValueError, match="number 2"):
        cores.all_of(work, range(5))


def test_nothing_is_begun_after_an_error(crew):
    begun = []

    def work(n):
        begun.append(n)
        raise ValueError(f"number {n}")

    with pytest.raises(ValueError, match="number 0"):
        cores.all_of(work, range(100))
    assert len(begun) <= 2


def test_no_outcome_is_lost_when_a_helper_ends_early(crew):
    caller = threading.current_thread()

    def work(n):
        time.sleep(0.05)
        if threading.current_thread() is not caller:
            raise SystemExit(1)
        return n

    with pytest.raises(SystemExit):
        cores.all_of(work, range(20))


STUDY = """
from dataclasses import dataclass
from typing import ClassVar
import armillary as arm
from armillary.study import Claim, Paper, Study

@dataclass(frozen=True, kw_only=True)
class Four(Study):
    \"""Deep linear networks of four widths.\"""
    paper: ClassVar = Paper("Four", authors="N. N.", year=2000)

    def experiments(self):
        task = arm.tasks.LinearTeacher(dimension=6, samples=12)
        make = lambda width: arm.Experiment(
            task, arm.models.DeepLinear(depth=1, width=width), arm.rules.Descent(arm.rules.SGD(0.1), steps=300), [arm.probes.Losses()])
        return {f"width {width}": arm.Sweep(make(width), {"learning_rate": (0.01, 0.1), "depth": (1, 2)}) for width in (6, 7, 8, 9)}

    def claims(self, measured, theory):
        for name, seen in measured.items():
            yield Claim(name, "the loss on the way", measured=seen.train_loss.mean(), at_most=1.0)

    def figures(self, measured, theory):
        return ()
"""

THREADS = """
import sys
from armillary.cli import main
from armillary.report import console
console.can_fork = lambda: False
sys.exit(main(sys.argv[1:]))
"""


def test_a_study_gives_the_same_numbers_on_several_threads(tmp_path):
    study, said = tmp_path / "four.py", {}
    study.write_text(STUDY)
    for pool in ("1", str(cores.cores() + 1)):
        command = [sys.executable, "-c", THREADS, "run", str(study), "--seeds", "3", "--json"]
        run = subprocess.run(
            [*command, "--out", str(tmp_path / pool)],
            env={
                **os.environ,
                "NPROC": pool,
                "OPENBLAS_NUM_THREADS": "1",
                "XDG_CACHE_HOME": str(tmp_path / f"cache {pool}"),
            },
            check=True,
            capture_output=True,
        )
        said[pool] = {claim["id"]: claim["measured"] for claim in json.loads(run.stdout)["claims"]}
    alone, together = said.values()
    assert len(alone) == 4 and all(value == value for value in alone.values())
    assert alone == together
