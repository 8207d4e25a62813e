"""A wide network learns as a linear model in its tangent kernel, which tends to a fixed one: its whole course is a formula."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from armillary.clock import At, Evenly
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least
from armillary.measures import power_law
from armillary.models import MLP
from armillary.probes import EmpiricalTangentKernel, KernelDrift, NetworkOutputs
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, lines, shades
from armillary.rules import SGD, Descent, GradientFlow, Loss
from armillary.study import Claim, Paper, Study
from armillary.tasks.given import GivenSamples
from armillary.theory.kernels import Activation, Dense, Kernel, kernel, relaxation

SUM = Loss(reduction="sum")
"""Half the sum of squares over samples; time and rates are in its units."""

BIAS = 0.1
"""Variance of the biases' part of pre-activations, that of the weights' being 2 (ReLU) or 1.5 (erf)."""

NONE = "ours, set before the run"


def circle(angles) -> np.ndarray:
    """Points of the unit circle."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


@dataclass(frozen=True, kw_only=True)
class NeuralTangentKernel(Study):
    """Under gradient descent a network's outputs follow its neural tangent kernel. In the infinite-width limit the kernel is
    fixed at the start and constant in time, so that training with the squared error is linear: each of the kernel's
    eigenvectors is learned at its own rate, and mean and variance over initial weights are known at any time.

    At finite width the kernel scatters as width^(-1/2) and moves by about 1/width.
    """

    paper: ClassVar = Paper(
        "Neural Tangent Kernel: Convergence and Generalization in Neural Networks",
        authors="Arthur Jacot, Franck Gabriel, Clément Hongler", year=2018, arxiv="1806.07572",
    )  # fmt: skip
    seeds: ClassVar = {"smoke": 2, "desk": 8, "paper": 16}

    shallow: tuple[int, ...] = at_least(4, default=(64, 256, 1024, 4096), smoke=(16,), paper=(64, 256, 1024, 4096, 16_384))
    """Widths with one hidden layer."""
    deep: tuple[int, ...] = at_least(4, default=(32, 64, 128, 256, 512), smoke=(16,), paper=(32, 64, 128, 256, 512, 1024, 2048))
    """Widths with three hidden layers."""
    samples: int = at_least(4, default=16, smoke=6)
    """Training samples on the sphere in four dimensions."""
    steps: int = at_least(10, default=400, smoke=40)
    """Steps of gradient descent on them."""
    learning_rate: float = above(0.0, default=0.02)
    """Learning rate, for the sum of squares."""
    draws: int = at_least(4, default=60, smoke=6, paper=1000)
    """Networks of which a kernel's mean and spread are taken."""
    kernel_widths: tuple[int, int] = at_least(8, default=(64, 256), smoke=(16, 16), paper=(256, 1024))
    """Their widths."""
    ensemble: int = at_least(8, default=100, smoke=8, paper=1000)
    """Networks whose outputs are compared with the infinite ensemble."""
    ensemble_width: int = at_least(8, default=256, smoke=8, paper=1000)
    """Their width."""
    circle_widths: tuple[int, int] = at_least(8, default=(64, 512), smoke=(8, 8), paper=(500, 10_000))
    """Widths of the networks whose kernel is drawn on the circle, before and after training."""

    def experiments(self):
        points = np.sqrt(2) * circle(np.array([0.0, 1.0]))
        pair = GivenSamples(points, np.zeros(2))
        grid = np.linspace(-np.pi, np.pi, 41)[:-1]
        test = circle(grid)
        four = circle(np.array([-2.2, -0.6, 0.5, 2.0]))
        regression = GivenSamples(four, four.prod(axis=1), test, test.prod(axis=1))
        around = GivenSamples(test, test.prod(axis=1))
        still = Descent(steps=0)
        kernels = {
            f"kernels, {phi} {depth} {width}": Experiment(pair, self._model(width, depth, phi), still, [EmpiricalTangentKernel(2)], At((0,)))
            for phi, depth, width in self._kernels()
        }
        flow = GradientFlow(4.0, SUM, 1e-4)
        wide = Experiment(regression, self._model(self.ensemble_width, 2), flow, [NetworkOutputs(len(test))], At((0.0, 0.25, 0.5, 1.0, 2.0, 4.0)))
        turned = Experiment(around, MLP(self.circle_widths[0], 4, "relu", "ntk", gain=1.0, bias_scale=0.1, bias_variance=1.0),
                            Descent(SGD(1.0), 200), [EmpiricalTangentKernel(len(test)), KernelDrift(len(test))], At((0, 200)))  # fmt: skip
        return {
            "three hidden layers": Sweep(self._trained(3), {"width": self.deep}),
            "ensemble": wide,
            "one hidden layer": Sweep(self._trained(1), {"width": self.shallow}),
            "circle": Sweep(turned, {"width": sorted(set(self.circle_widths))}),
            **kernels,
        }

    def _kernels(self) -> list[tuple[str, int, int]]:
        small, large = self.kernel_widths
        return [("relu", 1, large), ("relu", 2, large), ("relu", 3, large), ("relu", 3, small), ("erf", 3, small), ("erf", 3, large)]

    def _model(self, width: int, hidden: int, phi: str = "relu") -> MLP:
        return MLP(width, hidden + 1, phi, "ntk", gain=2.0 if phi == "relu" else 1.5, bias_scale=BIAS**0.5, bias_variance=1.0)

    def _trained(self, hidden: int) -> Experiment:
        inputs = np.random.default_rng(0).normal(size=(self.samples, 4))
        inputs *= 2 / np.linalg.norm(inputs, axis=1, keepdims=True)
        task = GivenSamples(inputs, np.sign(inputs[:, 0] * inputs[:, 1]))
        probes = [EmpiricalTangentKernel(self.samples), KernelDrift(self.samples), NetworkOutputs(self.samples)]
        return Experiment(task, self._model(self.shallow[0], hidden), Descent(SGD(self.learning_rate), self.steps, SUM), probes, Evenly(21))

    def measure(self, name, what, seeds, key, progress):
        # Exponents of single deep networks scatter by a fifth.
        many = {"ensemble": self.ensemble, "circle": max(seeds // 4, 2), "three hidden layers": 3 * seeds}
        return super().measure(name, what, self.draws if name.startswith("kernels") else many.get(name, seeds), key, progress)

    def theory(self):
        """What the theory of wide networks predicts of the ensemble; kernels are formulas."""
        from armillary.prediction import predict

        return {"ensemble": predict(self.experiments()["ensemble"])}

    def _infinite(self, hidden: int) -> np.ndarray:
        """The limit of the kernel on the sphere's samples."""
        task = self._trained(hidden).task
        return kernel(self._model(1, hidden)).ntk(np.asarray(task.train_inputs, float))

    def _residuals(self, seen, hidden: int):
        """Residuals along the limit's eigenvectors, measured and predicted from those at the start; [time, width, seed, mode],
        and the eigenvalues."""
        values, vectors = np.linalg.eigh(self._infinite(hidden))
        targets = np.asarray(self._trained(hidden).task.train_targets)[:, 0]
        residual = (seen.train_outputs.isel(output=0) - xr.DataArray(targets, dims="sample")).transpose("time", "width", "seed", "sample")
        along = residual.values @ vectors[:, ::-1]
        left = relaxation(values[::-1], seen.time.values, "descent", self.learning_rate).left
        return along, left[:, None, None] * along[0], values[::-1]

    def _course_error(self, seen, hidden: int) -> xr.DataArray:
        """Largest distance of the residuals from theory along the way, over their length at the start."""
        found, said, _ = self._residuals(seen, hidden)
        distance = np.linalg.norm(found - said, axis=-1).max(axis=0) / np.linalg.norm(found[0], axis=-1)
        return xr.DataArray(distance, dims=("width", "seed"), coords={"width": seen.width, "seed": seen.seed})

    def _spread(self, seen, hidden: int) -> xr.DataArray:
        """Relative distance of the kernel at the start from its limit, root mean square over seeds."""
        limit = self._infinite(hidden)
        off = (seen.tangent_kernel.isel(time=0) - xr.DataArray(limit, dims=("sample", "other"))) ** 2
        return np.sqrt(off.sum(("sample", "other")).mean("seed")) / np.linalg.norm(limit)

    def claims(self, measured, theory):
        x = np.sqrt(2) * circle(np.array([0.0, 1.0]))
        away, spread = {}, {}
        for phi, depth, width in self._kernels():
            found = measured[f"kernels, {phi} {depth} {width}"].tangent_kernel.isel(time=0)
            error = (found.mean("seed") - kernel(self._model(1, depth, phi)).ntk(x)) / (found.std("seed", ddof=1) / np.sqrt(found.sizes["seed"]))
            away[phi, depth, width], own = float(np.abs(error).max()), found.isel(sample=0, other=0)
            spread[phi, depth, width] = float(own.std("seed", ddof=1) / own.mean("seed"))
        small, large = self.kernel_widths
        yield Claim("C1", f"the mean of networks' kernels is the limit's (largest of {3 * len(away)} deviations, in standard errors)",
                    measured=max(away.values()), at_most=4.0)
        for name, phi in (("C1b", "relu"), ("C1c", "erf")):
            yield Claim(name, f"{phi}: it scatters as width^(-1/2) (relative spread at width {small} over that at {large})",
                        measured=spread[phi, 3, small] / spread[phi, 3, large], between=(1.6, 2.5))
        yield Claim("C1d", f"the more, the deeper (relative spread with 3 hidden layers over that with 1, width {large})",
                    measured=spread["relu", 3, large] / spread["relu", 1, large], at_least=1.2, reason=f"{NONE}; independent layers would give √3 at most")

        drifts = {}
        for name, hidden, words in (("C2", 1, "one hidden layer"), ("C2b", 3, "three hidden layers")):
            seen = measured[words]
            drifts[hidden] = [power_law(seen.width, row).exponent for row in seen.kernel_drift.isel(time=-1).transpose("seed", "width").values]
            yield Claim(name, f"{words}: training moves the kernel by a power of the width, nearly 1/width (exponent)", measured=drifts[hidden], at_most=-0.6)
        for name, hidden, words in (("C2c", 1, "one hidden layer"), ("C2d", 3, "three hidden layers")):
            spreads = self._spread(measured[words], hidden)
            yield Claim(name, f"{words}: the kernel's distance from its limit at the start falls as width^(-1/2) (exponent)",
                        measured=power_law(spreads.width, spreads).exponent, between=(-0.65, -0.35))

        said, seen = theory["ensemble"], measured["ensemble"]
        outputs = seen.test_outputs.isel(output=0)
        error = outputs.std("seed", ddof=1) / np.sqrt(outputs.sizes["seed"])
        grid = slice(None, None, 5)
        deviation = ((outputs.mean("seed") - said.test_outputs.isel(output=0)) / error).isel(test_sample=grid)
        yield Claim("C3", f"the mean of {self.ensemble} trained networks is the formula's, at all times, off the training set (largest deviation, standard errors)",
                    measured=np.abs(deviation).max(), at_most=4.0, reason=f"{NONE}: of 48 numbers that are not independent")
        ratio = (outputs.var("seed", ddof=1) / said.test_outputs_variance).isel(test_sample=grid)
        yield Claim("C3b", "and so is their variance (mean relative error over times and test points)", measured=np.abs(ratio - 1).mean(),
                    at_most=0.2, reason=f"{NONE}: a variance of 100 draws has a standard error of 14 %")
        early, late = said.test_outputs_variance.isel(time=0).mean(), outputs.var("seed", ddof=1).isel(time=-1).mean()
        yield Claim("C3c", "training takes variance away where there are data, not all of it (variance left, mean over the circle)",
                    measured=late / early, between=(0.001, 0.5), reason=NONE)

        course = {hidden: self._course_error(measured[words], hidden) for hidden, words in ((1, "one hidden layer"), (3, "three hidden layers"))}
        yield Claim("C4", f"each eigenvector's residual decays as (1 - ηλ)^t (largest error, one hidden layer, width {max(self.shallow)})",
                    measured=course[1].sel(width=max(self.shallow)), at_most=0.03)
        for name, hidden in (("C4b", 1), ("C4c", 3)):
            exponents = [power_law(course[hidden].width, row).exponent for row in course[hidden].transpose("seed", "width").values]
            yield Claim(name, f"{hidden} hidden layer{'s' * (hidden > 1)}: the error of that falls with the width (exponent)", measured=exponents, between=(-0.8, -0.3),
                        reason=f"{NONE}, around the -1/2 of the kernel's scatter at the start")
        seen = measured["one hidden layer"].sel(width=max(self.shallow))
        found, _, values = self._residuals(measured["one hidden layer"], 1)
        share = np.abs(found[-1, -1]) / np.abs(found[0, -1])
        ahead = np.mean(share[:, : len(values) // 2] < share[:, len(values) // 2 :])
        yield Claim("C4d", "what has large eigenvalues is learned first (share of pairs, one of the first half and one of the second, in that order)",
                    measured=ahead, at_least=0.9, reason=NONE)

        ten = circle(2 * np.pi * np.arange(10) / 10)
        rank = lambda phi, hidden, bias: float(np.linalg.matrix_rank(self._plain(phi, hidden, bias).ntk(ten), tol=1e-6))
        yield Claim("C5", "no polynomial: the kernel has full rank on ten points of the circle (ReLU, two hidden layers)", measured=rank("relu", 2, 0.0), expected=10.0, tolerance=0.0)
        yield Claim("C5b", "with biases one hidden layer is enough", measured=rank("relu", 1, BIAS), expected=10.0, tolerance=0.0)
        yield Claim("C5c", "without them, antipodal points make it singular: 7", measured=rank("relu", 1, 0.0), expected=7.0, tolerance=0.0,
                    reason="against the usual reading of the theorem, which needs more than one hidden layer or biases")
        yield Claim("C5d", "a polynomial's kernel is of low rank (square, one hidden layer: 3)", measured=rank("quadratic", 1, 0.0), expected=3.0, tolerance=0.0)

    def _plain(self, phi: str, hidden: int, bias: float) -> Kernel:
        return Kernel(*[layer for _ in range(hidden) for layer in (Dense(1.0, bias), Activation(phi))], Dense(1.0, bias))

    def figures(self, measured, theory):
        yield Figure("circle", "The tangent kernel between a point of the unit circle and (1, 0) against the angle between them, for networks of "
                     "four weight layers, before (thin) and after (dashed) 200 steps on f = x₁x₂; black: the limit.",
                     lambda axes: self._draw_circle(axes[0], measured), grid=(1, 2))
        yield Figure("ensemble", f"Outputs on the circle of networks trained on four points (crosses), at three times: mean and two standard deviations "
                     f"of the infinite ensemble (line, band), and {self.ensemble} networks of width {self.ensemble_width} (dots, bars of two standard deviations).",
                     lambda axes: self._draw_ensemble(axes[0], measured, theory), grid=(1, 3), size=(10.0, 3.0))
        yield Figure("residuals", f"Residuals along the kernel's eigenvectors against steps, root mean square over networks of one hidden layer: dots measured, "
                     f"lines (1 - ηλ)^t. Left: width {min(self.shallow)}. Right: width {max(self.shallow)}.",
                     lambda axes: self._draw_residuals(axes[0], measured), grid=(1, 2))
        yield Figure("widths", "Against the width: how far training moves the kernel, its distance from its limit at the start, and the largest error of "
                     "the predicted course (over the residual at the start); bars: one standard error.",
                     lambda axes: self._draw_widths(axes[0], measured), grid=(1, 2))

    def _draw_circle(self, axes, measured):
        grid = np.linspace(-np.pi, np.pi, 41)[:-1]
        at = int(np.argmin(np.abs(grid)))
        limit = self._limit_of_circle(circle(grid))
        for axis, width in zip(axes, self.circle_widths, strict=True):
            seen = measured["circle"].tangent_kernel.sel(width=width).isel(sample=at)
            for seed in seen.seed.values:
                for moment, style in ((0, "-"), (-1, "--")):
                    axis.plot(grid, seen.sel(seed=seed).isel(time=moment), style, color=COLORS[int(seed)], linewidth=0.8, zorder=2)
            axis.plot(grid, limit[at], color="0.0", linewidth=1.6, zorder=3, label="limit (theory)")
            axis.plot([], [], color="0.4", linewidth=0.8, label="before")
            axis.plot([], [], "--", color="0.4", linewidth=0.8, label="after")
            label(axis, "angle", "tangent kernel", f"width {width}")
            axis.set_xticks([-np.pi, 0, np.pi], ["-π", "0", "π"])
        axes[0].legend(loc="upper left")
        top = max(axis.get_ylim()[1] for axis in axes)
        for axis in axes:
            axis.set_ylim(0, top)

    def _limit_of_circle(self, points) -> np.ndarray:
        return kernel(MLP(1, 4, "relu", "ntk", gain=1.0, bias_scale=0.1, bias_variance=1.0)).ntk(points)

    def _draw_ensemble(self, axes, measured, theory):
        grid = np.linspace(-np.pi, np.pi, 41)[:-1]
        four = np.array([-2.2, -0.6, 0.5, 2.0])
        outputs, said = measured["ensemble"].test_outputs.isel(output=0), theory["ensemble"]
        for axis, time in zip(axes, (0.0, 0.5, 4.0), strict=True):
            mean, deviation = said.test_outputs.isel(output=0).sel(time=time).values, np.sqrt(said.test_outputs_variance.sel(time=time).values)
            axis.fill_between(grid, mean - 2 * deviation, mean + 2 * deviation, color=COLORS[0], alpha=0.2, linewidth=0)
            axis.plot(grid, mean, color=COLORS[0], label="infinite ensemble")
            found = outputs.sel(time=time)
            axis.errorbar(grid[::2], found.mean("seed")[::2], 2 * found.std("seed", ddof=1)[::2], fmt="o", color=COLORS[1], markersize=3, elinewidth=0.8, label="networks")
            axis.plot(four, np.cos(four) * np.sin(four), "x", color="0.0", zorder=4, label="samples")
            label(axis, "angle", "output" if time == 0.0 else "", f"time {time:g}")
            axis.set_xticks([-np.pi, 0, np.pi], ["-π", "0", "π"])
            axis.set_ylim(-4.8, 4.8)
        axes[0].legend(loc="lower left", fontsize=7)

    def _draw_residuals(self, axes, measured):
        seen = measured["one hidden layer"]
        found, said, values = self._residuals(seen, 1)
        chosen = [0, 1, 3, 6, len(values) - 1] if len(values) > 7 else range(len(values))
        mean = lambda a: np.sqrt((a**2).mean(axis=0))
        for axis, index in ((axes[0], 0), (axes[1], -1)):
            for color, mode in zip(shades(len(chosen)), chosen, strict=True):
                axis.plot(seen.time, mean(said[:, index, :, mode].T), color=color, label=f"λ = {values[mode]:.2g}")
                axis.plot(seen.time, mean(found[:, index, :, mode].T), "o", color=color, markersize=3)
            label(axis, "step", "residual", f"width {int(seen.width[index])}", ylog=True)
            axis.set_ylim(1e-3, 300)
        key_of_overlay(axes[1], loc="upper right", fontsize=7, ncols=2)

    def _draw_widths(self, axes, measured):
        for axis, (words, hidden) in zip(axes, (("one hidden layer", 1), ("three hidden layers", 3)), strict=True):
            seen = measured[words]
            shown = (("kernel's motion", seen.kernel_drift.isel(time=-1)), ("course's error", self._course_error(seen, hidden)))
            for color, (name, values) in zip(COLORS, shown, strict=False):
                dots(axis, values, "width", color=color, label=name)
            lines(axis, self._spread(seen, hidden), "width", color=COLORS[2], marker="s", markersize=3, label="kernel's scatter")
            first = float(seen.kernel_drift.isel(time=-1, width=0).mean())
            for power, style in ((-1.0, ":"), (-0.5, "--")):
                axis.plot(seen.width, first * (seen.width / seen.width[0]) ** power, style, color="0.6", linewidth=0.9, zorder=1, label=f"width^{power:g}")
            label(axis, "width", "relative size", words, xlog=True, ylog=True)
            axis.set_xticks(seen.width.values, [str(w) for w in seen.width.values])
            axis.minorticks_off()
        axes[0].legend(fontsize=7, loc="lower left")
