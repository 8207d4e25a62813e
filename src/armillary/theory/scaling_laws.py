"""Scaling laws of your own kernel and target: exponents with intervals, losses, and how to split compute, before training."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from armillary.errors import InvalidValue, require_between
from armillary.theory.assumptions import Check, limit
from armillary.theory.deterministic_equivalents import Groups, Spectrum
from armillary.theory.linear_dynamics import LinearDynamics
from armillary.theory.power_laws import Exponent, ModeFit, fit_modes, log_bins

LEAST_DECADES = 1.5
"""Decades of modes over which a power law must be fitted."""

LARGEST_RESIDUALS = {"spectrum": 0.2, "target": 0.4}
"""Root-mean-square residuals of the logarithm up to which a power law is called one; a target's modes scatter."""

LARGEST_INTERVAL = 0.25
"""Half-width of an exponent's interval up to which laws made from it say something."""


class Exponents(NamedTuple):
    """What falls as which power: of the error in `time`, `width` and `samples` alone (the error is resource^(-exponent)), and,
    for compute = width x time, of the best time, the best width and the error (compute^exponent, the error's negative)."""

    time: Exponent
    width: Exponent
    samples: Exponent
    best_time: Exponent
    best_width: Exponent
    best_error: Exponent


def exponents_of(spectrum_exponent: ArrayLike, target_exponent: ArrayLike) -> list[Float[np.ndarray, "..."]]:
    """The six of `Exponents` for eigenvalues k^(-b) and target power k^(-a): with d = a - 1 and m = min(d, b), d/b, m,
    min(d, 2b), b m/(d + b m), d/(d + b m), d m/(d + b m).

    For width the paper is quoted with min(d, 2b); the equations give 2b only to the mean of many models, b to a single one:
    what a projection of its own loses in the first modes falls as kappa, not kappa². Derived here.

    >>> [round(float(e), 3) for e in exponents_of(1.25, 1.5)]
    [0.4, 0.5, 0.5, 0.556, 0.444, 0.222]
    """
    b, d = np.asarray(spectrum_exponent, float), np.asarray(target_exponent, float) - 1
    m = np.minimum(d, b)
    both = d + b * m
    found = (d / b, m, np.minimum(d, 2 * b), b * m / both, d / both, d * m / both)
    return [np.asarray(one) for one in found]


@dataclass(frozen=True)
class ScalingLaw:
    """What `scaling_law` finds; printed, it is a summary.

    `spectrum` and `target` are the fits, `exponents` what follows from them, `checks` the assumptions with their numbers.
    """

    spectrum: ModeFit
    target: ModeFit
    exponents: Exponents
    checks: list[Check]
    noise: float
    modes: Spectrum
    power: Groups

    @property
    def refusals(self) -> list[str]:
        """The assumptions that fail, and by how much."""
        return [str(check) for check in self.checks if not check.holds]

    def dynamics(self, width: float = np.inf, samples: float = np.inf) -> LinearDynamics:
        """The learning of a linear model of that width on so many samples."""
        return LinearDynamics(self.modes, self.power, width, samples, self.noise)

    def within(self, times: ArrayLike, widths: ArrayLike, samples: ArrayLike) -> Iterator[Check]:
        """That what is asked for is decided by modes that were measured: the scarcest of width, samples and time."""
        inverse = 1 / np.asarray(times, float)
        falling, first = -self.modes.values, np.cumsum(self.modes.counts)
        seen = np.interp(-inverse, falling, first, left=0.0)
        asked = min(float(np.max(seen)), float(np.max(widths)), float(np.max(samples)))
        needed = "widths, samples or times that measured modes decide"
        yield limit(needed, "the last mode that counts over the last measured", asked / self.target.last, 1.0)

    def losses(
        self, times: Sequence[float], widths: Sequence[float] = (np.inf,), samples: Sequence[float] = (np.inf,)
    ) -> xr.Dataset:
        """`test_error` (without label noise) and `train_error` (with), float[width, samples, time], mean squares.

        Time is that of gradient flow on half the mean square, or steps times the learning rate. The attribute `refusals` says
        which assumptions fail, as a prediction's does (`armillary.prediction.refusals`). Raises `InvalidValue` for numbers
        out of range.
        """
        courses = [[self.dynamics(width, count).flow(times) for count in samples] for width in widths]
        dims = ("width", "samples", "time")
        labels = {"units": "1", "long_name": "mean squared test error"}, {"units": "1", "long_name": "training error"}
        found = {
            "test_error": (dims, np.array([[c.test for c in row] for row in courses]), labels[0]),
            "train_error": (dims, np.array([[c.train for c in row] for row in courses]), labels[1]),
        }
        coords = {"width": list(widths), "samples": list(samples), "time": list(times)}
        return xr.Dataset(found, coords, {"refusals": self._refused(self.within(times, widths, samples))})

    def _refused(self, more: Iterator[Check]) -> str:
        failed = [*self.refusals, *(str(check) for check in more if not check.holds)]
        return json.dumps({"scaling law": failed} if failed else {})

    def frontier(self, compute: Sequence[float], samples: float = np.inf) -> xr.Dataset:
        """The best `width` and `time` and their `test_error`, float[budget], where width x time is given, the `compute`.

        From errors on a grid of widths and times, interpolated by cubics in logarithms: good to some 1e-3. nan where the
        best lies outside the grid, and nothing is gained by splitting. Raises `InvalidValue` for compute that is not above 1.
        """
        from scipy.interpolate import RectBivariateSpline  # loads slowly

        require_between("compute", compute, 1.0, open_low=True)
        given = np.asarray(compute, float)
        low, high = float(given.min()), float(given.max())
        share = self.exponents.best_width.value
        widths = _grid(0.2 * low**share, min(100 * high**share, high))
        times = _grid(0.01 * low ** (1 - share), 10 * high ** (1 - share))
        errors = np.array([self.dynamics(width, samples).flow(times).test for width in widths])
        surface = RectBivariateSpline(np.log(widths), np.log(times), np.log(errors))
        log = np.linspace(np.log(widths[0]), np.log(widths[-1]), 4000)
        found = []
        for total in np.log(given):
            inside = log[(total - log >= np.log(times[0])) & (total - log <= np.log(times[-1]))]
            along = surface(inside, total - inside, grid=False)
            best = int(np.argmin(along))
            at = inside[best] if 0 < best < len(inside) - 1 else np.nan
            found.append((np.exp(at), np.exp(total - at), np.exp(along[best]) if np.isfinite(at) else np.nan))
        width, time, error = np.array(found).T
        said = {
            "width": ("budget", width, {"units": "1", "long_name": "best width"}),
            "time": ("budget", time, {"units": "1", "long_name": "best time"}),
            "test_error": ("budget", error, {"units": "1", "long_name": "mean squared test error"}),
        }
        fine = np.isfinite(width)
        checks = self.within(time[fine], width[fine], [samples]) if fine.any() else iter(())
        return xr.Dataset(said, {"budget": given}, {"refusals": self._refused(checks)})

    def __str__(self) -> str:
        e = self.exponents
        lines = [
            f"eigenvalues fall as mode^-{self.spectrum.exponent}, the target's power as mode^-{self.target.exponent}",
            f"error: time^-{e.time}, width^-{e.width}, samples^-{e.samples}",
            f"compute = width x time: time ~ compute^{e.best_time}, width ~ compute^{e.best_width}, error ~ compute^-{e.best_error}",
        ]
        return "\n".join([*lines, *self.refusals])


def _grid(low: float, high: float) -> np.ndarray:
    return np.geomspace(low, high, max(int(np.ceil(5 * np.log10(high / low))), 6))


def scaling_law(
    eigenvalues: ArrayLike, target_coefficients: ArrayLike, *, fit_range: tuple[int, int] | None = None,
    noise: float = 0.0, confidence: float = 0.95, modes: float = 1e8,
) -> ScalingLaw:  # fmt: skip
    """The scaling law of linear (lazy) training with a kernel whose modes were measured: what more time, width, data buy.

    - `eigenvalues` [mode], of the kernel under the data's law, any order; `target_coefficients` [mode] or [mode, output], the
      target's along the modes, of variance 1 each. From samples: `m = theory.kernels.kernel_modes(gram, targets)`,
      `scaling_law(m.eigenvalues, np.sqrt(m.power))`. Of n samples trust the first n/5 modes or so.
    - `fit_range`: first and last mode (from 1) to which power laws are fitted; None: 5 to a quarter of all. Beyond the last,
      modes follow the fit, up to number `modes`. `noise`: the labels' deviation.
    - `confidence`: of the intervals, which know of scatter about a power law within the range, and of nothing beyond it.

    Nothing is refused: `law.refusals`, and the attribute of what it predicts, name every assumption that fails and by how much.
    The width is that of random features (of a network's kernel: parameters). Raises `InvalidValue` for shapes that do not fit,
    negative or non-finite values, and ranges without modes. Source: Bordelon, Atanasov & Pehlevan (2024); intervals ours.

    >>> k = np.arange(1.0, 2001.0)
    >>> law = scaling_law(k**-1.25, k**-0.75)
    >>> print(law.exponents.time, law.refusals)
    0.400 (0.400 to 0.400) []
    >>> round(law.losses([100.0], [50.0]).test_error.item(), 3)
    0.726
    """
    values = np.asarray(eigenvalues, float)
    coefficients = np.asarray(target_coefficients, float)
    if values.ndim != 1 or coefficients.ndim not in (1, 2) or len(values) != len(coefficients):
        raise InvalidValue(
            f"eigenvalues are {values.shape} and target coefficients {coefficients.shape}, but must be [mode] and [mode] or "
            "[mode, output]"
        )
    require_between("an eigenvalue", values, 0.0, np.finfo(float).max)
    require_between("a target coefficient", np.abs(coefficients), 0.0, np.finfo(float).max)
    order = np.argsort(-values, kind="stable")
    power = (coefficients.reshape(len(values), -1) ** 2).sum(axis=1)[order]
    values = values[order]
    first, last = (min(5, max(len(values) // 8, 1)), max(len(values) // 4, 1)) if fit_range is None else fit_range
    last = int(last)
    if last <= len(values) and last >= 1 and values[last - 1] == 0:
        raise InvalidValue(f"eigenvalue {last} is 0; end the fit_range at {int((values > 0).sum())} or before")
    fit, of_target = (fit_modes(given, int(first), last, confidence) for given in (values, power))
    spectrum, groups = _extended(values[:last], power[:last], [fit, of_target], modes)
    exponents, checks = _exponents(fit, of_target, confidence), list(_checks(fit, of_target))
    return ScalingLaw(fit, of_target, exponents, checks, noise, spectrum, groups)


def _extended(values: np.ndarray, power: np.ndarray, fits: list[ModeFit], modes: float) -> tuple[Spectrum, Groups]:
    """The measured modes in narrow bins, and the fitted laws beyond."""
    last = len(values)
    starts, counts = log_bins(last, 32)
    index = (starts - 1).astype(int)
    grouped = [np.add.reduceat(given, index) for given in (values, power)]
    if modes <= last:
        return Spectrum(grouped[0] / counts, counts), grouped[1]
    far, more = log_bins(int(modes), 32, last + 1)
    middle = far + (more - 1) / 2
    law = [fit.factor * middle**-fit.exponent.value for fit in fits]
    spectrum = Spectrum(np.append(grouped[0] / counts, law[0]), np.append(counts, more))
    return spectrum, np.append(grouped[1], law[1] * more)


def _exponents(spectrum: ModeFit, target: ModeFit, confidence: float) -> Exponents:
    draws, count = np.random.default_rng(0), 20_000
    drawn = [fit.exponent.value + fit.error * draws.standard_t(fit.freedom, count) for fit in (spectrum, target)]
    ends = (0.5 - confidence / 2, 0.5 + confidence / 2)
    values = exponents_of(spectrum.exponent.value, target.exponent.value)
    spread = [np.quantile(one, ends) for one in exponents_of(*drawn)]
    return Exponents(*(Exponent(float(v), float(s[0]), float(s[1])) for v, s in zip(values, spread, strict=True)))


def _checks(spectrum: ModeFit, target: ModeFit) -> Iterator[Check]:
    for name, fit in (("spectrum", spectrum), ("target", target)):
        what = f"the residual of the {name}'s logarithm (root mean square)"
        yield limit(f"a power-law {name}", what, fit.residual, LARGEST_RESIDUALS[name])
        steep = fit.exponent.low > 1
        yield Check(steep, f"a {name} that falls faster than 1/mode", f"its exponent is {fit.exponent} (above 1)")
        half = (fit.exponent.high - fit.exponent.low) / 2
        yield limit(f"a known exponent of the {name}", "its interval's half-width", half, LARGEST_INTERVAL)
    decades = np.log10(spectrum.last / spectrum.first)
    yield Check(
        decades >= LEAST_DECADES,
        f"{LEAST_DECADES:g} decades of modes",
        f"{spectrum.first} to {spectrum.last} are {decades:.2g}; measure more, or widen the fit_range",
    )
