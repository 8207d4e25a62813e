"""Programs kept on disk: found again, told apart, never a wrong one and never a crash."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

import armillary.executables as executables
from armillary.compiled import FASTEST, LIGHT, Compiled
from armillary.executables import keep_executables, remove_oldest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Programs of this test are kept here."""
    monkeypatch.setattr(executables, "_folder", None)
    jaxs = jax.config.jax_compilation_cache_dir
    # Other tests switch JAX's own cache on, and what comes from there is not written.
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", None)
    keep_executables(tmp_path / "programs")
    yield tmp_path / "programs"
    jax.config.update("jax_compilation_cache_dir", jaxs)
    compilation_cache.reset_cache()


def lowered(work):
    """How many programs `work` had to lower."""
    seen = []
    listen = lambda event, duration, **_: seen.append(event) if "jaxpr_to_mlir" in event else None
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        work()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return len(seen)


def test_a_kept_program_is_not_lowered_again_and_gives_the_same_numbers(folder):
    def drawn(key, x):
        return {"noise": jax.random.normal(key, (50,)) + x, "solved": jnp.linalg.qr(jnp.outer(x, x) + jnp.eye(50))[1]}

    args = jax.random.key(3), jnp.linspace(0, 1, 50)
    plain = jax.jit(drawn)(*args)
    first = Compiled(drawn, FASTEST)(*args)
    assert len(list(folder.iterdir())) == 1
    found = []
    assert lowered(lambda: found.append(Compiled(drawn, FASTEST)(*args))) <= 1  # LAPACK's beginning
    for name in plain:
        np.testing.assert_array_equal(first[name], found[0][name])
        np.testing.assert_allclose(plain[name], found[0][name], rtol=1e-4, atol=1e-5)


def closing_over(values):
    return Compiled(lambda x: x * values, FASTEST)


@pytest.mark.parametrize("where", ["a constant array", "a number", "the options", "the precision"])
def test_programs_that_differ_are_told_apart(where, folder):
    big = np.ones(5000)
    big[2500] = 1 + 1e-6
    x = jnp.ones(5000)
    pairs = {
        "a constant array": (closing_over(np.ones(5000)), closing_over(big)),
        "a number": (closing_over(0.1), closing_over(0.1000001)),
        "the options": (Compiled(jnp.sin, FASTEST), Compiled(jnp.sin, LIGHT)),
        "the precision": (Compiled(lambda x: x + jnp.zeros(()), LIGHT),) * 2,
    }
    one, other = pairs[where]
    first = one(x)
    if where == "the precision":
        with jax.enable_x64(True):
            assert other(jnp.ones(5000)).dtype == np.float64
    elif where != "the options":
        assert (np.asarray(first) != np.asarray(other(x))).any()
    else:
        other(x)
    assert len(list(folder.iterdir())) == 2


def test_a_name_is_of_the_settings_at_the_time_and_not_of_what_was_named_before():
    program = jax.jit(lambda x: 2 * x).trace(jnp.ones(2)).jaxpr
    named = {}
    for first in (False, True):  # each as in a process that begins with this precision
        executables._surroundings.cache_clear()
        for double in (first, not first):
            with jax.enable_x64(double):
                named.setdefault(double, set()).add(executables._name(program, {}))
    assert [len(names) for names in named.values()] == [1, 1] and named[True] != named[False]


def test_functions_with_derivatives_of_their_own_are_kept(folder):
    slope = lambda: Compiled(lambda x: jax.grad(lambda v: jax.nn.relu(v).sum() + jax.nn.silu(v).sum())(x), LIGHT)
    first = slope()(jnp.linspace(-1, 1, 5))
    assert len(list(folder.iterdir())) == 1
    plain = lambda: Compiled(lambda x: jax.vmap(jax.nn.relu)(x), LIGHT)
    plain()(jnp.ones(3))
    assert len(list(folder.iterdir())) == 2
    assert lowered(lambda: [slope()(jnp.linspace(-1, 1, 5)), plain()(jnp.ones(3))]) == 0
    np.testing.assert_array_equal(first, slope()(jnp.linspace(-1, 1, 5)))


def test_what_cannot_be_kept_runs_all_the_same(folder):
    seen = []

    def called(x):
        jax.debug.callback(lambda value: seen.append(float(value)), x[0])
        return 2 * x

    assert Compiled(called, LIGHT)(jnp.ones(3)).sum() == 6
    jax.effects_barrier()
    assert seen == [1.0] and not list(folder.iterdir())


@pytest.mark.parametrize("harm", ["cut", "changed", "empty"])
def test_a_damaged_file_is_written_anew(harm, folder):
    program = lambda: Compiled(lambda x: jnp.cos(x).sum(), LIGHT)
    expected = program()(jnp.ones(4))
    [path] = folder.iterdir()
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {"cut": whole[:middle], "changed": whole[:middle] + b"!" + whole[middle + 1 :], "empty": b""}[harm]
    )
    assert program()(jnp.ones(4)) == expected
    assert len(path.read_bytes()) >= len(whole) - 100 and lowered(lambda: program()(jnp.ones(4))) == 0


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_a_folder_that_others_can_write_to_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(executables, "_folder", None)
    open_to_all = tmp_path / "programs"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    keep_executables(open_to_all)
    assert Compiled(jnp.tan, LIGHT)(jnp.zeros(2)).sum() == 0
    assert not list(open_to_all.iterdir())


def test_the_programs_unused_for_longest_are_removed(tmp_path, monkeypatch):
    for age, name in enumerate(["newest", "middle", "oldest"]):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    monkeypatch.setattr(executables, "MOST_BYTES", 250)
    remove_oldest(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["middle", "newest"]


SCRIPT = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp
from armillary.compiled import Compiled, FASTEST
from armillary.executables import keep_executables
jax.config.update("jax_compilation_cache_dir", sys.argv[1] + "/jax")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
keep_executables(Path(sys.argv[1]) / "programs")
program = Compiled(lambda x: jnp.linalg.eigh(jnp.outer(x, x) + jnp.diag(x))[0], FASTEST)
print(program(jnp.arange(1.0, 6.0)).tolist())
"""


def test_other_processes_find_them_and_what_comes_from_jax_is_not_written_again(tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    run = lambda: subprocess.run(command, check=True, capture_output=True, text=True).stdout
    kept = tmp_path / "programs"
    first = run()
    [path] = kept.iterdir()
    assert run() == first  # LAPACK is called by a process that has lowered nothing that calls it
    path.unlink()
    assert run() == first and not list(kept.iterdir())  # written again, such a program would lack its kernels
