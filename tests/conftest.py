"""Shared by all tests: one program at a time on each worker, type-checked calls, steady hypothesis."""

import gc
import os

# Before jax is loaded: pytest-xdist keeps the cores busy, and XLA's pool must not wait for itself (see `cores`).
os.environ.setdefault("NPROC", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads would wait for each other, spinning
os.environ.setdefault("OMP_NUM_THREADS", "1")  # so would PyTorch's
os.environ.setdefault("EQX_ON_ERROR", "nan")  # as the command line; checks that raise are callbacks, slow to compile
# Most of the suite's time was XLA optimising programs that run once, in pieces for many cores. The parts of the library
# that choose how carefully they are compiled (`compiled.py`) still do.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)

import jax
import jaxtyping
import pytest
from hypothesis import settings

# Unchecked: called for each equation of each program or for each number given, together most of all checks.
import armillary.dependence
import armillary.errors
import armillary.interpreter
import armillary.work  # noqa: F401

# Before the rest is loaded: every call of an annotated function or class is checked, its arrays' shapes included.
jaxtyping.install_import_hook("armillary", "checking.checked")

settings.register_profile("armillary", deadline=None, derandomize=True, max_examples=20, print_blob=False)
settings.load_profile("armillary")


def pytest_collection_finish() -> None:
    """What is loaded stays: looking through it for rubbish, over and over, took a fortieth of the suite's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.fixture
def key() -> jax.Array:
    """One key for tests that want any."""
    return jax.random.key(0)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library as users have it: annotations are not checked, so that its own errors speak."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
