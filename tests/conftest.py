"""Shared by all tests: one program at a time on each worker, type-checked calls, steady hypothesis."""

import os

# Before jax is loaded: pytest-xdist keeps the cores busy, and XLA's pool must not wait for itself (see `compiled`).
os.environ.setdefault("NPROC", "1")

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile("armillary", deadline=None, derandomize=True, max_examples=20, print_blob=False)
settings.load_profile("armillary")


@pytest.fixture
def key() -> jax.Array:
    """One key for tests that want any."""
    return jax.random.key(0)
