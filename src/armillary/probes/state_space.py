"""State-space layers: their end-to-end weights, what gradient flow conserves, and the statistics it sees."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from armillary.errors import ProbeError
from armillary.models.state_space import StateSpaceChain, StateSpaceLayer
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity


def _layers(now: Snapshot, probe: Probe) -> tuple[StateSpaceLayer, ...]:
    if isinstance(now.network, StateSpaceChain):
        return now.network.layers
    if not isinstance(now.network, StateSpaceLayer):
        raise ProbeError(
            f"{type(probe).__name__} needs a state-space layer or a stack of them, not a {type(now.network).__name__}"
        )
    return (now.network,)


class StateSpaceWeights(Probe):
    """The end-to-end weights of a state-space network with one input and one output.

    Returns `total_weight`, the sum of C_n B_n over a layer's states (of a stack: the product of the layers' sums). Of
    one layer also `pole_weight`, float[pole], the sum over each pole's copies, and `state_imbalance`, float[state],
    C_n² - B_n², which gradient flow conserves while the poles are fixed. Raises `ProbeError` for other networks and
    for several channels (there see `ModeStrength`). Source: derived here.
    """

    def __call__(self, now: Snapshot) -> Observation:
        layers = _layers(now, self)
        total = now.network.matrix
        if total.shape != (1, 1):
            raise ProbeError(
                f"StateSpaceWeights needs one input and one output, not {total.shape[1]} and {total.shape[0]}"
            )
        seen = {"total_weight": Quantity(total[0, 0], long_name="end-to-end weight")}
        if isinstance(now.network, StateSpaceLayer):
            rows, columns = layers[0].weights
            each = (rows[:, 0] * columns[0]).reshape(layers[0].poles.values.size, -1).sum(axis=1)
            seen["pole_weight"] = Quantity(each, "pole", long_name="end-to-end weight of a pole")
            imbalance = columns[0] ** 2 - rows[:, 0] ** 2
            seen["state_imbalance"] = Quantity(imbalance, "state", long_name="imbalance of read-out and read-in")
        return seen


class StateSpaceStatistics(Probe):
    """What the data and the current poles say to a linear state-space layer; its gradient depends on nothing else.

    With x_r the response of each pole to each input alone (one response a stack of layers with one pole each), and
    means over training sequences and times: `target_covariance`, float[output, response], sigma = mean y x_r;
    `response_covariance`, float[response, other_response], H = mean x_r x_s; `filtered_power`, eta = the mean of H's
    diagonal. Also `poles`, float[pole], those of all layers in order. Raises `ProbeError` without data, for other
    networks, and for stacks with several poles in a layer. Cost: one pass over the data for each pole and input.
    Source: Smekal et al. (2024) for one state; the others derived here.
    """

    def __call__(self, now: Snapshot) -> Observation:
        layers, train = _layers(now, self), data_of(now, self).train
        most = max(layer.poles.values.size for layer in layers)
        if isinstance(now.network, StateSpaceChain) and most > 1:
            raise ProbeError(f"StateSpaceStatistics needs one pole in each layer of a stack; one of them has {most}")
        responses = jax.vmap(now.network.responses)(train.inputs)
        flat = responses.reshape(*responses.shape[:2], -1)
        mean = lambda left, right: jnp.einsum("sti,stj->ij", left, right) / (flat.shape[0] * flat.shape[1])
        own: Array = mean(flat, flat)
        return {
            "target_covariance": Quantity(
                mean(train.targets, flat), ("output", "response"), long_name="covariance of target and response"
            ),
            "response_covariance": Quantity(own, ("response", "other_response"), long_name="covariance of responses"),
            "filtered_power": Quantity(jnp.mean(jnp.diagonal(own)), long_name="power of the filtered input"),
            "poles": Quantity(jnp.concatenate([layer.poles.values for layer in layers]), "pole", long_name="pole"),
        }


class StateSpaceFactors(Probe):
    """B and C of a state-space layer: `read_in`, float[state, input], and `read_out`, float[output, state].

    Tied copies show the entries that they share. Raises `ProbeError` for other networks, stacks among them.
    """

    def __call__(self, now: Snapshot) -> Observation:
        if not isinstance(now.network, StateSpaceLayer):
            raise ProbeError(f"StateSpaceFactors needs a state-space layer, not a {type(now.network).__name__}")
        rows, columns = now.network.weights
        return {
            "read_in": Quantity(rows, ("state", "input"), long_name="weights into the states"),
            "read_out": Quantity(columns, ("output", "state"), long_name="weights out of the states"),
        }
