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


THREADS = """
import sys
from armillary.cli import main
from armillary.report import console
console.can_fork = lambda: False
sys.exit(main(sys.argv[1:]))
"""


def test_a_study_gives_the_same_numbers_on_several_threads(tmp_path):
    said = {}
    for pool in ("1", str(cores.cores() + 1)):
        command = [sys.executable, "-c", THREADS, "run", "deep-linear", "--size", "smoke", "--json"]
        run = subprocess.run(
            [*command, "--out", str(tmp_path / pool)],
            env={**os.environ, "NPROC": pool, "OPENBLAS_NUM_THREADS": "1"},
            check=True,
            capture_output=True,
        )
        said[pool] = {claim["id"]: claim["measured"] for claim in json.loads(run.stdout)["claims"]}
    alone, together = said.values()
    assert alone == together
