"""Test error peaks twice as a network's tangent kernel grows: where parameters, and where neurons, equal samples."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from armillary.clock import At
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least
from armillary.measures import rank_correlation
from armillary.models.activations import Centred
from armillary.models.ensemble import Ensemble
from armillary.models.tangent_kernel import FiniteWidth
from armillary.probes.smoother import EnsembleErrors
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, shades
from armillary.rules.solved import Solved
from armillary.rules.solvers import KernelRidge
from armillary.study import Claim, Paper, Study
from armillary.tasks.covariate_noise import CovariateNoise
from armillary.theory.random_features import activation_constants, two_layer_errors

WIDTHS = (0.15, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0)
"""Neurons over samples, around the second peak."""

NO_NUMBER = "ours, set before the run, knowing the entry's curves"


@dataclass(frozen=True, kw_only=True)
class TripleDescent(Study):
    """The test error of regression with the tangent kernel of a two-layer network at its random initialisation has an
    exact limit for samples, inputs and width in proportion. It falls three times as the width grows: it peaks where
    parameters and samples are equally many, and again, if the first layer's tangents count little, where neurons and samples are.

    Averaging networks removes the second peak, ridge and larger read-out weights do so too, and infinite width is best. A
    formula for finite numbers of parameters (ours) has both peaks on one curve.
    """

    paper: ClassVar = Paper(
        "The Neural Tangent Kernel in High Dimensions: Triple Descent and a Multi-Scale Theory of Generalization",
        authors="Ben Adlam, Jeffrey Pennington", year=2020, arxiv="2008.06786",
    )  # fmt: skip
    seeds: ClassVar = {"smoke": 2, "desk": 5, "paper": 100}

    dimension: int = at_least(40, default=100, smoke=40, paper=512)
    """Inputs, where errors are followed over widths."""
    limit_dimension: int = at_least(40, default=400, smoke=40, paper=1000)
    """Inputs where the limit is checked."""
    sizes: tuple[int, ...] = at_least(40, default=(50, 100, 200), smoke=(40,), paper=(64, 128, 256, 512))
    """Inputs over which the deviation from the limit should shrink, up to the limit's."""
    ratio: float = above(0.8, default=2.0)
    """Samples over inputs, in all of these."""
    noise: float = above(0.0, default=0.2)
    """Variance of the label noise; that of the target is 1."""
    penalty: float = above(0.0, default=1e-6)
    """Ridge penalty γ of nearly interpolating fits."""
    large_penalty: float = above(0.0, default=0.1)
    """One at which no peak is left."""
    scales: tuple[float, ...] = above(0.0, default=(0.01, 0.05, 1.0), smoke=(0.01, 1.0))
    """Variances of the read-out weights, the smallest first: they weigh the first layer's tangents."""
    few_inputs: int = at_least(40, default=50, smoke=40)
    """Inputs of the network that is followed over all scales."""
    many_samples: int = at_least(80, default=250, smoke=80)
    """Its samples."""
    few_widths: tuple[int, ...] = at_least(1, default=(1, 2, 3, 4, 5, 6, 8, 12, 20, 40, 60, 80, 100, 150, 200, 250, 500, 1000, 2500),
                                           smoke=(3, 20, 80, 400), paper=(1, 2, 3, 4, 5, 6, 8, 12, 20, 40, 60, 80, 100, 150, 200, 250, 300, 500, 1000, 2500, 10_000))
    """Its neurons."""
    middle_scale: float = above(0.0, default=0.05)
    """The variance of its read-out weights."""
    networks: int = at_least(2, default=10, smoke=3)
    """Networks whose predictions are averaged."""
    tests: int = at_least(10, default=500, smoke=200, paper=5000)
    """Test points."""

    def experiments(self):
        widths = [w * self._samples for w in WIDTHS]
        few = [w * self._samples for w in (0.3, 1.0, 5.0)]
        peaked = self._experiment("tanh", self.scales[0], self.dimension)
        most = self._experiment("erf", 1.0, self.limit_dimension, initial=True)
        least = self._experiment("tanh", self.scales[0], self.limit_dimension)
        over = {"width": [w * self.ratio * self.limit_dimension for w in (0.3, 1.0, 3.0)]}
        return {
            "limit": Sweep(most, over),
            "limit, weak first layer": Sweep(least, over),
            **{f"size {size}": self._sized(size) for size in self.sizes},
            "peaks": Sweep(peaked, {"first_layer": self.scales, "width": widths}),
            "ridge": Sweep(self._experiment("tanh", self.scales[0], self.dimension, self.large_penalty), {"width": widths}),
            "rectified": Sweep(self._experiment(Centred("relu"), 1.0, self.dimension), {"width": few}),
            "ensemble": Sweep(self._experiment("tanh", self.scales[0], self.dimension, count=self.networks), {"width": few}),
            "scales": Sweep(self._experiment("tanh", self.middle_scale, self.few_inputs, samples=self.many_samples), {"width": self.few_widths}),
        }  # fmt: skip

    @property
    def _samples(self) -> int:
        return round(self.ratio * self.dimension)

    def _experiment(self, activation, scale, dimension, penalty=None, samples=None, count=1, initial=False) -> Experiment:
        samples = round(self.ratio * dimension) if samples is None else samples
        task = CovariateNoise(dimension, samples, None, 0.0, self.noise**0.5, test_samples=self.tests)
        network = FiniteWidth(float(samples), scale, 1.0, activation, "gaussian")
        model = network if count == 1 else Ensemble(network, count)
        rule = Solved(KernelRidge(self.penalty if penalty is None else penalty, definite=True))
        return Experiment(task, model, rule, [EnsembleErrors(initial)], At((0,)), precision="float64")

    def _sized(self, size: int) -> Sweep:
        return Sweep(self._experiment("erf", 1.0, size), {"width": [0.3 * self.ratio * size]})

    def measure(self, name, what, seeds, key, progress):
        draws = 4 * seeds if name.startswith("size") else 2 * seeds if name == "scales" else seeds
        draws = max(2, 3 * seeds // 4) if name.startswith("limit") or name == "ensemble" else draws
        return super().measure(name, what, draws, key, progress)

    def _said(self, activation, scale, dimension, width, samples=None, penalty=None, **choice):
        samples = self.ratio * dimension if samples is None else samples
        return two_layer_errors(activation_constants(activation), samples, dimension, width, self.penalty if penalty is None else penalty,
                                self.noise**0.5, first_layer=scale, **choice)  # fmt: skip

    def _limit(self, activation, scale, widths, dimension=None, **choice) -> np.ndarray:
        """The paper's limit of the excess error, at each width."""
        dimension = self.limit_dimension if dimension is None else dimension
        return np.array([self._said(activation, scale, dimension, w, finite=False, **choice).excess for w in widths])

    def claims(self, measured, theory):
        alone = {name: seen.member_risk.isel(time=0) for name, seen in measured.items()}
        yield from self._formula_claims(measured, alone, theory)
        yield from self._peak_claims(alone)
        yield from self._scale_claims(alone["scales"], theory["scales"].member_risk.isel(time=0))
        yield from self._width_claims(alone)
        yield from self._average_claims(measured, alone, theory)

    def _formula_claims(self, measured, alone, theory):
        where = f"{self.limit_dimension} inputs"
        for name, words, run, said in (
            ("C1", "erf, read-out variance 1", "limit", ("erf", 1.0)),
            ("C1b", f"tanh, read-out variance {self.scales[0]:g}", "limit, weak first layer", ("tanh", self.scales[0])),
        ):
            mean = alone[run].mean("seed")
            off = np.abs(mean.values / self._limit(*said, mean.width.values) - 1).max()
            yield Claim(f"{name}", f"the limit's formula gives the test error: {words}, {where}, widths 0.3, 1 and 3 times the samples (largest relative error)",
                        measured=off, at_most=0.08, reason="the entry's 8 %")
        ratios = self._over_limit(alone)
        yield Claim("C1c", "the deviation from it shrinks as inputs and samples grow (rank correlation of error over formula with the inputs, 0.3 neurons a sample)",
                    measured=rank_correlation(range(len(ratios)), ratios), at_most=-0.99)
        finite = [float(alone[f"size {s}"].mean() / theory[f"size {s}"].member_risk.mean()) for s in self.sizes]
        yield Claim("C1d", "because parameters are finite in number: the formula that counts them gives it at every size (largest relative error)",
                    measured=np.abs(np.array(finite) - 1).max(), at_most=0.1, reason="an addition; set after the entry's simulations were known")
        off = alone["rectified"].mean("seed") / theory["rectified"].member_risk.isel(time=0) - 1
        yield Claim("C1e", "and for a centred ReLU (largest relative error)", measured=np.abs(off).max(), at_most=0.12,
                    reason=f"ours, set before the run: the entry finds 6 to 8 % at {self.dimension} inputs for erf")
        seen = measured["limit"].initial_risk.isel(time=0).mean("seed")
        off = np.abs(seen.values / self._limit("erf", 1.0, seen.width.values, initial=True) - 1).max()
        yield Claim("C1f", "with the initial network in the predictions too (largest relative error)", measured=off, at_most=0.12,
                    reason="ours: wider than without, because the initial network's size scatters more over draws")

    def _over_limit(self, alone) -> list[float]:
        sizes = [*self.sizes, self.limit_dimension]
        seen = [alone[f"size {s}"].isel(width=0) for s in self.sizes] + [alone["limit"].isel(width=0)]
        return [float(one.mean()) / self._limit("erf", 1.0, [0.3 * self.ratio * s], s)[0] for one, s in zip(seen, sizes, strict=True)]

    def _peak_claims(self, alone):
        peaks, samples = alone["peaks"].mean("seed"), self._samples
        weak = peaks.isel(first_layer=0)
        low = 1 - 1 / self.ratio
        yield Claim("C2", f"a weak first layer (read-out variance {self.scales[0]:g}): a second peak between neurons = samples - inputs and neurons = samples (neurons over samples at it)",
                    measured=float(weak.width[int(np.argmax(weak.values))]) / samples, between=(low, 1.0))
        yield Claim("C2b", "it is high (error over that at 5 neurons a sample)", measured=weak.max() / weak.isel(width=-1), at_least=2.0, reason=NO_NUMBER)
        shift = [float(np.argmax([self._said("tanh", s, self.dimension, w * samples).excess for w in np.linspace(0.4, 1.2, 41)])) for s in self.scales[:2]]
        yield Claim("C2c", "the stronger the first layer, the sooner it comes, by the formula (shift in neurons over samples)",
                    measured=0.02 * (shift[1] - shift[0]), at_most=-0.02, reason="an addition; one step of the grid")
        strong = peaks.isel(first_layer=-1)
        yield Claim("C2d", f"none at read-out variance {self.scales[-1]:g} (largest error over that at the next narrower width)",
                    measured=_steepest(strong), at_most=1.0)
        yield Claim("C2e", f"nor with a ridge of {self.large_penalty:g} (the same)", measured=_steepest(alone["ridge"].mean("seed")), at_most=1.0)

    def _scale_claims(self, seen, said):
        middle = seen.median("seed")
        parameters, neurons = middle.width.values * self.few_inputs / self.many_samples, middle.width.values / self.many_samples
        first = middle.values[(parameters > 0.5) & (parameters < 4)]
        at = parameters[(parameters > 0.5) & (parameters < 4)][int(np.argmax(first))]
        dip = middle.values[(neurons >= 0.16) & (neurons <= 0.4)].min()
        second = middle.values[(neurons >= 0.6) & (neurons <= 1.2)].max()
        yield Claim("C3", "over all widths: the first peak is where parameters and samples are equally many (inputs x neurons over samples)", measured=at, between=(0.8, 1.4))
        yield Claim("C3b", "its height over the dip that follows", measured=first.max() / dip, at_least=5.0, reason="medians over draws: their mean has a heavy tail here")
        yield Claim("C3c", "a second peak where neurons and samples are (its height over the dip)", measured=second / dip, at_least=1.25)
        yield Claim("C3d", f"and a third descent (error at {middle.width.values[-1]:g} neurons over the dip)", measured=middle.values[-1] / dip, at_most=0.5)
        off = np.abs(middle / said - 1).values[parameters > 2]
        yield Claim("C3e", "one formula has all three (largest relative error beyond 2 parameters a sample)", measured=off.max(), at_most=0.25,
                    reason="ours, heuristic: neither the paper's nor the entry's; the limit was set after the entry's simulations were known")

    def _width_claims(self, alone):
        wide, infinite = (self._said("erf", 1.0, self.dimension, w).excess for w in (1e7, np.inf))
        yield Claim("C4", "infinite width, in closed form, is the limit of many neurons (at 1e7 a relative difference)", measured=abs(wide / infinite - 1), at_most=1e-5)
        gains = [self._said("tanh", s, self.dimension, w * self._samples).excess / self._said("tanh", s, self.dimension, np.inf).excess
                 for s in self.scales for w in np.geomspace(0.01, 100, 25)]  # fmt: skip
        yield Claim("C4b", "and is best, with noisy labels: by the formula (smallest error of any width over infinite width's)", measured=min(gains), at_least=1.0)
        seen = [m.mean("seed") for m in (alone["peaks"], alone["ridge"], alone["scales"])]
        yield Claim("C4c", "as measured: the widest network is the best (its error over the smallest of any width, the worst of all curves)",
                    measured=max(float((m.isel(width=-1) / m.min("width")).max()) for m in seen), at_most=1.0)

    def _average_claims(self, measured, alone, theory):
        together, single = measured["ensemble"].ensemble_risk.isel(time=0), alone["ensemble"]
        peak = {"width": float(self._samples)}
        yield Claim("C5", f"averaging {self.networks} networks removes the second peak (error over a single network's, there)",
                    measured=together.sel(peak) / single.sel(peak), at_most=0.4)
        off = together.mean("seed") / theory["ensemble"].ensemble_risk.isel(time=0) - 1
        yield Claim("C5b", "the formula for averages gives their error (largest relative error)", measured=np.abs(off).max(), at_most=0.1,
                    reason=f"an addition: the split by sources; ours, set before the run from C1's 8 % and {self.dimension} inputs")
        infinite = [self._said("tanh", self.scales[0], self.dimension, w * self._samples).ensemble for w in np.geomspace(0.3, 20, 25)]
        yield Claim("C5c", "infinitely many have no peak, by the formula (largest error over that of the widest)", measured=max(infinite) / infinite[-1], at_most=1.05, reason=NO_NUMBER)
        cost = measured["limit"].initial_risk.isel(time=0) - alone["limit"]
        yield Claim("C5d", "the initial network's output costs error at every width (least mean difference)",
                    measured=cost.isel(width=int(np.argmin(cost.mean("seed").values))), at_least=0.0)
        rise = self._limit("erf", 1.0, [self._samples, 5 * self._samples], self.dimension, initial=True)
        yield Claim("C5e", "with it the error rises with width, by the formula (5 neurons a sample over 1)", measured=rise[1] / rise[0], at_least=1.0)

    def figures(self, measured, theory):
        yield Figure("triple-descent", "Excess test error against the number of parameters. Line: the formula that counts parameters; dashed: "
                     "the paper's limit of many; dots: medians over draws.", lambda axes: self._draw_scales(axes[0][0], measured), size=(6.2, 3.4))
        yield Figure("second-peak", "Left: the second peak fades as read-out weights grow, and with ridge. Right: at "
                     f"{self.limit_dimension} inputs measured errors are the limit's; with the initial network in the predictions they rise with width.",
                     lambda axes: self._draw_peaks(axes[0], measured), grid=(1, 2))
        yield Figure("averaging", "Left: what the error at the second peak is made of, by the formula. Right: averages of networks have no peak.",
                     lambda axes: self._draw_sources(axes[0], measured), grid=(1, 2))
        yield Figure("finite-size", "Measured error over the paper's limit at 0.3 neurons a sample; the line counts parameters.",
                     lambda axes: self._draw_sizes(axes[0][0], measured))

    def _draw_scales(self, axis, measured):
        inputs, samples = self.few_inputs, self.many_samples
        widths = np.unique(np.concatenate([np.geomspace(1, 12, 60), np.geomspace(12, max(self.few_widths), 60)]))
        said = [self._said("tanh", self.middle_scale, inputs, w, samples).excess for w in widths]
        axis.plot(widths * inputs, said, color=COLORS[0], zorder=2, label="counting parameters")
        axis.plot(widths * inputs, self._limit("tanh", self.middle_scale, widths, inputs, samples=samples), "--", color="0.5", label="limit of many parameters")
        seen = measured["scales"].member_risk.isel(time=0)
        middle = seen.median("seed")
        quarter = [np.abs(seen.quantile(q, "seed") - middle) for q in (0.25, 0.75)]
        axis.errorbar(middle.width * inputs, middle, yerr=quarter, fmt="o", markersize=3.5, elinewidth=0.8, color=COLORS[1], zorder=3, label="measured")
        label(axis, "parameters", "excess test error", xlog=True, ylog=True)
        top = axis.get_ylim()[1]
        for at, words in ((samples, "parameters\n= samples"), (samples * inputs, "neurons\n= samples")):
            axis.axvline(at, color="0.7", linestyle=":", linewidth=1)
            axis.text(at * 1.08, top * 0.95, words, fontsize=7, va="top", color="0.4")
        axis.legend(loc="center left", bbox_to_anchor=(0.33, 0.68))

    def _draw_peaks(self, axes, measured):
        grid = np.geomspace(0.13, 6, 100)
        curves = [(s, self.penalty, measured["peaks"].member_risk.sel(first_layer=s)) for s in self.scales]
        curves.append((self.scales[0], self.large_penalty, measured["ridge"].member_risk))
        for color, (scale, penalty, seen) in zip([*shades(len(self.scales)), COLORS[1]], curves, strict=True):
            said = [self._said("tanh", scale, self.dimension, w * self._samples, penalty=penalty).excess for w in grid]
            words = f"variance {scale:g}" if penalty == self.penalty else f"{scale:g}, ridge {penalty:g}"
            axes[0].plot(grid, said, color=color, label=words)
            dots(axes[0], _per_sample(seen, self._samples), "width", color=color)
        _over_width(axes[0], f"{self.dimension} inputs, tanh")
        key_of_overlay(axes[0], fontsize=7)
        samples = self.ratio * self.limit_dimension
        runs = (("limit", "member_risk", ("erf", 1.0), {}, "erf, 1"), ("limit", "initial_risk", ("erf", 1.0), {"initial": True}, "erf, 1, initial output"),
                ("limit, weak first layer", "member_risk", ("tanh", self.scales[0]), {}, f"tanh, {self.scales[0]:g}"))  # fmt: skip
        for color, (run, which, said, choice, words) in zip(COLORS, runs, strict=False):
            axes[1].plot(grid, self._limit(*said, grid * samples, **choice), color=color, label=words)
            dots(axes[1], _per_sample(measured[run][which], samples), "width", color=color)
        _over_width(axes[1], f"{self.limit_dimension} inputs")
        key_of_overlay(axes[1], fontsize=7)

    def _draw_sources(self, axes, measured):
        grid = np.geomspace(0.16, 6, 100)
        said = [self._said("tanh", self.scales[0], self.dimension, w * self._samples) for w in grid]
        parts = (("bias", "bias"), ("features", "networks"), ("samples", "samples"), ("noise_samples", "label noise"),
                 ("features_samples", "networks x samples"), ("noise_features", "networks x label noise"))  # fmt: skip
        axes[0].stackplot(grid, [[getattr(one, name) for one in said] for name, _ in parts], labels=[words for _, words in parts],
                          colors=[*COLORS[:6]], alpha=0.85, linewidth=0)  # fmt: skip
        _over_width(axes[0], "sources")
        axes[0].legend(fontsize=6.5, loc="upper right")
        seen = measured["ensemble"]
        curves = ((1, "single network", seen.member_risk), (self.networks, f"mean of {self.networks}", seen.ensemble_risk), (np.inf, "mean of all", None))
        for color, (count, words, dotted) in zip(COLORS, curves, strict=False):
            axes[1].plot(grid, [one.of_ensemble(count) for one in said], color=color, label=words)
            if dotted is not None:
                dots(axes[1], _per_sample(dotted, self._samples), "width", color=color)
        _over_width(axes[1], "averaging")
        key_of_overlay(axes[1], fontsize=7, loc="upper right")

    def _draw_sizes(self, axis, measured):
        alone = {name: seen.member_risk.isel(time=0) for name, seen in measured.items()}
        sizes = np.array([*self.sizes, self.limit_dimension])
        errors = [float(alone[f"size {s}"].std() / alone[f"size {s}"].size ** 0.5 / alone[f"size {s}"].mean()) for s in self.sizes]
        last = alone["limit"].isel(width=0)
        ratios = np.array(self._over_limit(alone))
        axis.errorbar(sizes, ratios, yerr=ratios * [*errors, float(last.std() / last.size**0.5 / last.mean())], fmt="o", color=COLORS[1], zorder=3)
        grid = np.geomspace(sizes[0] * 0.9, sizes[-1] * 1.1, 30)
        width = 0.3 * self.ratio
        axis.plot(grid, [self._said("erf", 1.0, n, width * n).excess / self._limit("erf", 1.0, [width * n], n)[0] for n in grid], color=COLORS[0])
        axis.axhline(1, color="0.7", linestyle=":")
        label(axis, "inputs", "error / limit", "0.3 neurons a sample", xlog=True)
        _plain_ticks(axis, sizes.tolist())
        key_of_overlay(axis)


def _over_width(axis, title):
    label(axis, "neurons / samples", "excess test error", title, xlog=True)
    axis.set_ylim(0, None)
    _plain_ticks(axis, (0.2, 0.5, 1, 2, 5))


def _plain_ticks(axis, values):
    axis.set_xticks(values, [f"{value:g}" for value in values])
    axis.minorticks_off()


def _steepest(curve) -> float:
    """Largest ratio of an error to that at the next narrower width."""
    return float((curve.values[1:] / curve.values[:-1]).max())


def _per_sample(seen, samples):
    seen = seen.isel(time=0)
    return seen.assign_coords(width=seen.width / samples)
