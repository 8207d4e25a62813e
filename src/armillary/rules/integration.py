"""A differential equation solved from one look to the next: diffrax's solver and step sizes, in a plain loop.

`diffrax.diffeqsolve` can also save on the way, interpolate, meet events and be differentiated; for that it traces a step
three times over and compiles three times as much (1,100 equations for 300), which is most of what a small run costs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree


class Stretch(NamedTuple):
    """Where a solution is: it has reached `time` with the value `reached`, and tries to come to `ahead` next."""

    time: Array
    ahead: Any
    reached: PyTree
    solver: Any
    controller: Any
    steps: Array


def integrated(
    velocity: Callable[[Any, PyTree], PyTree],
    begun: PyTree,
    start: Array,
    stop: Array,
    first: Array,
    *,
    tolerance: float,
    max_steps: int,
) -> tuple[PyTree, Array]:
    """What dy/dt = velocity(t, y) takes y = `begun` at `start` to at `stop`, and in how many steps, rejected ones included.

    By Tsit5 (Tsitouras 2011), whose steps, of which the first tries the length `first`, keep the root mean square of the
    entries' estimated errors, each over the entry's size (and a thousandth), below `tolerance`. All is nan where `max_steps` do not
    get there, and where no step is short enough.

    >>> import jax.numpy as jnp
    >>> zero, one = jnp.zeros(()), jnp.ones(())
    >>> decayed, _ = integrated(lambda t, y: -y, one, zero, one, one / 9, tolerance=1e-6, max_steps=99)
    >>> f"{decayed:.5f}"
    '0.36788'
    """
    import diffrax  # not for all: it takes a fifth of the time of all imports

    term = diffrax.ODETerm(lambda t, y, args: velocity(t, y))
    solver = diffrax.Tsit5(scan_kind="lax")  # stages in a plain loop too
    order: Any = solver.error_order(term)
    controller = diffrax.PIDController(rtol=tolerance, atol=tolerance * 1e-3, pcoeff=0.3, icoeff=0.3)
    ahead, memory = controller.init(term, start, stop, begun, first, None, solver.func, order)
    nearly = stop - 100 * jnp.finfo(stop.dtype).eps * jnp.abs(stop)  # so that no sliver is left for a last step

    def goes_on(now: Stretch) -> Array:
        return (now.time < stop) & (now.steps < max_steps)

    def step(now: Stretch) -> Stretch:
        new, error, _, stages, _ = solver.step(
            term, now.time, now.ahead, now.reached, None, now.solver, made_jump=False
        )
        # A step so long that something is nan is too long.
        error = jax.tree.map(lambda e: jnp.where(jnp.isnan(e), jnp.inf, e), error)
        good, time, ahead, _, memory, _ = controller.adapt_step_size(
            now.time, now.ahead, now.reached, new, None, error, order, now.controller
        )
        time = jnp.minimum(time, stop)
        ahead = jnp.where(ahead > nearly, jnp.where(good, stop, (time + stop) / 2), ahead)
        reached, stages = jax.tree.map(lambda a, b: jnp.where(good, a, b), (new, stages), (now.reached, now.solver))
        stuck = ~good & (ahead <= time)  # no step is short enough: the solution ends here
        return Stretch(time, ahead, reached, stages, memory, jnp.where(stuck, max_steps, now.steps + 1))

    stages = solver.init(term, start, ahead, begun, None)
    end = jax.lax.while_loop(goes_on, step, Stretch(start, ahead, begun, stages, memory, jnp.asarray(0)))
    return jax.tree.map(lambda y: jnp.where(end.time < stop, jnp.nan, y), end.reached), end.steps
