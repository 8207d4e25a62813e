"""Layers of infinitely many units, as what they do to the covariance of two inputs' signals and to the tangent kernel.

Each maps `Pair(nngp, ntk)`: arrays [..., position axes], one entry for each pair of inputs. There are no position axes
for vectors; for signals on a grid there is one a spatial axis where only equal positions are needed, and two a spatial axis
(position of one input, position of the other) where all pairs of positions are. Variances of the single inputs, which
activations need, are computed once for each input (`Norms`) and read back for each pair.

Sources: Lee et al. (2018), Jacot et al. (2018); convolutions: Novak et al. (2019), Arora et al. (2019).
"""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from armillary.errors import InvalidValue, require_between, unknown
from armillary.models.activations import Activation as Function
from armillary.theory.kernels.duals import dual, require_slope
from armillary.theory.kernels.norms import Norms, Pair

Padding = Literal["circular", "same", "valid"]
Number = Any
"""A float; traced where a model whose numbers are swept draws its limit."""


class Layer(eqx.Module):
    """A layer: `layer(pair, norms) -> pair`. `mixes` where it needs covariances of different positions, or makes later
    layers need them."""

    def __call__(self, pair: Pair, norms: Norms) -> Pair:
        raise NotImplementedError

    @property
    def mixes(self) -> bool:
        return False

    @property
    def random(self) -> bool:
        """Whether what comes out has mean zero and is independent of all else: a layer of fresh weights does that."""
        return False


class Dense(Layer):
    """A dense layer of weight variance s² and bias variance b² (weights N(0, s²/fan_in)), acting on the last, channel axis.

    `weight_rate` and `bias_rate` are what the trained weights and biases add to the tangent kernel: weight_rate times the
    mean product of the inputs, and bias_rate. None takes s² and b², as where all weights are N(0, 1) times a factor and
    have one learning rate (the NTK parametrisation); 0 says that they are not trained.
    """

    weight_variance: Number = 1.0
    bias_variance: Number = 0.0
    weight_rate: Number | None = None
    bias_rate: Number | None = None

    def __check_init__(self):
        for name in ("weight_variance", "bias_variance", "weight_rate", "bias_rate"):
            value = getattr(self, name)
            require_between(name, 0.0 if value is None else value, 0.0)

    def __call__(self, pair: Pair, norms: Norms) -> Pair:
        return self._mixed(pair, lambda values: values)

    def _mixed(self, pair: Pair, average: Callable[[Array], Array]) -> Pair:
        weight = self.weight_variance if self.weight_rate is None else self.weight_rate
        bias = self.bias_variance if self.bias_rate is None else self.bias_rate
        inputs, before = average(pair.nngp), average(pair.ntk)
        ntk = weight * inputs + bias + self.weight_variance * before
        return Pair(self.weight_variance * inputs + self.bias_variance, ntk)

    @property
    def random(self) -> bool:
        return True


class Convolution(Dense):
    """A convolution with filters of `size` taps along each spatial axis, every `stride`-th position kept.

    Weights are N(0, s²/(taps channels)). "circular" wraps around, "same" pads with zeros, "valid" keeps positions at which
    the filter fits. Raises `InvalidValue` for sizes below 1, and even ones where positions are to stay as many.
    """

    size: int = eqx.field(static=True, default=3)
    stride: int = eqx.field(static=True, default=1)
    padding: Padding = eqx.field(static=True, default="circular")

    def __check_init__(self):
        require_between("size", self.size, 1)
        require_between("stride", self.stride, 1)
        if self.padding not in ("circular", "same", "valid"):
            raise unknown("padding", self.padding, ("circular", "same", "valid"))
        if self.padding != "valid" and self.size % 2 == 0:
            raise InvalidValue(f"size is {self.size}, but must be odd for padding {self.padding!r}; or use 'valid'")

    def __call__(self, pair: Pair, norms: Norms) -> Pair:
        if not norms.axes:
            raise InvalidValue("a Convolution needs inputs [sample, position..., channel]; these are vectors")

        def average(values: Array) -> Array:
            values = self._padded(values, norms)
            for axis in range(norms.axes):
                values = self._along(values, norms, axis)
            return values

        return self._mixed(pair, average)

    def _padded(self, values: Array, norms: Norms) -> Array:
        """All axes at once, and not each before its mean: compilers would compute the mean before anew for every tap."""
        reach = 0 if self.padding == "valid" else self.size // 2
        spatial = (2 if norms.full else 1) * norms.axes
        if not reach:
            return values
        widths = [(0, 0)] * (values.ndim - spatial) + [(reach, reach)] * spatial
        return jnp.pad(values, widths, mode="wrap" if self.padding == "circular" else "constant")

    def _along(self, values: Array, norms: Norms, axis: int) -> Array:
        """The mean over taps along one padded spatial axis: both positions of a pair move together."""
        each = 2 if norms.full else 1
        first = values.ndim - each * (norms.axes - axis)
        own = tuple(range(first, first + each))
        length = values.shape[first]
        if length < self.size:
            raise InvalidValue(f"a filter of {self.size} taps does not fit {length} positions")
        kept = (length - self.size) // self.stride + 1

        def shifted(tap: int) -> Array:
            index = [slice(None)] * values.ndim
            for a in own:
                index[a] = slice(tap, tap + (kept - 1) * self.stride + 1, self.stride)
            return values[tuple(index)]

        total = shifted(0)
        for tap in range(1, self.size):
            total = total + shifted(tap)
        return total / self.size


class Activation(Layer):
    """An activation, unit by unit: its name, an `armillary.models.Rectified` or `Polynomial`, or any function that JAX can
    differentiate (a Hermite series of `terms` terms then; `series_error` says how far it is off)."""

    function: str | Function = eqx.field(static=True, default="relu")
    terms: int = eqx.field(static=True, default=64)

    def __check_init__(self):
        dual(self.function, self.terms)

    def __call__(self, pair: Pair, norms: Norms) -> Pair:
        found = dual(self.function, self.terms)
        left, right = norms.of(pair.nngp)
        value, slope = found.pair(left, right, pair.nngp)
        if norms.alone:
            exact_value, exact_slope = found.same(norms.record[-1])
            value, slope = norms.at_same(value, exact_value), norms.at_same(slope, exact_slope)
        return Pair(value, slope * pair.ntk)

    def require_tangent(self) -> None:
        """Raise where there is no tangent kernel behind it."""
        require_slope(self.function, dual(self.function, self.terms))


class LayerNorm(Layer):
    """Signals divided by their root mean square over channels (whose mean vanishes at infinite width); `epsilon` is added
    to the mean square."""

    epsilon: float = 0.0

    def __call__(self, pair: Pair, norms: Norms) -> Pair:
        left, right = norms.of(pair.nngp)
        size = jnp.sqrt(left + self.epsilon) * jnp.sqrt(right + self.epsilon)
        value = pair.nngp / size
        if norms.alone:
            own = norms.record[-1]
            value = norms.at_same(value, own / (own + self.epsilon))
        return Pair(value, pair.ntk / size)


class AveragePool(Layer):
    """Means over windows of `size` positions along each spatial axis, `stride` apart (None: `size`)."""

    size: int = eqx.field(static=True, default=2)
    stride: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        require_between("size", self.size, 1)
        require_between("stride", self.stride or 1, 1)

    @property
    def mixes(self) -> bool:
        return self.size > 1

    def __call__(self, pair: Pair, norms: Norms) -> Pair:
        if not norms.axes:
            raise InvalidValue("an AveragePool needs inputs [sample, position..., channel]; these are vectors")
        return Pair(*(self._pooled(values, norms) for values in pair))

    def _pooled(self, values: Array, norms: Norms) -> Array:
        step = self.stride or self.size
        for axis in range(values.ndim - (2 if norms.full else 1) * norms.axes, values.ndim):
            kept = (values.shape[axis] - self.size) // step + 1
            if kept < 1:
                raise InvalidValue(f"a window of {self.size} positions does not fit {values.shape[axis]}")
            take = [slice(None)] * values.ndim
            parts = []
            for tap in range(self.size):
                take[axis] = slice(tap, tap + (kept - 1) * step + 1, step)
                parts.append(values[tuple(take)])
            values = sum(parts[1:], parts[0]) / self.size
        return values


class GlobalAveragePool(Layer):
    """The mean over all positions; vectors come out."""

    @property
    def mixes(self) -> bool:
        return True

    def __call__(self, pair: Pair, norms: Norms) -> Pair:
        places = tuple(range(pair.nngp.ndim - 2 * norms.axes, pair.nngp.ndim)) if norms.full else ()
        pooled = Pair(*(jnp.mean(values, axis=places) for values in pair))
        norms.axes, norms.full = 0, False
        return pooled


class Flatten(Layer):
    """All positions and channels as one vector."""

    def __call__(self, pair: Pair, norms: Norms) -> Pair:
        places = tuple(range(-norms.axes, 0))
        flat = Pair(*(jnp.mean(norms.diagonal(values), axis=places) for values in pair))
        norms.axes, norms.full = 0, False
        return flat


class Serial(Layer):
    """Layers one after another."""

    layers: tuple[Any, ...] = ()

    def __check_init__(self):
        for layer in self.layers:
            if not isinstance(layer, Layer):
                raise InvalidValue(
                    f"a {type(layer).__name__} is no layer with a kernel; give layers of armillary.theory.kernels, or an "
                    "activation as Activation(function)"
                )

    @property
    def mixes(self) -> bool:
        return any(layer.mixes for layer in self.layers)

    @property
    def random(self) -> bool:
        """Fresh weights, and nothing but linear layers without a mean after them."""
        for layer in reversed(self.layers):
            if layer.random:
                return True
            if isinstance(layer, Activation | LayerNorm):
                return False
        return False

    def __call__(self, pair: Pair, norms: Norms) -> Pair:
        for layer in self.layers:
            pair = layer(pair, norms)
        return pair


class Sum(Layer):
    """The sum of parallel branches of one input; a branch without layers is the input itself (a residual connection).

    All branches but one must end in fresh weights, or their covariances with each other would not vanish. Raises
    `InvalidValue` otherwise.

    >>> _ = Sum((Serial(), Serial((Dense(), Activation("relu"), Dense(2.0)))))
    """

    branches: tuple[Layer, ...] = ()

    def __check_init__(self):
        require_between("the number of branches", len(self.branches), 1)
        dependent = [i for i, branch in enumerate(self.branches) if not branch.random]
        if len(dependent) > 1:
            raise InvalidValue(
                f"branches {dependent} of a Sum do not end in a Dense or Convolution: their outputs are correlated, and "
                "the kernel of the sum is not the sum of kernels; end all branches but one with fresh weights"
            )

    @property
    def mixes(self) -> bool:
        return any(branch.mixes for branch in self.branches)

    def __call__(self, pair: Pair, norms: Norms) -> Pair:
        shape, total = (norms.axes, norms.full), None
        for branch in self.branches:
            norms.axes, norms.full = shape
            out = branch(pair, norms)
            if total is not None and out.nngp.shape != total.nngp.shape:
                raise InvalidValue("branches of a Sum give signals on different positions; make their strides agree")
            total = out if total is None else Pair(total.nngp + out.nngp, total.ntk + out.ntk)
        assert total is not None
        return total


def layers_of(layer: Layer) -> list[Layer]:
    """All single layers of a network, branches included."""
    inner: Any = getattr(layer, "layers", None) or getattr(layer, "branches", None)
    if inner is None:
        return [] if isinstance(layer, Serial) else [layer]
    return [found for part in inner for found in layers_of(part)]
