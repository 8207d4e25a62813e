"""Shared by all tests: one program at a time on each worker, type-checked calls, steady hypothesis."""

import os

# Before jax is loaded: pytest-xdist keeps the cores busy, and XLA's pool must not wait for itself (see `compiled`).
os.environ.setdefault("NPROC", "1")

import jax
import pytest
from hypothesis import settings

settings.register_profile("armillary", deadline=None, derandomize=True, max_examples=20, print_blob=False)
settings.load_profile("armillary")


@pytest.fixture
def key() -> jax.Array:
    """One key for tests that want any."""
    return jax.random.key(0)
