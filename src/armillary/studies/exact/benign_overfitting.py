"""Noise in the inputs makes it harmless to interpolate noisy labels, if it has many more directions than there are samples."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least
from armillary.measures import power_law
from armillary.models.tangent_kernel import FiniteWidth, LinearKernel, TangentKernel
from armillary.probes.smoother import SmootherErrors
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, lines, shades
from armillary.rules.solved import Solved
from armillary.rules.solvers import KernelRidge
from armillary.study import Claim, Paper, Study
from armillary.tasks.covariate_noise import CovariateNoise, WideCovariateNoise
from armillary.theory.benign import leading_variance
from armillary.trajectory import over_seeds

GROWTH = {"2 n": (2.0, 1.0), "n^1.5": (1.0, 1.5), "0.6 n^1.8": (0.6, 1.8)}
"""Dimensions d = factor n^exponent, by the name that they have in figures."""


@dataclass(frozen=True, kw_only=True)
class BenignOverfitting(Study):
    """An interpolator of noisy labels has a small risk if the covariates carry noise in far more directions than there
    are samples: each sample has directions of its own, in which the label noise is memorised, while the few signal
    directions are fitted as if with a ridge penalty.

    The variance is the noise times rank/samples + samples/dimension. Kernels of wide two-layer ReLU networks behave
    alike. For finite networks the risk peaks where the parameters are as many as the samples, and may peak again near
    their square.
    """

    paper: ClassVar = Paper(
        "Towards an Understanding of Benign Overfitting in Neural Networks",
        authors="Zhu Li, Zhi-Hua Zhou, Arthur Gretton", year=2021, arxiv="2106.03212",
    )  # fmt: skip
    seeds: ClassVar = {"smoke": 2, "desk": 6, "paper": 6}

    rank: int = at_least(1, default=5)
    """Dimension of the signal."""
    noise: float = above(0.0, default=0.5)
    """Standard deviation of the label noise; the teacher's is 1."""
    samples: tuple[int, ...] = at_least(20, default=(50, 100, 200, 400), smoke=(50, 100), paper=(100, 200, 400, 1000, 2000, 4000))
    """Numbers of samples n."""
    covariate_noise: tuple[float, ...] = at_least(0.0, default=(0.0, 0.1, 0.3, 0.6, 1.0, 2.0, 4.0))
    """Standard deviations of the covariates' noise over the signal's size."""
    compared: int = at_least(50, default=200, smoke=100)
    """Samples where these are compared, in n^1.5 dimensions."""
    test_samples: int = at_least(50, default=400, smoke=200, paper=1000)
    """Test points."""
    finite_samples: int = at_least(20, default=200, smoke=60, paper=400)
    """Samples of the finite networks, in half as many dimensions, all of them signal."""
    widths: tuple[int, ...] = at_least(1, default=(1, 2, 3, 5, 10, 20, 40, 70, 100, 200, 400, 1000, 4000),
                                       smoke=(1, 2, 5, 10, 20, 60, 100, 300), paper=(1, 2, 5, 10, 20, 50, 100, 200, 400, 1000, 4000, 20_000, 100_000))
    """Neurons; they should include 2 and the number of samples."""
    mixtures: tuple[float, ...] = at_least(0.0, default=(0.0, 0.1, 1.0))
    """Weights of the first layer's kernel beside the read-out's."""

    def experiments(self):
        compared = [s for s in self.covariate_noise if s > 0]
        dimensions = {"dimension": [self._dimension("2 n", self.compared), self._dimension("n^1.5", self.compared),
                                    self.compared**2 / self.rank]}
        clean = self._experiment(LinearKernel(), self.compared, covariate_noise=0.0, penalty=1.0)
        largest = max(self.samples)
        return {
            "width": Sweep(self._finite(), {"width": [float(w) for w in self.widths], "first_layer": self.mixtures}),
            **{f"growth {n}": Sweep(self._experiment(TangentKernel(), n), {"dimension": [self._dimension(g, n) for g in GROWTH]})
               for n in self.samples},
            "covariate noise": Sweep(self._experiment(TangentKernel(), self.compared), {"covariate_noise": self.covariate_noise}),
            "linear": Sweep(self._experiment(LinearKernel(), self.compared), {"covariate_noise": compared, **dimensions}),
            "linear largest": self._experiment(LinearKernel(), largest),
            "clean ridge": clean,
            "clean ridge largest": self._experiment(LinearKernel(), largest, covariate_noise=0.0, penalty=1.0),
        }  # fmt: skip

    def _dimension(self, growth: str, samples: int) -> float:
        factor, exponent = GROWTH[growth]
        return float(round(factor * samples**exponent))

    def _experiment(self, kernel, samples: int, covariate_noise: float = 1.0, penalty: float = 0.0) -> Experiment:
        task = WideCovariateNoise(self._dimension("n^1.5", samples), samples, self.rank, covariate_noise, self.noise, test_samples=self.test_samples)
        return Experiment(task, kernel, Solved(KernelRidge(penalty)), [SmootherErrors()], precision="float64")

    def _finite(self) -> Experiment:
        task = CovariateNoise(self.finite_samples // 2, self.finite_samples, covariate_noise=0.5, noise=0.7, test_samples=self.test_samples)
        return Experiment(task, FiniteWidth(), Solved(KernelRidge()), [SmootherErrors()], precision="float64")

    def _growth(self, measured, growth: str) -> xr.Dataset:
        """One kind of growth, with the number of samples as a dimension."""
        at: list[xr.Dataset] = [measured[f"growth {n}"].sel(dimension=self._dimension(growth, n)).drop_vars("dimension").isel(time=0) for n in self.samples]
        return xr.concat(at, dim=xr.DataArray(list(self.samples), dims="samples", name="samples"))

    def claims(self, measured, theory):
        growth = {name: self._growth(measured, name) for name in GROWTH}
        worst = max(float(seen.training_error.max()) for seen in growth.values())
        yield Claim("C1", "ReLU kernels fit the noisy labels exactly (largest mean squared training error)", measured=worst, at_most=1e-16)
        for name, where in (("C1b", "n^1.5"), ("C1c", "0.6 n^1.8")):
            yield Claim(f"{name}", f"and yet the excess risk falls with the number of samples n if the dimension is {where} (exponent)",
                        measured=self._slopes(growth[where]), at_most=-0.85)
        ends = growth["2 n"].variance.mean("seed")
        yield Claim("C1d", "with a dimension of 2 n the variance stays (at the most over the fewest samples)",
                    measured=float(ends[-1] / ends[0]), at_least=0.6)

        noisy = measured["covariate noise"].isel(time=0)
        variance = noisy.variance
        yield Claim("C2", "without noise in the covariates the variance is many times larger (over that at noise 1)",
                    measured=variance.sel(covariate_noise=0.0) / variance.sel(covariate_noise=1.0), at_least=5.0)
        risk = noisy.excess_risk.mean("seed")
        best = float(risk.covariate_noise[int(risk.argmin("covariate_noise"))])
        yield Claim("C2b", "the risk is smallest at a noise between that cures and that which blurs (best of those tried)",
                    measured=best, between=(0.5, 1.5), reason="the entry finds 0.6 to 1")
        yield Claim("C2c", "more noise costs again (risk at the most over the smallest risk)",
                    measured=float(risk[-1] / risk.min()), at_least=2.0, reason="the entry gives no number; 2 was set beforehand")

        linear = measured["linear"].isel(time=0)
        wide = self._dimension("n^1.5", self.compared)
        leading = float(leading_variance(self.compared, wide, self.rank, self.noise))
        at_wide = linear.variance.sel(dimension=wide, covariate_noise=slice(None, 1.0)).mean("seed") / leading
        yield Claim("C3", "linear kernel: the variance is the noise times r/n + n/d, whatever the covariates' noise up to 1 (ratio farthest from 1)",
                    measured=self._farthest(at_wide), expected=1.0, tolerance=0.1)
        said = theory["linear"].isel(time=0)
        narrow = (linear.variance.mean("seed") / said.variance).sel(dimension=[self._dimension("2 n", self.compared), wide])
        yield Claim("C3b", "and at d = 2 n too, where r/n + n/d fails, it is the full trace formula's (ratio farthest from 1)",
                    measured=self._farthest(narrow), expected=1.0, tolerance=0.1, reason="the tolerance that the entry gives C3")
        law = {g: leading_variance(self.samples, [self._dimension(g, n) for n in self.samples], self.rank, self.noise) for g in GROWTH}
        over = {g: growth[g].variance.mean("seed") / law[g] for g in GROWTH}
        yield Claim("C3c", "for the ReLU kernel r/n + n/d is an upper bound at d = n^1.5 (largest ratio over n)", measured=float(over["n^1.5"].max()), at_most=1.0)
        yield Claim("C3d", "and of the right order (smallest ratio over n)", measured=float(over["n^1.5"].min()), at_least=0.25,
                    reason="the entry gives no number; a quarter was set beforehand")
        yield Claim("C3f", "and an upper bound for every growth of the dimension (largest ratio)", measured=max(float(o.max()) for o in over.values()), at_most=1.0,
                    reason="the entry saw n = 200, d = n^1.5 only: this kernel fits more functions of the signal than its r linear ones, "
                    "which shows once n/d is small")
        parametric = linear.variance.sel(dimension=self.compared**2 / self.rank, covariate_noise=1.0) / (self.noise**2 * self.rank / self.compared)
        yield Claim("C3e", "with d = n²/r the variance is of the order of the parametric rate (over noise r/n)", measured=parametric,
                    between=(1.0, 2.5), reason="r/n + n/d is twice the rate there; a quarter more for lower orders")

        pairs = (("C4", self.compared, linear.sel(dimension=wide, covariate_noise=1.0), "clean ridge"),
                 ("C4b", max(self.samples), measured["linear largest"].isel(time=0), "clean ridge largest"))  # fmt: skip
        for name, n, interpolator, ridge in pairs:
            ridge = measured[ridge].isel(time=0)
            yield Claim(f"{name}", f"interpolating noisy covariates is ridge regression on clean ones, plus n/d (difference of variances, n = {n})",
                        measured=interpolator.variance - ridge.variance, expected=float(self.noise**2 * n / self._dimension("n^1.5", n)),
                        tolerance=0.1, relative=True)
        law = theory["linear"].isel(time=0).bias.sel(dimension=wide, covariate_noise=1.0)
        yield Claim("C4c", "the interpolator's bias is the clean ridge's and the noise in the signal's own coordinates (over the trace formula's)",
                    measured=linear.bias.sel(dimension=wide, covariate_noise=1.0) / float(law), expected=1.0, tolerance=0.15,
                    reason="the entry gives no number and calls the biases of the same order; 0.15 was set beforehand, for few test points")

        yield from self._width_claims(measured["width"].isel(time=0).excess_risk.median("seed"))

    def _width_claims(self, risk):
        n = self.finite_samples
        small, second = self.mixtures[1], float(risk.width.sel(width=n, method="nearest"))
        mixed, usual, features = (risk.sel(first_layer=k) for k in (small, self.mixtures[-1], 0.0))
        before = {name: r.sel(width=slice(None, n / 2 - 1)).min() for name, r in (("mixed", mixed), ("usual", usual), ("features", features))}
        peak = mixed.sel(width=2.0)  # s = n
        yield Claim("C5", f"the risk falls from the threshold, as many parameters as samples (mixture {small:g}, risk there over the next minimum)",
                    measured=float(peak / before["mixed"]), at_least=2.0, reason="the entry gives no number (3.1 in its table); 2 was set beforehand")
        yield Claim("C5b", "it rises again as the parameters come near the samples squared (risk at n neurons over that minimum)",
                    measured=float(mixed.sel(width=second) / before["mixed"]), at_least=1.3)
        few = mixed.sel(width=slice(2, n))
        at = float(few.width[int(few.argmin("width"))]) * (n // 2 + 1) / n**2
        yield Claim("C5c", "its minimum is at far fewer parameters than that (parameters over n², up to n neurons)", measured=at, at_most=0.15,
                    reason="the entry has .05 at its minimum; 0.15 was set beforehand")
        yield Claim("C5d", "beyond, it falls once more (widest over n neurons)", measured=float(mixed.isel(width=-1) / mixed.sel(width=second)), at_most=0.8,
                    reason="so the rise ends near n²: what interpolates there is the read-out; the entry has .51")
        yield Claim("C5e", "the usual tangent kernel has no second peak (risk at n neurons over the minimum before)",
                    measured=float(usual.sel(width=second) / before["usual"]), at_most=1.1)
        yield Claim("C5f", "random features alone peak at as many neurons as samples (risk over the minimum before)",
                    measured=float(features.sel(width=second) / before["features"]), at_least=10.0, reason="the entry gives a peak of 1e3, no threshold; 10 was set beforehand")

    def _slopes(self, seen) -> list[float]:
        return [power_law(self.samples, risk).exponent for risk in seen.excess_risk.transpose("seed", "samples").values]

    def _farthest(self, ratio) -> float:
        flat = ratio.values.ravel()
        return float(flat[int(np.argmax(np.abs(np.log(flat))))])

    def figures(self, measured, theory):
        yield Figure("samples", "Excess risk, squared bias and variance of the interpolating ReLU kernel against the number of samples n, for three growths "
                     "of the dimension d; dots are means over seeds. Lines: label noise times r/n + n/d, the linear kernel's variance. Grey: 1/n.", lambda axes: self._draw_samples(axes[0], measured), grid=(1, 3), size=(10.5, 3.0))
        yield Figure("covariate-noise", f"Against the covariates' noise, at n = {self.compared} and d = n^1.5: the ReLU kernel (left) and the linear kernel "
                     "(right). Lines: the trace formula; dashed: label noise times r/n + n/d.", lambda axes: self._draw_noise(axes[0], measured, theory), grid=(1, 2))
        yield Figure("ridge", "Linear interpolation of noisy covariates, split: variance of ridge regression on clean covariates, and n/d.",
                     lambda axes: self._draw_ridge(axes[0][0], measured))
        yield Figure("width", "Excess risk of finite networks' tangent kernels against the number of parameters s, for three weights κ of the first layer's "
                     "kernel (medians over seeds, bars from the lower to the upper quartile). Dashed: s = n and s = n².",
                     lambda axes: self._draw_width(axes[0][0], measured["width"].isel(time=0).excess_risk), size=(5.2, 3.4))

    def _draw_samples(self, axes, measured):
        for axis, name, title in zip(axes, ("excess_risk", "bias", "variance"), ("excess risk", "squared bias", "variance"), strict=True):
            for color, growth in zip(COLORS, GROWTH, strict=False):
                dots(axis, self._growth(measured, growth)[name], "samples", color=color, label=f"d = {growth}", linestyle="" if name == "variance" else ":")
                if name == "variance":
                    n = np.geomspace(min(self.samples), max(self.samples), 40)
                    factor, exponent = GROWTH[growth]
                    axis.plot(n, leading_variance(n, factor * n**exponent, self.rank, self.noise), color=color)
            label(axis, "samples n", title, "ReLU kernel" if axis is axes[1] else "", xlog=True, ylog=True)
            axis.set_xticks(self.samples, [str(n) for n in self.samples])
            axis.xaxis.minorticks_off()
        axes[1].legend(loc="lower left")
        axes[2].set_ylim(4e-3, None)
        n = np.array([min(self.samples), max(self.samples)], float)
        axes[0].plot(n, 0.6 * float(self._growth(measured, "0.6 n^1.8").excess_risk.mean("seed")[0]) * n[0] / n, color="0.6", linewidth=1)

    def _draw_noise(self, axes, measured, theory):
        wide = self._dimension("n^1.5", self.compared)
        relu, linear = measured["covariate noise"].isel(time=0), measured["linear"].isel(time=0).sel(dimension=wide)
        said = theory["linear"].isel(time=0).sel(dimension=wide)
        leading = float(leading_variance(self.compared, wide, self.rank, self.noise))
        for axis, seen, title in ((axes[0], relu, "ReLU kernel"), (axes[1], linear, "linear kernel")):
            seen = seen.sel(covariate_noise=slice(1e-9, None))
            for color, name in zip(COLORS, ("excess_risk", "bias", "variance"), strict=False):
                dots(axis, seen[name], "covariate_noise", color=color, label=name.replace("_", " "), linestyle=":" if axis is axes[0] else "", linewidth=1)
                if axis is axes[1]:
                    lines(axis, said[name], "covariate_noise", color=color)
            axis.axhline(leading, color="0.3", linestyle="--", linewidth=1)
            label(axis, "covariate noise", "error", title, xlog=True, ylog=True)
        key_of_overlay(axes[1], loc="lower right")

    def _draw_ridge(self, axis, measured):
        wide = self._dimension("n^1.5", self.compared)
        parts = ((self.compared, measured["linear"].sel(dimension=wide, covariate_noise=1.0), "clean ridge"),
                 (max(self.samples), measured["linear largest"], "clean ridge largest"))  # fmt: skip
        for place, (n, interpolator, ridge) in enumerate(parts):
            clean, extra = float(over_seeds(measured[ridge].isel(time=0).variance)[0]), self.noise**2 * n / self._dimension("n^1.5", n)
            axis.bar(place, clean, color=COLORS[0], width=0.5, label="clean ridge" if not place else None)
            axis.bar(place, extra, bottom=clean, color=COLORS[5], width=0.5, label="noise × n/d" if not place else None)
            mean, error = over_seeds(interpolator.isel(time=0).variance)
            axis.errorbar([place], [float(mean)], yerr=[float(error)], fmt="o", color="0.0", label="interpolator" if not place else None)
        axis.set_xticks([0, 1], [f"n = {n}" for n, _, _ in parts])
        axis.legend()
        label(axis, "", "variance", "implicit ridge")

    def _draw_width(self, axis, risk):
        n = self.finite_samples
        low, middle, high = (risk.quantile(q, "seed") for q in (0.25, 0.5, 0.75))
        for color, mixture in zip(shades(len(self.mixtures)), self.mixtures, strict=True):
            one = middle.sel(first_layer=mixture)
            bars = [one - low.sel(first_layer=mixture), high.sel(first_layer=mixture) - one]
            parameters = risk.width * (n // 2 + 1 if mixture else 1)
            axis.errorbar(parameters, one, yerr=bars, fmt="o-", color=color, markersize=3, linewidth=1, label=f"κ = {mixture:g}")
        for where in (n, n**2):
            axis.axvline(where, color="0.5", linestyle="--", linewidth=0.8)
        label(axis, "parameters s", "excess risk", f"n = {n}, d = {n // 2}", xlog=True, ylog=True)
        axis.set_ylim(0.3, 3e3)
        axis.legend()
