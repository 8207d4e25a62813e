"""Trials of decisions over time, as they are asked of animals: one answer, +1 or -1, at the end of a noisy sequence."""

from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import require_between, unknown
from armillary.tasks.data import Data, Samples, Task

Decision = Literal["alternative", "match", "context"]

CHANNELS: dict[str, int] = {"alternative": 1, "match": 2, "context": 4}
"""Inputs of each kind of decision."""


class DecisionTrials(Task):
    """Inputs [trial, time, channel] and an answer [trial, 1] of +1 or -1.

    - "alternative" (two-alternative forced choice, 2AF): one channel of constant coherence, +`strength` or -`strength`, in
      noise N(0, noise²); the answer is its sign.
    - "match" (delayed match to sample, DMS): two pulses of two steps, one at the start and one before the last two steps, each in one of
      two channels and of size `strength`, in noise; +1 if both came in the same channel.
    - "context" (context-dependent integration, CXT): two channels of independent coherence in noise and two more of which
      one is 1, without noise: the cue that says which of the two counts.

    Answers are balanced on average, not exactly. Test trials (`held_out`) are the same in every draw, so that networks of
    different seeds can be compared on them. `strength` and `noise` can be swept in one program; `sample` draws fresh trials.
    Raises `InvalidValue` for fewer than one trial or 8 steps and a negative noise, `UnknownName` for another decision.

    >>> trials = DecisionTrials("context", trials=5).draw(jax.random.key(0)).train
    >>> trials.inputs.shape, trials.targets.shape
    ((5, 12, 4), (5, 1))
    """

    decision: Decision = eqx.field(static=True, default="context")
    trials: int = eqx.field(static=True, default=48)
    held_out: int = eqx.field(static=True, default=48)
    length: int = eqx.field(static=True, default=12)
    strength: float = 1.0
    noise: float = 0.5

    outputs = 1

    def __check_init__(self):
        if self.decision not in get_args(Decision):
            raise unknown("decision", self.decision, get_args(Decision))
        require_between("the number of trials", self.trials, 1)
        require_between("the number of held-out trials", self.held_out, 0)
        require_between("the length of a trial", self.length, 8)
        require_between("the strength", self.strength, 0.0, open_low=True)
        require_between("noise", self.noise, 0.0)

    @property
    def inputs(self) -> int:
        return CHANNELS[self.decision]

    def draw(self, key: PRNGKeyArray) -> Data:
        test = self._trials(jax.random.key(0), self.held_out) if self.held_out else None
        # Folded in, so that no seed trains on the held-out trials.
        return Data(self._trials(jax.random.fold_in(key, 1), self.trials), test)

    def sample(self, data: Data, key: PRNGKeyArray, count: int) -> Samples:
        return self._trials(key, count)

    def _trials(self, key: PRNGKeyArray, count: int) -> Samples:
        key_signs, key_noise = jax.random.split(key)
        signs = jax.random.rademacher(key_signs, (count, 3), jnp.result_type(float))
        a, b, cue = signs.T
        if self.decision == "match":
            clean = self._pulse(a, 0) + self._pulse(b, self.length - 4)
            answer = a * b
        else:
            channels = [a] if self.decision == "alternative" else [a, b]
            clean = jnp.tile(self.strength * jnp.stack(channels, axis=1)[:, None], (1, self.length, 1))
            answer = a if self.decision == "alternative" else jnp.where(cue > 0, a, b)
        inputs = clean + self.noise * jax.random.normal(key_noise, clean.shape)
        if self.decision == "context":
            shown = jnp.stack([cue > 0, cue < 0], axis=1).astype(inputs.dtype)
            inputs = jnp.concatenate([inputs, jnp.tile(shown[:, None], (1, self.length, 1))], axis=2)
        return Samples(inputs, answer[:, None])

    def _pulse(self, sign: Float[Array, " trial"], begin: int) -> Float[Array, "trial time 2"]:
        """Two steps of input in the channel that the sign chooses."""
        on = jnp.zeros(self.length, sign.dtype).at[begin : begin + 2].set(self.strength)
        which = jnp.stack([sign > 0, sign < 0], axis=1).astype(sign.dtype)
        return on[None, :, None] * which[:, None]
