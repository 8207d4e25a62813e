"""Initial weights of linear chains: random, orthogonal, decoupled, pretrained."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between, unknown

Weights = tuple[Float[Array, "output input"], ...]


def haar_orthogonal(key: PRNGKeyArray, rows: int, columns: int) -> Float[Array, "rows columns"]:
    """A matrix with orthonormal columns (or rows, whichever are fewer), uniform over all such matrices.

    The sign of R's diagonal is moved into Q: without it the QR of a Gaussian is not Haar (Mezzadri 2007).
    """
    tall = jax.random.normal(key, (max(rows, columns), min(rows, columns)))
    q, r = jnp.linalg.qr(tall)
    q = q * jnp.sign(jnp.diagonal(r))
    return q if rows >= columns else q.T


class Gaussian(eqx.Module):
    """Independent entries N(0, scale²/fan_in), or N(0, scale²) with `per_entry`."""

    scale: float = 1.0
    per_entry: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        require_between("the initial scale", self.scale, 0.0)

    def __call__(self, key: PRNGKeyArray, sizes: tuple[int, ...]) -> Weights:
        keys = jax.random.split(key, len(sizes) - 1)
        weights = [jax.random.normal(k, (o, i)) for k, i, o in zip(keys, sizes[:-1], sizes[1:], strict=True)]
        return tuple(self.scale * w / (1.0 if self.per_entry else jnp.sqrt(w.shape[1])) for w in weights)


class Orthogonal(eqx.Module):
    """Haar-orthogonal weights times a gain: all singular values of the product are gain^depth."""

    gain: float = 1.0

    def __check_init__(self):
        require_between("the gain", self.gain, 0.0)

    def __call__(self, key: PRNGKeyArray, sizes: tuple[int, ...]) -> Weights:
        keys = jax.random.split(key, len(sizes) - 1)
        pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
        return tuple(self.gain * haar_orthogonal(k, o, i) for k, i, o in pairs)


class Decoupled(eqx.Module):
    """Weights whose modes never mix: W_l = R_{l+1} D_l R_lᵀ with R_1 = V, R_last = U of the target's SVD.

    `strength` is every mode's initial product of layer strengths, split evenly over the layers;
    `imbalance` multiplies the first layer's strengths and divides the last one's, keeping the product.
    The hidden rotations are Haar. `target` is the input-output correlation, whose singular vectors are
    taken. Source: Saxe, McClelland & Ganguli (2013), eq. 8-9.

    Raises `InvalidValue` where a hidden layer is narrower than the number of modes.
    """

    target: Float[Array, "output input"]
    strength: float = 1e-3
    imbalance: float = 1.0

    def __check_init__(self):
        require_between("the initial mode strength", self.strength, 0.0, open_low=True)
        require_between("imbalance", self.imbalance, 0.0, open_low=True)

    def __call__(self, key: PRNGKeyArray, sizes: tuple[int, ...]) -> Weights:
        modes = min(self.target.shape)
        if min(sizes) < modes:
            raise InvalidValue(f"a layer is {min(sizes)} wide, but must be at least {modes}, the number of modes")
        layers = len(sizes) - 1
        u, _, vt = jnp.linalg.svd(self.target, full_matrices=False)
        keys = jax.random.split(key, layers)
        frames = [vt.T, *[haar_orthogonal(k, n, modes) for k, n in zip(keys, sizes[1:-1], strict=False)], u]
        level = jnp.asarray(self.strength) ** (1 / layers)
        factors = [jnp.ones(())] * layers
        if layers > 1:
            factors[0], factors[-1] = jnp.asarray(self.imbalance), 1 / jnp.asarray(self.imbalance)
        return tuple(level * factors[i] * frames[i + 1] @ frames[i].T for i in range(layers))


class GreedyAutoencoder(eqx.Module):
    """Weights as greedy layer-wise pretraining leaves them: each layer a linear autoencoder of the one below.

    A linear autoencoder trained from small balanced weights keeps the leading principal directions of its
    input and ends as an orthonormal map onto them, up to a rotation (Baldi & Hornik 1989; Saxe et al. 2013,
    section 3.2). So W_1 = R_2 P with the rows of P the leading eigenvectors of `input_correlation`, and
    the hidden layers, whose inputs are then rotated principal components, are W_l = R_{l+1} R_lᵀ. The
    last layer was never pretrained: `readout` is "orthogonal" or "gaussian", of size `scale`.
    """

    input_correlation: Float[Array, "input input"]
    scale: float = 1.0
    readout: Literal["orthogonal", "gaussian"] = eqx.field(static=True, default="orthogonal")

    def __check_init__(self):
        require_between("the read-out's scale", self.scale, 0.0)
        if self.readout not in ("orthogonal", "gaussian"):
            raise unknown("readout", self.readout, ("orthogonal", "gaussian"))

    def __call__(self, key: PRNGKeyArray, sizes: tuple[int, ...]) -> Weights:
        key_readout, *keys = jax.random.split(key, len(sizes))
        _, vectors = jnp.linalg.eigh(self.input_correlation)  # ascending
        principal = vectors[:, ::-1].T
        weights = []
        for layer, (k, fan_in, fan_out) in enumerate(zip(keys[:-1], sizes[:-2], sizes[1:-1], strict=True)):
            rotation = haar_orthogonal(k, fan_out, fan_out)
            kept = principal[:fan_out] if layer == 0 else jnp.eye(fan_out, fan_in)
            weights.append(rotation[:, : kept.shape[0]] @ kept)
        if self.readout == "orthogonal":
            last = haar_orthogonal(key_readout, sizes[-1], sizes[-2])
        else:
            last = jax.random.normal(key_readout, (sizes[-1], sizes[-2])) / jnp.sqrt(sizes[-2])
        return (*weights, self.scale * last)


Initialisation = Gaussian | Orthogonal | Decoupled | GreedyAutoencoder
"""Any way to draw the weights of a chain: `initialisation(key, sizes) -> weights`."""
