"""Spectra of large random matrices, in closed form and as quadratures."""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

from armillary.errors import require_between


class MarchenkoPastur(NamedTuple):
    """Eigenvalues of X Xᵀ for X of size N x P with independent entries of mean 0 and variance 1/N, P/N = `ratio`.

    Density sqrt((high - x)(x - low))/(2 pi x) on [low, high] = (sqrt(ratio) ∓ 1)², of mass min(1, ratio), and an
    atom of mass max(0, 1 - ratio) at 0. Source: Marchenko & Pastur (1967); Advani & Saxe (2017)

    >>> nodes, weights = MarchenkoPastur(2.0).quadrature()
    >>> round(float(weights.sum()), 6), round(float(weights @ nodes), 6)
    (1.0, 2.0)
    """

    ratio: float

    @property
    def edges(self) -> tuple[float, float]:
        """The ends of the continuous part."""
        root = np.sqrt(self.ratio)
        return float((root - 1) ** 2), float((root + 1) ** 2)

    @property
    def atom(self) -> float:
        """The share of eigenvalues that are 0."""
        return max(0.0, 1.0 - self.ratio)

    def density(self, x: Float[ArrayLike, "..."]) -> Float[np.ndarray, "..."] | float:
        """The continuous part's density."""
        require_between("the aspect ratio", self.ratio, 0.0, open_low=True)
        low, high = self.edges
        inside = np.clip((high - x) * (x - low), 0.0, None)
        return np.sqrt(inside) / (2 * np.pi * np.where(inside > 0, x, 1.0))

    def quadrature(self, count: int = 4000) -> tuple[Float[np.ndarray, " node"], Float[np.ndarray, " node"]]:
        """Nodes and weights for integrals over the continuous part.

        The midpoint rule in the angle of x = centre + radius cos(angle), where the square-root edges are smooth; it
        converges geometrically off ratio 1, and as 1/count at it.
        """
        require_between("the aspect ratio", self.ratio, 0.0, open_low=True)
        low, high = self.edges
        radius = (high - low) / 2
        angle = np.pi * (np.arange(count) + 0.5) / count
        nodes = (high + low) / 2 + radius * np.cos(angle)
        if low < 1e-12:  # the sum cancels near 0: the same nodes written as a product
            nodes = high * np.cos(angle / 2) ** 2
        weights = (np.pi / count) * (radius * np.sin(angle)) ** 2 / (2 * np.pi * nodes)
        return nodes, weights


class Semicircle(NamedTuple):
    """Eigenvalues of a large symmetric matrix of P x P independent entries of mean 0 and variance `variance`/P.

    Density sqrt(4 variance - x²)/(2 pi variance) on ±2 sqrt(variance). Source: Wigner (1955)

    >>> print(Semicircle(4.0).edges, round(float(Semicircle(1.0).density(0.0)), 4))
    (-4.0, 4.0) 0.3183
    """

    variance: float

    @property
    def edges(self) -> tuple[float, float]:
        """The ends of the spectrum."""
        require_between("the variance", self.variance, 0.0)
        radius = 2 * float(np.sqrt(self.variance))
        return -radius, radius

    def density(self, x: Float[ArrayLike, "..."]) -> Float[np.ndarray, "..."] | float:
        """The density of eigenvalues."""
        require_between("the variance", self.variance, 0.0, open_low=True)
        return np.sqrt(np.clip(4 * self.variance - np.asarray(x, float) ** 2, 0.0, None)) / (2 * np.pi * self.variance)
