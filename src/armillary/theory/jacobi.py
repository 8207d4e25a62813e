"""The free Jacobi law: principal angles between two random subspaces."""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

from armillary.errors import require_between


class FreeJacobi(NamedTuple):
    """Squared cosines of the principal angles between random subspaces of shares `first` and `second` of a space.

    The eigenvalues of Qᵀ P Q for Q an orthonormal family of first * d columns and P a projector of rank second * d, as
    d grows; masses are per dimension d and add up to `first`. Density sqrt((high - x)(x - low))/(2 pi x (1 - x)) between
    `edges`, an atom at 0 of mass first - min(first, second), one at 1 of mass max(0, first + second - 1).
    Source: Wachter (1980); Collins (2005)

    >>> law = FreeJacobi(0.3, 0.2)
    >>> nodes, weights = law.quadrature()
    >>> round(float(weights.sum() + law.atom_at_zero), 6), round(float(weights @ nodes), 6)
    (0.3, 0.06)
    """

    first: float
    second: float

    @property
    def edges(self) -> tuple[float, float]:
        """The ends of the continuous part."""
        require_between("the first subspace's share", self.first, 0.0, 1.0, open_low=True)
        require_between("the second subspace's share", self.second, 0.0, 1.0, open_low=True)
        a, b = self.first, self.second
        # The squares of sqrt(a(1-b)) ± sqrt(b(1-a)): their difference does not cancel near 0.
        one, other = np.sqrt(a * (1 - b)), np.sqrt(b * (1 - a))
        return float((one - other) ** 2), float((one + other) ** 2)

    @property
    def atom_at_zero(self) -> float:
        """The mass of directions without any overlap."""
        return self.first - min(self.first, self.second)

    @property
    def atom_at_one(self) -> float:
        """The mass of directions in common."""
        return max(0.0, self.first + self.second - 1)

    def density(self, x: Float[ArrayLike, "..."]) -> Float[np.ndarray, "..."] | float:
        """The continuous part's density, of mass min(first, second) - atom_at_one."""
        low, high = self.edges
        inside = np.clip((high - x) * (x - low), 0.0, None)
        return np.sqrt(inside) / (2 * np.pi * np.where(inside > 0, x * (1 - np.asarray(x)), 1.0))

    def quadrature(self, count: int = 400) -> tuple[Float[np.ndarray, " node"], Float[np.ndarray, " node"]]:
        """Nodes and weights for integrals over the continuous part: the midpoint rule in the angle of
        x = centre + radius cos(angle), where the square-root edges are smooth."""
        low, high = self.edges
        angle = np.pi * (np.arange(count) + 0.5) / count
        radius = (high - low) / 2
        # Written from the nearer edge, so that nothing cancels where the law touches 0 or 1.
        nodes = low + 2 * radius * np.cos(angle / 2) ** 2
        rest = (1 - high) + 2 * radius * np.sin(angle / 2) ** 2
        return nodes, (np.pi / count) * (radius * np.sin(angle)) ** 2 / (2 * np.pi * nodes * rest)
