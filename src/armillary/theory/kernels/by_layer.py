"""The tangent kernel of an infinitely wide network as the sum of what its layers add."""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from armillary.errors import InvalidValue
from armillary.theory.kernels.gram import Kernel
from armillary.theory.kernels.layers import Dense, Serial


def layer_kernels(
    kernel: Kernel, x: Any, y: Any = None, *, memory: float = 1e9
) -> Float[np.ndarray, "layer left right"]:
    """What each trained layer (dense or convolution) adds to the tangent kernel of all pairs of `x` and `y` (None: of `x`), the first one's
    first: the kernel that is left if only that layer learns. Their sum is `kernel.ntk(x, y)`.

    Cost: a tangent kernel for each layer. Raises `InvalidValue` for a network with branches, one without trained layers, and as
    `Kernel`. For one without biases and with unit variances a layer's part is the covariance of its inputs times the slopes' of all
    later activations (Jacot et al. 2018).

    >>> from armillary.theory.kernels import Activation
    >>> kernel = Kernel(Dense(2.0), Activation("relu"), Dense(1.0))
    >>> print(layer_kernels(kernel, np.eye(2)).round(4)[:, 0])
    [[0.5    0.    ]
     [0.5    0.1592]]
    """
    layers = kernel.network.layers
    trained = [i for i, layer in enumerate(layers) if isinstance(layer, Dense)]
    if not trained or any(getattr(layer, "branches", None) or isinstance(layer, Serial) for layer in layers):
        raise InvalidValue(
            "the parts of a kernel are known for layers one after another, one of them trained; this network has "
            f"{'branches' if trained else 'no dense layer or convolution'}"
        )
    parts = []
    for own in trained:
        only = [_still(layer, learns=i == own) if i in trained else layer for i, layer in enumerate(layers)]
        parts.append(Kernel(*only, shape=kernel.shape)(x, y, kind="ntk", memory=memory).ntk)
    return np.stack(parts)


def _still(layer: Dense, *, learns: bool) -> Dense:
    """The layer with its rates written out, or 0 where it does not learn: all of them share a program."""
    weight = layer.weight_variance if layer.weight_rate is None else layer.weight_rate
    bias = layer.bias_variance if layer.bias_rate is None else layer.bias_rate
    rates = (float(weight), float(bias)) if learns else (0.0, 0.0)
    return eqx.tree_at(lambda d: (d.weight_rate, d.bias_rate), layer, rates, is_leaf=lambda v: v is None)
