"""How large each layer's Hessian is in random networks: a product over the other layers, of widths, variances and
dropout.

Layers are u_k = W_k z_{k-1}, z_k = m_k phi(u_k) with masks m_k of keep probability p and without biases, entries of
W_k of mean 0 and variance c_k. The layer's approximate Hessian block (exact for piecewise linear phi) is Bᵀ H B ⊗ z
zᵀ, see `armillary.curvature.layers`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from armillary.errors import InvalidValue, require_between
from armillary.experiment import Experiment
from armillary.models.activations import GAINS, Activation
from armillary.models.mlp import MLP
from armillary.models.variance_law import VarianceLawMLP
from armillary.probes.layer_curvature import LayerCurvature
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.theory.gaussian_means import mean, value_and_slope
from armillary.trajectory import Trajectory


def layer_traces(
    sizes: Sequence[int], variances: ArrayLike, squared_input: float, *, keep: ArrayLike = 1.0,
    forward: ArrayLike = 0.5, backward: ArrayLike = 0.5,
) -> Float[np.ndarray, " layer"]:  # fmt: skip
    """The mean over networks of each layer's trace |z|² tr(Bᵀ B), for the squared error (H = 1).

    |x|² prod_{j<k} (c_j n_j p f) n_L prod_{j>k} (c_j n_{j-1} p b), with `sizes` n_0 to n_L, `squared_input` |x|²,
    and the hidden layers' shares f = E phi(u)²/Var u (`forward`) and b = E phi'(u)² (`backward`), numbers or one for
    each hidden layer. Exact at any widths for ReLU (f = b = 1/2), the absolute value and the identity (1), if W's
    entries are symmetric about 0; for smooth phi in the limit of wide layers, with `activation_shares`. Derived
    here. Raises `InvalidValue` for variances that are not one a layer, and for numbers out of range.

    >>> layer_traces([64, 256, 64, 10], [2 / 64, 2 / 256, 2 / 64], 64.0).round(6).tolist()  # fan-in: as the width below
    [640.0, 2560.0, 640.0]
    """
    n, c = np.asarray(sizes, float), np.asarray(variances, float)
    layers = len(n) - 1
    if c.shape != (layers,):
        raise InvalidValue(f"there are {c.size} variances for {layers} layers; give one for each")
    require_between("a variance", c, 0.0)
    require_between("keep", keep, 0.0, 1.0)
    require_between("the squared input", squared_input, 0.0)
    p, f, b = (np.broadcast_to(np.asarray(v, float), (layers - 1,)) for v in (keep, forward, backward))
    up = np.concatenate([[1.0], np.cumprod(c[:-1] * n[1:-1] * p * f)])
    down = np.concatenate([np.cumprod((c[1:] * n[1:-1] * p * b)[::-1])[::-1], [1.0]])
    return squared_input * up * n[-1] * down


def equal_width_level(scale: ArrayLike, depth: ArrayLike) -> Any:
    """What a factor `scale` on all weights multiplies every layer's trace by: scale^(2 (depth - 1)), `depth` in
    weight layers.

    Its error shows in the level and not in the profile over layers. Exact for positively homogeneous networks
    without biases.

    >>> print(round(equal_width_level(0.8, 10), 4))
    0.018
    """
    require_between("scale", scale, 0.0)
    require_between("depth", depth, 1)
    return (np.asarray(scale, float) ** (2 * (np.asarray(depth, float) - 1)))[()]


def activation_shares(activation: str | Activation, variance: ArrayLike) -> tuple[Any, Any]:
    """E phi(u)²/variance and E phi'(u)² for u ~ N(0, variance): what a hidden layer passes on forward and backward.

    Both are near phi'(0)² at small variance, which gives Glorot's law; both 1/2 for ReLU, which gives He's.

    >>> [round(float(share), 4) for share in activation_shares("tanh", 0.01)]
    [0.9805, 0.9807]
    """
    require_between("the variance", variance, 0.0, open_low=True)
    value, slope = value_and_slope(activation)
    forward = mean(lambda u, z: value(u) ** 2, variance) / np.asarray(variance, float)
    return forward[()], mean(lambda u, z: slope(u) ** 2, variance)


@theory
class LayerCurvatureAtStart(Theory):
    """Mean traces of the layers' Hessians at the start, by the product formula: exact for random ReLU networks of
    any widths.

    Predicts `layer_curvature_trace`, float[time, layer], the mean over networks and masks; single networks scatter
    about it, the more the deeper and narrower they are (the law is nearly log-normal).
    """

    name = "layer curvature of random networks"
    source = "Skorski, Temperoni & Theobald (2020), arXiv:2004.09506; unequal widths and dropout are derived here"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        model, loss = experiment.model, getattr(experiment.rule, "loss", None)
        yield kind("a network of dense layers (MLP, VarianceLawMLP)", model, MLP, VarianceLawMLP)
        looked = any(isinstance(probe, LayerCurvature) for probe in experiment.probes)
        yield Check(looked, "the probe LayerCurvature", "it is among the probes" if looked else "it is not there")
        if not looked or not isinstance(model, MLP | VarianceLawMLP):
            return
        yield Check(
            getattr(loss, "kind", None) == "squared_error",
            "the squared error",
            f"the loss is {getattr(loss, 'kind', loss)}",
        )
        yield limit("a look at the start alone", "the last time looked at", float(experiment.times[-1]), 0.0)
        known = hasattr(experiment.task, "clean") and not getattr(experiment.task, "reshuffle", False)
        yield Check(
            known,
            "training inputs that are the same for all seeds",
            f"those of {type(experiment.task).__name__} are {'known' if known else 'drawn'}",
        )
        exact = model.activation in GAINS
        yield Check(
            exact, f"a positively homogeneous activation ({', '.join(sorted(GAINS))})", f"it is {model.activation}"
        )
        if isinstance(model, MLP):
            yield Check(
                model.parametrisation == "standard", "the standard parametrisation", f"it is {model.parametrisation}"
            )
            yield Check(
                not model.orthogonal, "independent weights", "they are orthogonal" if model.orthogonal else "they are"
            )
            yield limit("no biases at the start", "their variance", float(model.bias_variance or 0.0), 0.0)

    def predict(self, experiment: Experiment) -> Trajectory:
        task, model = experiment.task, experiment.model
        sizes = model.sizes(task.inputs, task.outputs)
        usual = GAINS[str(model.activation)]
        share = 1.0 / usual
        if isinstance(model, MLP):
            gains = [usual if model.gain is None else float(model.gain)] * (len(sizes) - 1)
            gains[-1] = 1.0 if model.gain is None else gains[-1]
            variances = [g * float(model.scale) ** 2 / n for g, n in zip(gains, sizes, strict=False)]
            keep = 1.0
        else:
            variances = [float(c) for c in model.variances(task.inputs, task.outputs)]
            keep = 1.0 if model.keep is None else float(model.keep)
        inputs = np.asarray(task.clean.train.inputs, float)
        squared = float(np.mean(np.sum(inputs.reshape(len(inputs), -1) ** 2, axis=1)))
        said = layer_traces(sizes, variances, squared, keep=keep, forward=share, backward=share)
        labels = {"units": "1", "long_name": "mean trace of samples' layer Hessians"}
        values = np.broadcast_to(said, (len(experiment.times), len(said)))
        coords = {"time": experiment.times, "layer": np.arange(1, len(said) + 1)}
        return xr.Dataset({"layer_curvature_trace": (("time", "layer"), values, labels)}, coords)
