"""Training of linear models on random data and random projections: test and training error at any time.

Modes k of eigenvalue lambda_k carry the target's power; a read-out of `width` random projections of them is trained on
`samples` of them. With many of each, errors are deterministic, and their transforms solve closed equations (dynamical
mean-field theory). At a frequency s, with g = sum of lambda/(lambda + kappa),

    s = kappa (1 - g/samples)(1 - g/width),

and what is left of a mode has the transform kappa/(s (kappa + lambda)). A real s is a ridge penalty (over the number of
samples), kappa then the ridge of `deterministic_equivalents`. Source: Bordelon, Atanasov & Pehlevan (2024),
arXiv:2402.01092; two-point equations, momentum and descent at many steps derived here.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import ArrayLike

from armillary.errors import InvalidValue, require_between
from armillary.theory.deterministic_equivalents import (
    FeatureKernel,
    Groups,
    Spectrum,
    effective_ridge,
    feature_errors,
    linear_errors,
)

NODES = 20
"""Nodes of the contour: errors of about 1e-8 of the error at the start. More would lose to rounding, whose share grows as
e^(0.95 nodes) in two variables, what fewer lose to the contour."""

MOST_STEPS = 1000
"""Steps of descent up to which every one is found by a Fourier transform."""

LATE = 64
"""Steps from which descent without momentum is found by the contour, whatever their number."""

RATIO = 3.0
"""Factor between frequencies along which the solution is followed from where it is known."""

Times = Float[np.ndarray, " time"]


class Course(NamedTuple):
    """Mean squares at times, float[time]: `test`, without label noise; `train`, with it; `bias`, the test error of the mean of
    infinitely many models with projections and data of their own. `unlearned` [time, group] is what is left of each mode
    on average, as a share of its target."""

    test: Times
    train: Times
    bias: Times
    unlearned: Float[np.ndarray, "time group"]


class _Pairs(NamedTuple):
    test: np.ndarray
    train: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class LinearDynamics:
    """f(x) = w . A x/sqrt(width), trained from w = 0 on the mean of ½(y - f)² over `samples`, y = w* . x + label noise.

    x has independent modes of variance `spectrum`; `power` [group] is that of w* x in each group; A has independent entries
    of variance 1. `width` and `samples` may be infinite; `noise` is the labels' deviation. Exact as width and samples grow
    with their ratio; at some ten of each good to a few per cent. Raises `InvalidValue` for numbers out of range.

    >>> from armillary.theory.power_laws import power_law_modes
    >>> spectrum, power = power_law_modes(1.5, 2.0, modes=400, per_decade=1000)
    >>> dynamics = LinearDynamics(spectrum, power, width=50, samples=100)
    >>> dynamics.flow([1.0, 100.0, np.inf]).test.round(4).tolist()
    [0.623, 0.1148, 0.1562]
    """

    spectrum: Spectrum
    power: Groups
    width: float = np.inf
    samples: float = np.inf
    noise: float = 0.0

    def __post_init__(self):
        require_between("the width", self.width, 0.0, open_low=True)
        require_between("the number of samples", self.samples, 0.0, open_low=True)
        require_between("noise", self.noise, 0.0)
        require_between("an eigenvalue", self.spectrum.values, 0.0, open_low=True)
        require_between("the target's power", self.power, 0.0)
        if not len(self.power) == len(self.spectrum.values) == len(self.spectrum.counts):
            raise InvalidValue(
                f"{len(self.spectrum.values)} eigenvalues, {len(self.spectrum.counts)} counts and {len(self.power)} powers "
                "do not fit; give one of each for every group of modes"
            )

    @property
    def spectral_edge(self) -> float:
        """The upper edge of the limiting spectrum of (Aᵀ A/width)(data covariance): descent is stable up to 2 over it.

        Above all eigenvalues lambda: minus the maximum over kappa < -lambda of s(kappa). Where the first modes stand alone, the
        largest eigenvalue of most draws is below it. Derived here.
        """
        from scipy.optimize import minimize_scalar  # loads slowly

        top = float(self.spectrum.values.max())
        if np.isinf(self.width) and np.isinf(self.samples):
            return top
        value = lambda log: -float(np.real(self._frequency(np.array([-top * (1 + np.exp(log))]))[0][0]))
        found: Any = minimize_scalar(value, bounds=(-30.0, 30.0), method="bounded")
        return float(found.fun)

    def _frequency(self, kappa: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """s at kappa, and its derivative."""
        inverse = 1 / (self.spectrum.values + kappa[..., None])
        weight = self.spectrum.counts * self.spectrum.values
        g, slope = inverse @ weight, -(inverse**2) @ weight
        data, features = 1 - g / self.samples, 1 - g / self.width
        return kappa * data * features, data * features - kappa * slope * (features / self.samples + data / self.width)

    def kappa(self, rays: ArrayLike, scales: ArrayLike = (1.0,)) -> Complex[np.ndarray, "scale ..."]:
        """kappa at the frequencies scale times ray: complex [scale, ...], rays of any shape and scales [scale].

        By Newton's method, followed along each ray from large scales, where kappa = s; rays must keep off the negative
        real numbers above -`spectral_edge`, where the solution has its cut. Raises `InvalidValue` where it is lost.
        """
        rays, scales = np.asarray(rays, complex), np.asarray(scales, float)
        if np.isinf(self.width) and np.isinf(self.samples):
            return scales.reshape(-1, *[1] * rays.ndim) * rays
        order = np.argsort(-scales)
        total = float(self.spectrum.values @ self.spectrum.counts) * (1 + 1 / min(self.width, self.samples))
        at = 1e2 * total / np.abs(rays).min()
        kappa, slope = at * rays, np.ones_like(rays)
        found = np.empty((len(scales), *rays.shape), complex)
        for index in order:
            while True:
                step = max(scales[index], at / RATIO) if at > scales[index] else scales[index]
                s = step * rays
                # A power law between frequencies: the slope in logarithms is s/(kappa s'(kappa)).
                kappa = kappa * np.exp(np.log(step / at) * (at * rays) / (kappa * slope))
                kappa, slope = self._solve(s, kappa)
                at = step
                if step == scales[index]:
                    break
            found[index] = kappa
        return found

    def _solve(self, s: np.ndarray, kappa: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        change = kappa
        for _ in range(60):
            value, slope = self._frequency(kappa)
            change = (value - s) / slope
            kappa = kappa - change
            if np.all(np.abs(change) <= 1e-13 * np.abs(kappa)):
                break
        else:
            if not np.all(np.abs(change) <= 1e-8 * np.abs(kappa)):
                raise InvalidValue(
                    f"kappa was not found at width {self.width:g} and {self.samples:g} samples; move them apart, or take "
                    "an earlier time"
                )
        if np.any((np.real(s) > 0) & (np.real(kappa) <= 0)):
            raise InvalidValue("kappa left the branch of positive real parts; keep rays off the negative real numbers")
        return kappa, self._frequency(kappa)[1]

    def transforms(self, s: ArrayLike, steps: ArrayLike, others: slice = slice(None)) -> _Pairs:
        """Two-point functions at all pairs of frequencies: complex [others, node], `others` a part of the nodes.

        `steps` [node] is the transform of a constant 1 there: 1/p of a flow at s = p; z/(z - 1) of descent. 1 gives ridge
        regression at penalty s times samples.
        """
        s, unit = np.asarray(s, complex), np.asarray(steps, complex)
        return self._pairs(s, unit, self.kappa(s)[0], others)

    def _pairs(self, s: np.ndarray, unit: np.ndarray, kappa: np.ndarray, others: slice) -> _Pairs:
        values, counts = self.spectrum
        left = kappa[:, None] / (kappa[:, None] + values)  # s times the mean transform of what is left
        g = (counts * values / (kappa[:, None] + values)).sum(axis=1)
        data, features = 1 - g / self.samples, 1 - g / self.width
        # The product of both is s/kappa: the smaller one is then free of cancellation.
        if self.samples < self.width:
            data = s / (kappa * features)
        else:
            features = s / (kappa * data)
        H = left / s[:, None]
        pair = lambda weight: (H[others] * weight) @ H.T
        both = lambda x: x[others][:, None] * x
        first, second = pair(counts * values), pair(counts * values**2)
        source = both(s * unit)
        alpha, gamma = both(features) * first / self.width, both(data * features) * second / self.width
        beta, delta = both(data * features) * second / self.samples, both(s * data) * first / self.samples
        bias, mixed = source * pair(self.power), source * both(data) * pair(self.power * values)
        noise = self.noise**2 * both(unit)
        test = ((bias + beta * noise) * (1 - gamma) + alpha * (mixed + delta * noise)) / (
            (1 - beta) * (1 - gamma) - alpha * delta
        )
        return _Pairs(test, both(data) * (test + noise), bias)

    def flow(self, times: ArrayLike) -> Course:
        """Gradient flow at times float[time], 0 and inf allowed: any range of times, some milliseconds each.

        Raises `InvalidValue` for negative times.
        """
        times = np.atleast_1d(np.asarray(times, float))
        require_between("a time", times, 0.0)
        course = self._blank(times)
        for index in np.flatnonzero(np.isinf(times)).tolist():
            self._end(course, index)
        which = np.flatnonzero((times > 0) & np.isfinite(times))
        nodes, weights = talbot()
        if len(which):
            upper = slice(0, len(nodes) // 2)
            kappas = self.kappa(nodes[upper], 1 / times[which])
            for index, kappa in zip(which.tolist(), kappas, strict=True):
                p = nodes / times[index]
                self._invert(course, index, p, 1 / p, np.concatenate([kappa, kappa.conj()[::-1]]), weights)
        return course

    def descent(self, steps: ArrayLike, learning_rate: float, momentum: float = 0.0) -> Course:
        """Full-batch gradient descent at whole steps [time], with heavy-ball momentum.

        Raises `InvalidValue` for an unstable learning rate, and for more than `MOST_STEPS` steps with momentum or with a
        learning rate that makes modes oscillate (from 1/`spectral_edge`).
        """
        steps = np.atleast_1d(np.asarray(steps, float))
        require_between("a step", steps, 0.0)
        require_between("momentum", momentum, 0.0, 1.0)
        top = self.spectral_edge
        limit = 2 * (1 + momentum) / top
        require_between("the learning rate", learning_rate, 0.0, limit, open_low=True, note="the largest stable one")
        if np.any(steps != np.round(steps)):
            raise InvalidValue("steps of descent must be whole numbers; use flow for other times")
        smooth = momentum == 0 and learning_rate * top < 1
        if steps.max() > MOST_STEPS and not smooth:
            raise InvalidValue(
                f"there are {steps.max():g} steps, but at most {MOST_STEPS} can be had with momentum or a learning rate above "
                f"{1 / top:.3g} (one over the spectrum's edge); lower it, or use flow"
            )
        course = self._blank(steps)
        early = np.flatnonzero((steps > 0) & (steps <= (LATE if smooth and steps.max() > LATE else MOST_STEPS)))
        late = np.setdiff1d(np.flatnonzero(steps > 0), early)
        if len(early):
            self._fourier(course, early, steps[early].astype(int), learning_rate, momentum)
        if len(late):
            nodes, weights = talbot()
            z = np.exp(nodes / steps[late, None])
            s = (z - 1) / learning_rate
            half = self.kappa(s[:, : len(nodes) // 2])[0]
            for row, index in enumerate(late.tolist()):
                kappa = np.concatenate([half[row], half[row].conj()[::-1]])
                self._invert(course, index, s[row], z[row] / (z[row] - 1), kappa, weights)
        return course

    def _blank(self, times: Times) -> Course:
        size, noisy = float(self.power.sum()), float(self.power.sum() + self.noise**2)
        full = lambda value: np.full(len(times), value)
        return Course(full(size), full(noisy), full(size), np.ones((len(times), len(self.power))))

    def _invert(
        self, course: Course, index: int, s: np.ndarray, unit: np.ndarray, kappa: np.ndarray, weights: np.ndarray
    ) -> None:
        """The inverse transform at one time, in both variables: half of the nodes' pairs are the others' conjugates."""
        time = float(np.real(np.sum(weights * unit)))  # the transform of 1 gives back the time
        weights, half = weights / time, slice(0, len(s) // 2)
        for to, pairs in zip(course[:3], self._pairs(s, unit, kappa, half), strict=True):
            to[index] = 2 * np.real(weights[half] @ pairs @ weights)
        left = kappa[half, None] / (kappa[half, None] + self.spectrum.values)
        course.unlearned[index] = 2 * np.real((weights * unit)[half] @ left)

    def _fourier(
        self, course: Course, which: np.ndarray, steps: np.ndarray, learning_rate: float, momentum: float
    ) -> None:
        """The inverse z-transform on a circle outside all poles; the diagonal of two variables is one transform."""
        count = max(2 * int(steps.max()), 16)
        radius = 10 ** (8 / count)
        half = np.arange(count // 2 + 1)
        z = radius * np.exp(2j * np.pi * half / count)
        s = (z - 1) * (1 - momentum / z) / learning_rate
        kappa, whole = self.kappa(s)[0], lambda x: np.concatenate([x, x.conj()[-2:0:-1]])
        unit = z / (z - 1)
        for to, pairs in zip(
            course[:3], self._pairs(whole(s), whole(unit), whole(kappa), slice(0, len(half))), strict=True
        ):
            along = np.zeros(count, complex)  # sums over pairs of equal angle sum
            for row, values in zip(half, pairs, strict=True):
                share = values / 2 if row in (0, count // 2) else values
                along += np.roll(share, row)
            series = 2 * np.fft.ifft(along).real / count
            to[which] = (series * radius ** (2.0 * np.arange(count)))[steps]
        left = unit[:, None] * kappa[:, None] / (kappa[:, None] + self.spectrum.values)
        series = np.fft.irfft(left, count, axis=0) * radius ** np.arange(count)[:, None]
        course.unlearned[which] = series[steps]

    def _end(self, course: Course, index: int) -> None:
        course.test[index], course.train[index], course.bias[index], course.unlearned[index] = self.end()

    def end(self) -> tuple[float, float, float, Groups]:
        """Test and training error, bias and what is left of each mode after infinite time, from the closed forms of ridge
        regression (`deterministic_equivalents`) without a penalty; inf where as many directions as samples are fitted.

        >>> from armillary.theory.power_laws import power_law_modes
        >>> spectrum, power = power_law_modes(1.2, 1.8, modes=300)
        >>> round(LinearDynamics(spectrum, power, width=40).end()[0], 2)
        0.24
        """
        values = self.spectrum.values
        directions = min(float(self.spectrum.counts.sum()), self.width)
        fewest = min(directions, self.samples)
        kappa = effective_ridge(self.spectrum, fewest)
        left = kappa / (kappa + values)
        bias = float(self.power @ left**2)
        if np.isinf(self.samples):
            test = float(self.power @ left)
            return test, test + self.noise**2, bias, left
        if self.samples == directions and (kappa > 0 or self.noise > 0):
            return np.inf, 0.0, bias, left
        if np.isinf(self.width):
            test = sum(linear_errors(self.spectrum, self.power / values, 0.0, self.samples, self.noise))
        else:
            tiny = 1e-10 * float(values @ self.spectrum.counts)
            kernel = FeatureKernel(self.spectrum, self.width)
            test = feature_errors(kernel, self.power, self.samples, tiny, self.noise).excess
        # Beyond the directions that the model has, the training error is that of the population shrunk by their share.
        train = (test + self.noise**2) * max(0.0, 1 - directions / self.samples) ** 2
        return test, train, bias, left


def talbot(nodes: int = NODES) -> tuple[Complex[np.ndarray, " node"], Complex[np.ndarray, " node"]]:
    """Nodes and weights of the inverse Laplace transform f(t) = sum of weight F(node/t)/t, in conjugate pairs from both ends.

    Good for transforms whose singularities are on the negative real numbers, to about 5e-9 with 20 nodes. Source: Weideman's
    modified Talbot contour.

    >>> z, weight = talbot()
    >>> bool(abs(np.sum(weight / (z + 1)) - np.exp(-1)) < 1e-8)
    True
    """
    theta = (2 * np.arange(nodes) + 1) * np.pi / nodes - np.pi
    inner = 0.6407 * theta
    z = nodes * (-0.4814 + 0.6122 * theta / np.tan(inner) + 0.2645j * theta)
    slope = nodes * (0.6122 / np.tan(inner) - 0.6122 * inner / np.sin(inner) ** 2 + 0.2645j)
    return z, np.exp(z) * slope / (1j * nodes)
