"""Probes in a training loop of one's own, as often as they may cost."""

import time
from collections.abc import Sequence
from typing import Any

import jax
import xarray as xr
from jaxtyping import PyTree

from armillary.errors import InvalidValue, ProbeError, require_between
from armillary.models.model import parameters
from armillary.probes.probing import Probe, difference, look_at, snapshot_of
from armillary.trajectory import TIME, Trajectory


class Monitor:
    """Looks at a network in your training loop, called at each step; it decides itself when looking is affordable.

    - `probes`, `data`, `loss`: as for `armillary.probe`.
    - `budget`: the share of the run time that looking may take, compilation included. The first call always looks, which
      tells what it costs; the next look is taken when all of them, with it, stay within the budget.

    Searches for eigenvalues begin where the last one ended. The initial network is that of the first call, and probes of
    the last update (`UpdateCosine`) compare with the network of the call before, so call it at every step. Raises `InvalidValue` for a budget outside (0, 1] and for steps
    that do not increase, and what `armillary.probe` raises.

    >>> import armillary as arm, equinox as eqx, jax, jax.numpy as jnp, optax
    >>> network = eqx.nn.Linear(3, 1, key=jax.random.key(0))
    >>> x, y, loss, sgd = jnp.ones((5, 3)), jnp.zeros((5, 1)), arm.rules.Loss(), optax.sgd(0.1)
    >>> monitor, state = Monitor([arm.probes.Sharpness()], (x, y), loss=loss, budget=1.0), sgd.init(network)
    >>> for step in range(3):
    ...     _ = monitor(step, network)
    ...     gradient = eqx.filter_grad(loss)(network, arm.tasks.Samples(x, y))
    ...     updates, state = sgd.update(gradient, state)
    ...     network = eqx.apply_updates(network, updates)
    >>> print(monitor.trajectory.sharpness.dims)
    ('time',)
    """

    def __init__(self, probes: Sequence[Probe], data: Any = None, *, loss: Any = None, budget: float = 0.05):
        require_between("budget", budget, 0.0, 1.0, open_low=True, note="a share of the run time")
        if not probes:
            raise InvalidValue("there are no probes; give at least one")
        self._probes, self._data, self._loss, self._budget = list(probes), data, loss, budget
        self._seen: list[tuple[float, float, xr.Dataset]] = []
        self._memory: Any = None
        self._initial: Any = None
        self._before: Any = None
        self._started = time.perf_counter()
        self._last_step = float("-inf")

    def __call__(self, step: float, network: PyTree) -> bool:
        """Look at the network after `step` steps if it is time to; returns whether it was looked at."""
        if not step > self._last_step:
            raise InvalidValue(f"step is {step}, but the last call was at {self._last_step}; steps must increase")
        self._last_step = step
        if self._initial is None:
            self._initial = self._kept(network)
        due = self._due()
        if due:
            self._ready(network)  # what is still being computed is the user's own time
            begun = time.perf_counter()
            found, self._memory = self._look(network, self._memory)
            self._seen.append((step, time.perf_counter() - begun, found))
        if self._wants_updates:
            self._before = self._kept(network)
        return due

    @property
    def _wants_updates(self) -> bool:
        return any(probe.needs_update for probe in self._probes)

    def _kept(self, network: PyTree) -> Any:
        """What is remembered of a network, for comparisons later."""
        return network

    def _due(self) -> bool:
        if not self._seen:
            return True
        spent = sum(seconds for _, seconds, _ in self._seen)
        later = [seconds for _, seconds, _ in self._seen[1:]]
        # The second look may be compiled too, having a warm start; from then on the last one tells the cost.
        expected = later[-1] if later else self._seen[0][1]
        return spent + expected <= self._budget * (time.perf_counter() - self._started)

    def _look(self, network: PyTree, memory: Any) -> tuple[xr.Dataset, Any]:
        # Where there was no update yet it is 0.
        before = network if self._before is None else self._before
        update = difference(network, before) if self._wants_updates else None
        now = snapshot_of(network, data=self._data, loss=self._loss, initial=self._initial, update=update)
        return look_at(now, self._probes, memory)

    def _ready(self, network: PyTree) -> None:
        jax.block_until_ready(parameters(network))

    @property
    def trajectory(self) -> Trajectory:
        """What was seen so far, along `time` (in steps), with `look_seconds`, what each look took.

        Raises `ProbeError` before the first look.
        """
        if not self._seen:
            raise ProbeError("nothing has been looked at yet; call the monitor with a step and a network first")
        parts = [
            found.assign(look_seconds=((), seconds, {"units": "s", "long_name": "time to look"}))
            for _, seconds, found in self._seen
        ]
        whole = xr.concat(parts, "time", join="outer", combine_attrs="override")
        return whole.assign_coords(time=("time", [float(step) for step, _, _ in self._seen], TIME[True]))
