"""Compiled programs and the threads they run in."""

import json
import os
import subprocess
import sys
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

import armillary.compiled as compiled
from armillary.compiled import LIGHT, Compiled


@pytest.fixture
def crew(monkeypatch):
    """Two threads, whatever the machine; the work below compiles nothing."""
    monkeypatch.setattr(compiled, "side_by_side", lambda: 2)
    compiled._crew.cache_clear()
    yield
    compiled._crew().shutdown()
    compiled._crew.cache_clear()


def test_a_program_is_compiled_once_for_each_structure_and_shape():
    traced = []

    def scaled(factor, tree):
        traced.append(factor)
        return {name: factor * value for name, value in tree.items()}

    program = Compiled(scaled, LIGHT)
    for factor, size in [(2, 3), (2, 3), (3, 3), (2, 4), (2, 3)]:
        seen = program(factor, {"a": jnp.ones(size)})
        np.testing.assert_array_equal(seen["a"], factor * np.ones(size))
    assert traced == [2, 3, 2]


def test_only_the_last_programs_are_kept():
    traced = []
    program = Compiled(lambda n, x: (traced.append(n), n * x)[1], LIGHT, kept=2)
    for n in (1, 2, 3, 2, 1):
        assert float(program(n, jnp.ones(()))) == n
    assert traced == [1, 2, 3, 1]


def test_shapes_are_told_without_running():
    program = Compiled(lambda x: (x.T, "name"), LIGHT)
    shape, name = program.bind(jnp.ones((2, 3))).shapes()
    assert shape.shape == (3, 2) and name == "name"


def test_two_threads_compile_a_program_once(crew):
    traced = []

    def slow(x):
        traced.append(threading.current_thread().name)
        time.sleep(0.2)
        return x + 1

    program = Compiled(slow, LIGHT)
    assert compiled.all_of(lambda n: float(program(jnp.asarray(float(n)))), range(4)) == [1.0, 2.0, 3.0, 4.0]
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

    found = compiled.all_of(lambda row: compiled.all_of(leaf, range(row, row + 5)), range(4))
    assert found == [list(range(row, row + 5)) for row in range(4)]
    assert most[0] == 2


def test_the_first_error_is_raised(crew):
    def work(n):
        if n >= 2:
            raise ValueError(f"number {n}")
        return n

    with pytest.raises(ValueError, match="number 2"):
        compiled.all_of(work, range(5))


def test_a_study_gives_the_same_numbers_on_several_threads(tmp_path):
    said = {}
    for pool in ("1", str(2 * compiled.cores() + 2)):
        command = [sys.executable, "-m", "armillary", "run", "deep-linear", "--size", "smoke", "--json"]
        run = subprocess.run(
            [*command, "--out", str(tmp_path / pool)],
            env={**os.environ, "NPROC": pool},
            check=True,
            capture_output=True,
        )
        said[pool] = {claim["id"]: claim["measured"] for claim in json.loads(run.stdout)["claims"]}
    alone, together = said.values()
    assert alone == together
