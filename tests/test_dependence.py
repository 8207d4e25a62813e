"""Traced programs in two halves."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as some
from jax.extend.core import jaxpr_as_fun

from armillary.dependence import halves

steps = some.lists(
    some.tuples(some.sampled_from(["add", "sin", "loop", "swap"]), some.integers(0, 9), some.integers(0, 9))
)


@given(steps, some.integers(0, 3))
def test_halves_together_are_the_whole(program, outputs):
    def function(a, b, c):
        known = [a, b, c, jnp.ones(2)]
        for kind, i, j in program:
            x, y = known[i % len(known)], known[j % len(known)]
            if kind == "loop":
                x = jax.lax.fori_loop(0, 2, lambda _, z, y=y: z + y, x)
            known.append({"add": x + y, "sin": jnp.sin(x), "loop": x, "swap": y}[kind])
        return known[-1 - outputs :]

    a, b, c = (jnp.arange(2.0) + n for n in range(3))
    common, rest = map(jaxpr_as_fun, halves(jax.make_jaxpr(function)(a, b, c), 2))
    for found, right in zip(rest(*common(a, b), c), function(a, b, c), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-6)
