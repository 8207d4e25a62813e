"""Infinitely wide networks of any depth on the unit sphere, without biases, with the kernels' sizes kept as logarithms.

With phi of mean square 1 and its dual g, g(1) = 1, two inputs of inner product xi have the covariance S_l = g(S_(l-1)), S_0 =
xi, after l hidden layers, and the tangent kernel K_l = S_l + K_(l-1) g'(S_(l-1)). S falls like c^depth or xi^(2^depth). Here
K_l = S_l R_l with R_l = 1 + R_(l-1) e(S_(l-1)), where e(S) = S g'(S)/g(S) stays between g's lowest order and its highest; once S is
so small that only the lowest term counts, log |S| and R of all layers that are left follow at once (derived here).
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import eval_context
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from armillary.compiled import FASTEST, Compiled
from armillary.errors import InvalidValue, is_traced, require_between
from armillary.members import as_arrays
from armillary.models.activations import Activation, Hermite
from armillary.models.radial_kernel import gaps
from armillary.models.tangent_kernel import Kernel
from armillary.theory.kernels.duals import Dual, dual, require_slope

NEGLIGIBLE = 1e-20
"""|S| from which on the lowest term of g is all there is of it, so that the layers that are left are one formula."""

LARGEST = 700.0
"""Logarithm up to which a tangent kernel's diagonal, about g'(1)^depth, is a number in float64."""

TERMS = 8
"""Coefficients that all series have at least: kernels of different short ones then share a program."""


GRID = np.linspace(0.0, 1.0, 2001)
"""Where a dual is looked at: all who want it at some place want a program of this shape, which is compiled once."""


class Series(eqx.Module):
    """g as a polynomial, weights[n] xi^n: the dual of an activation with few Hermite coefficients, divided by its g(1)."""

    weights: Float[Array, " order"] | Float[np.ndarray, " order"] | Any

    @staticmethod
    def of(phi: Hermite) -> "Series":
        """The series of squared coefficients. Raises `InvalidValue` where all are 0.

        >>> print(Series.of(Hermite((0.0, 1.0, 0.0, 1.0))).weights)
        [0.  0.5 0.  0.5 0.  0.  0.  0. ]
        """
        squares = np.asarray(phi.coefficients) ** 2
        if not squares.any():
            raise InvalidValue("all Hermite coefficients are 0, but one must not be: the activation would be 0")
        padded = np.pad(squares / squares.sum(), (0, max(TERMS - len(squares), 0)))
        return Series(padded)

    def values(self, s: Array) -> tuple[Array, Array]:
        """g and g'."""
        weights = jnp.asarray(self.weights, s.dtype)
        value, slope = jnp.zeros_like(s), jnp.zeros_like(s)
        for weight in weights[::-1]:
            value, slope = value * s + weight, slope * s + value
        return value, slope

    def slope_at_one(self, kind: Any) -> Array:
        """g'(1), of a type of number."""
        weights = jnp.asarray(self.weights, kind)
        return weights @ jnp.arange(len(weights), dtype=kind)

    def goes_on(self, s: Array) -> Array:
        """Where g is not yet its lowest term alone."""
        return (jnp.abs(s) > NEGLIGIBLE) | (jnp.asarray(self.weights)[0] > 0)

    def rest(self, size: Array, sign: Array, ratio: Array, layers: Array) -> tuple[Array, Array, Array]:
        """log |S|, the sign of S, and R after so many more layers of the lowest term a xi^m."""
        weights = jnp.asarray(self.weights, size.dtype)
        order = jnp.argmax(weights > 0).astype(size.dtype)
        log = jnp.log(weights[jnp.argmax(weights > 0)])
        power = order**layers
        summed = jnp.where(
            order == 1, layers, (power - 1) / jnp.where(order == 1, 1.0, order - 1)
        )  # 1 + m + ... + m^(k - 1)
        # A finite number stands for the logarithm of 0, so that it can be multiplied.
        end = jnp.maximum(power * size + summed * log, jnp.finfo(size.dtype).min / 4)
        turned = jnp.where((order % 2 == 1) | (layers == 0), sign, 1.0)
        return end, turned, power * ratio + summed


class ClosedForm(eqx.Module):
    """g of any activation with a dual, divided by g(1); S below about 1e-300 is 0 here."""

    activation: str | Activation = eqx.field(static=True)

    def values(self, s: Array) -> tuple[Array, Array]:
        """g and g'."""
        return normalised(dual(self.activation), s)

    def slope_at_one(self, kind: Any) -> Array:
        """g'(1), of a type of number."""
        return self.values(jnp.ones((), kind))[1]

    def goes_on(self, s: Array) -> Array:
        """Everywhere."""
        return jnp.ones_like(s, bool)

    def rest(self, size: Array, sign: Array, ratio: Array, layers: Array) -> tuple[Array, Array, Array]:
        """There is none."""
        return size, sign, ratio


def normalised(found: Dual, xi: Array) -> tuple[Array, Array]:
    """g(xi) and g'(xi) of the activation divided by its root mean square under N(0, 1)."""
    one = jnp.ones((), xi.dtype)
    whole = found.same(one)[0]
    value, slope = found.pair(one, one, xi)
    return value / whole, slope / whole


def dual_at(phi: str | Activation, xi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """g and g' of an activation at numbers, in float64 whatever the setting, and also while something else is traced.

    >>> print(*dual_at("relu", np.array([0.0, 1.0])))  # 1/pi and 1, 1/2 and 1
    [0.31830989 1.        ] [0.5 1. ]
    """
    with eval_context(), jax.enable_x64(True):
        value, slope = _dual_at(phi, jnp.asarray(xi, float))
        return np.asarray(value), np.asarray(slope)


_dual_at = Compiled(lambda phi, xi: normalised(dual(phi), xi), FASTEST)


@functools.lru_cache(64)
def _steepness(phi: str | Activation) -> float:
    """g'(1)."""
    return float(dual_at(phi, GRID)[1][-1])


class DeepKernel(Kernel):
    """The kernel of infinitely wide networks with `depth` hidden layers, no biases, of the directions of two inputs.

    - `phi`: a `Hermite` list, or an activation with a dual (`armillary.theory.kernels.dual`); it is divided by its root mean
      square, so that every layer keeps the inputs' length.
    - `depth`: hidden layers; whole, and can be swept in one program.
    - `tangent`: 1 for the tangent kernel, 0 for the covariance at the start (NNGP).
    - `scaled`: each row is divided by its largest entry, so that nothing underflows at any depth. Signs of predictions
      stay; their sizes do not, but for those on the training set.

    It is the limit of `MLP(width, depth + 1, phi, "ntk", bias=False)` (with inputs of length sqrt(inputs)). Inputs nearer than
    rounding are the same and have K = 1 + g'(1) + ... + g'(1)^depth exactly; that must be below e^700. Raises `InvalidValue` for a
    depth below 0 or so great that it is not, and for an activation that jumps. Cost: `depth` steps for each pair.

    >>> kernel = DeepKernel(Hermite((0.0, 1.0, 0.0, 1.0)), depth=1)
    >>> [round(float(k), 3) for k in kernel(jnp.eye(2), jnp.array([[0.6, 0.8]]))[:, 0]]  # xi + 2 xi³ at 0.6 and 0.8
    [1.032, 1.824]
    """

    phi: Any
    depth: Any
    tangent: Any
    scaled: bool = eqx.field(static=True)

    def __init__(
        self,
        phi: Any,
        depth: Any = 1,
        tangent: Any = 1.0,
        scaled: bool = False,
    ):
        if isinstance(phi, Hermite):
            phi = Series.of(phi)
        elif not isinstance(phi, Series | ClosedForm):
            require_slope(phi, dual(phi))
            phi = ClosedForm(phi)
        require_between("tangent", tangent, 0.0, 1.0)
        require_between("the depth", depth, 0)
        self.phi, self.depth, self.tangent, self.scaled = phi, depth, tangent, scaled
        if not is_traced(depth) and not isinstance(depth, np.ndarray):
            most = LARGEST / max(np.log(self._steepness), 1e-9) if np.isfinite(depth) else 0.0
            require_between("the depth", depth, 0, most, note="beyond, the tangent kernel's diagonal is no number")

    @property
    def _steepness(self) -> float:
        """g'(1)."""
        if isinstance(self.phi, Series):
            if is_traced(self.phi.weights) or type(self.phi.weights) is object:
                return 1.0
            return float(np.asarray(self.phi.weights) @ np.arange(len(self.phi.weights)))
        return _steepness(self.phi.activation)

    def logarithm(self, x: Float[Array, "left input"], y: Float[Array, "right input"]) -> tuple[Array, Array]:
        """log |k| and the sign of k, [left, right]."""
        near = gaps(x, y)
        # Where both inputs are the same S is 1 and stays it; rounding would grow as g'(1)^depth.
        same, steps = near == 0, jnp.asarray(self.depth, near.dtype).round()

        def busy(carry: tuple[Array, ...]) -> Array:
            return (carry[0] < steps) & jnp.any(self.phi.goes_on(carry[1]) & ~same)

        def layer(carry: tuple[Array, ...]) -> tuple[Array, ...]:
            done, s, ratio, used = carry
            moves = self.phi.goes_on(s)
            value, slope = self.phi.values(s)
            share = jnp.where(value == 0, 1.0, s * slope / jnp.where(value == 0, 1.0, value))
            after = jnp.where(moves & ~same, value, s)
            return done + 1, after, jnp.where(moves, 1 + ratio * share, ratio), used + moves

        nothing = jnp.zeros_like(near)
        _, s, ratio, used = lax.while_loop(busy, layer, (jnp.zeros_like(steps), 1 - near, nothing + 1, nothing))
        size = jnp.log(jnp.maximum(jnp.abs(s), jnp.finfo(s.dtype).tiny))
        size, sign, ratio = self.phi.rest(size, jnp.where(s < 0, -1.0, 1.0), ratio, steps - used)
        ratio = jnp.where(same, self._own(steps), ratio)
        size = jnp.where(same, 0.0, size)
        whole = jnp.asarray(self.tangent) > 0
        return size + jnp.where(whole, jnp.log(jnp.abs(ratio)), 0.0), sign * jnp.where(whole, jnp.sign(ratio), 1.0)

    def _own(self, layers: Array) -> Array:
        """1 + g'(1) + ... + g'(1)^layers."""
        slope = self.phi.slope_at_one(layers.dtype)
        flat = jnp.abs(slope - 1) < 1e-12
        return jnp.where(flat, layers + 1, (slope ** (layers + 1) - 1) / jnp.where(flat, 1.0, slope - 1))

    def __call__(self, x: Float[Array, "left input"], y: Float[Array, "right input"]) -> Float[Array, "left right"]:
        size, sign = self.logarithm(x, y)
        top = jnp.max(size, axis=1, keepdims=True) if self.scaled else 0.0
        return sign * jnp.exp(size - top)


def logarithms(kernel: Kernel, x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """log |k| and the sign of k of a `DeepKernel` or a `RadialKernel`, [left, right], in float64 whatever the setting.

    >>> size, sign = logarithms(DeepKernel("erf", depth=1000, tangent=0), [[1.0, 0.0]], [[0.6, 0.8]])
    >>> print(size.round(2), sign)
    [[-90.69]] [[1.]]
    """
    with jax.enable_x64(True):
        found = _logarithms(as_arrays(kernel, np.dtype(float)), jnp.asarray(x, float), jnp.asarray(y, float))
        return np.asarray(found[0]), np.asarray(found[1])


_logarithms = Compiled(lambda kernel, x, y: kernel.logarithm(x, y), FASTEST)
