"""The scale of initial weights decides between kernel and rich learning, and which solution is found."""

from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import numpy as np
import pandas as pd
import xarray as xr

from armillary.clock import At, LogSpaced
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least
from armillary.measures import crossing_time, rank_correlation
from armillary.models import MLP, MLPNetwork, Model
from armillary.models.diagonal import DiagonalLinear
from armillary.prediction import predict
from armillary.probes import Accuracy, Losses
from armillary.probes.diagonal import Coefficients, KernelDistance, SolutionNorms
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, lines, shades
from armillary.rules import SGD, Descent, GradientFlow, Loss
from armillary.study import Claim, Paper, Study
from armillary.tasks import Digits
from armillary.tasks.sparse import SparseRegression
from armillary.theory.implicit_bias import least_penalty, minimum_l1, minimum_l2, penalty, problem_data

SUM = Loss(reduction="sum")
"""Half the paper's loss: the path is the same, its time twice as long."""


class Twins(eqx.Module):
    """The difference of two equal networks, both trained."""

    plus: MLPNetwork
    minus: MLPNetwork

    def __call__(self, x):
        return self.plus(x) - self.minus(x)


class Unbiased(Model):
    """A network minus its twin, so that it starts at 0 at any scale, as u = v does."""

    inner: MLP = MLP()

    def __call__(self, key, inputs, outputs):
        one = self.inner(key, inputs, outputs)
        return Twins(one, one)


@dataclass(frozen=True, kw_only=True)
class KernelRich(Study):
    """The scale of the initial weights moves gradient flow between a kernel regime, whose limit is the solution of
    smallest l2 norm, and a rich regime with another bias, here towards the smallest l1 norm. For diagonal linear
    networks the whole way between is the minimum of an explicit penalty.

    Rich learning finds a sparse teacher from few samples and takes longer, by the logarithm of the scale; depth
    sharpens the transition. In ReLU networks the scale changes the kernel's movement in the same way.
    """

    paper: ClassVar = Paper(
        "Kernel and rich regimes in overparametrized models",
        authors="Blake Woodworth, Suriya Gunasekar, Jason D. Lee, Edward Moroshko, Pedro Savarese, Itay Golan, "
        "Daniel Soudry, Nathan Srebro", year=2020, arxiv="2002.09277",
    )  # fmt: skip
    seeds: ClassVar = {"smoke": 2, "desk": 3, "paper": 8}

    dimension: int = at_least(20, default=100, smoke=40, paper=1000)
    """Inputs of the sparse regression."""
    sparsity: int = at_least(1, default=5, smoke=2)
    """Non-zero coefficients of the teacher."""
    samples: int = at_least(4, default=40, smoke=16, paper=100)
    """Training samples."""
    problems: int = at_least(2, default=8, smoke=2, paper=16)
    """Draws of the regression."""
    scales: tuple[float, ...] = above(0.0, default=(3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 1e-3), smoke=(3.0, 0.1, 1e-3))
    """Initial weights alpha of the simulated networks, descending; theory goes on to `smallest`."""
    smallest: float = above(0.0, default=1e-5)
    """The smallest scale in theory."""
    deep_scales: tuple[float, ...] = above(0.0, default=(1.0, 0.3, 0.1), smoke=(0.3,))
    """Initial weights of the networks of depth 3."""
    longest: float = above(0.0, default=300.0, smoke=50.0)
    """Flow time at small scales; large ones need 1/alpha²."""
    counts: tuple[int, ...] = at_least(2, default=(20, 30, 40, 60), smoke=(16,), paper=(30, 60, 100, 200, 400))
    """Numbers of samples of the map over scale and samples."""
    waits: tuple[float, ...] = above(0.0, default=(0.1, 0.01, 1e-3, 1e-4, 1e-5), smoke=(0.01, 1e-4))
    """Initial weights whose learning time is measured."""
    digits: int = at_least(10, default=200, smoke=40, paper=1000)
    """Digits that the ReLU network learns (odd or even)."""
    width: int = at_least(1, default=50, smoke=10, paper=500)
    """Hidden units of each twin."""
    relu_scales: tuple[float, ...] = above(0.0, default=(0.1, 0.3, 1.0, 3.0), smoke=(0.3, 3.0))
    """Initial weights of the ReLU network, over the usual ones."""
    steps: int = at_least(100, default=2000, smoke=100)
    """Descent steps of the ReLU network."""

    def experiments(self):
        made: dict[str, Experiment | Sweep] = {f"scale {a:g}": Sweep(self._flow(a), {"problem": self._numbers}) for a in self.scales}
        made |= {f"deep scale {a:g}": Sweep(self._flow(a, depth=3), {"problem": self._numbers}) for a in self.deep_scales}
        others = [n for n in self.counts if n != self.samples]
        few = {"samples": others, "problem": self._numbers}
        made |= {f"few {a:g}": Sweep(self._flow(a), few) for a in self._map_scales if others}
        slow = self._flow(self.waits[0])
        rule = GradientFlow(4.0, SUM, 1e-7)
        slow = Experiment(slow.task, slow.model, rule, [Losses(), SolutionNorms()], LogSpaced(81, 0.01), "float64")
        made["waiting"] = Sweep(slow, {"problem": self._numbers[:2], "scale": self.waits})
        for a in self.relu_scales:
            made[f"relu {a:g}"] = self._relu(a)
        return made

    @property
    def _numbers(self) -> list[float]:
        return [float(p) for p in range(self.problems)]

    @property
    def _map_scales(self) -> list[float]:
        """The scales at which the map over samples is simulated as well: the two ends and between."""
        return [self.scales[0], 0.1, self.scales[-1]] if 0.1 in self.scales else [self.scales[0], self.scales[-1]]

    def _flow(self, scale: float, depth: int = 2) -> Experiment:
        # The slowest direction of the kernel at the start relaxes at about 8 alpha² (dimension/8).
        until = min(self.longest, 0.4 / scale ** (2 * depth - 2))
        task = SparseRegression(self.dimension, self.samples, self.sparsity, problem=0.0)
        probes = [Losses(), SolutionNorms(), Coefficients()]
        # One rule for all, watched until then: runs of all scales are one compiled program.
        rule = GradientFlow(self.longest, SUM, 1e-7, max_steps=1_000_000)
        return Experiment(task, DiagonalLinear(scale, depth), rule, probes, At((0.0, until)), "float64")

    def _relu(self, scale: float) -> Experiment:
        task = Digits(self.digits, "parity", reshuffle=True)
        model = Unbiased(MLP(self.width, 2, bias=False, scale=scale))
        rule = Descent(SGD(0.02 / (1 + 5 * scale**2)), steps=self.steps)  # the kernel grows as scale²
        return Experiment(task, model, rule, [Losses(), Accuracy(), KernelDistance(50)], LogSpaced(21))

    def measure(self, name, what, seeds, key, progress):
        return super().measure(name, what, seeds if name.startswith("relu") else 1, key, progress)

    def theory(self):
        grid = np.geomspace(self.smallest, 2 * max(self.scales), 25)
        scales = np.unique([*grid, *self.scales, *self.deep_scales, *self.waits])
        depths = {d: self._solutions(scales, self.samples, d) for d in (2, 3, 4)}
        few = {n: self._solutions(scales, n, 2) for n in sorted({*self.counts, self.samples})}
        waiting = self.experiments()["waiting"]
        return {
            "depth": xr.concat(list(depths.values()), pd.Index(list(depths), name="depth")),
            "few": xr.concat(list(few.values()), pd.Index(list(few), name="samples")),
            "waiting": predict(waiting),
        }

    def _solutions(self, scales, count: int, depth: int):
        """The penalty's minimisers, [problem, scale, feature], and what they are compared with."""
        cells = []
        for problem in self._numbers:
            x, y, teacher = problem_data(SparseRegression(self.dimension, count, self.sparsity, problem=problem))
            blank = np.full(self.dimension, np.nan)  # below, depth by depth, double precision does not reach
            found = np.array([least_penalty(x, y, a, depth) if a**depth >= 0.5 * self.smallest**2 else blank for a in scales])
            least, smooth = minimum_l1(x, y), minimum_l2(x, y)
            size = np.abs(least).sum()
            cells.append(xr.Dataset({
                "coefficients": (("scale", "feature"), found), "population_error": ("scale", ((found - teacher) ** 2).sum(1)),
                "excess_l1": ("scale", np.abs(found).sum(1) / size - 1), "min_l1": size,
                "distance_to_min_l2": ("scale", np.linalg.norm(found - smooth, axis=1)),
                "min_l2_error": ((smooth - teacher) ** 2).sum(), "min_l1_error": ((least - teacher) ** 2).sum(),
            }, {"scale": scales, "feature": np.arange(1, self.dimension + 1)}))  # fmt: skip
        return xr.concat(cells, pd.Index(self._numbers, name="problem"))

    def _ends(self, measured, start: str, scales, said):
        """The last observations of the runs named `start` and a scale, with the excess l1 norm over the least one."""
        parts = [measured[f"{start} {a:g}"].isel(time=-1, drop=True) for a in scales]
        ends = xr.concat(parts, pd.Index(scales, name="scale"), combine_attrs="override")
        ends = ends.isel(seed=0, drop=True) if start != "relu" else ends
        return ends.assign(excess_l1=ends.l1_norm / said.min_l1 - 1) if said is not None else ends

    def claims(self, measured, theory):
        depth2, depth3 = (theory["depth"].sel(depth=d) for d in (2, 3))
        ends, deep = self._ends(measured, "scale", self.scales, depth2), self._ends(measured, "deep scale", self.deep_scales, depth3)
        away = lambda seen, said: np.sqrt(((seen.coefficients - said.coefficients.sel(scale=seen.scale)) ** 2).sum("feature"))
        middle = [a for a in (0.3, 0.1) if a in self.scales]
        yield Claim("C1", "gradient flow ends at the penalty's minimum (distance, scales 0.3 and 0.1, the larger)",
                    measured=away(ends, depth2).sel(scale=middle).max("scale"), at_most=2e-3)
        yield Claim("C1b", "at every scale simulated (largest distance)", measured=away(ends, depth2).max("scale"), at_most=2e-3,
                    reason="smaller scales than 0.001 fit the last of the residual too slowly to end in this time")
        yield Claim("C1c", "and at depth 3 (largest distance)", measured=away(deep, depth3).max("scale"), at_most=2e-3)
        said = theory["waiting"].l1_norm
        course = np.abs(measured["waiting"].l1_norm.isel(seed=0) - said).max(("time", "scale"))
        yield Claim("C1d", "on the way there it follows the mirror flow (largest difference in l1 norm)", measured=course, at_most=0.01)

        large, small = max(self.scales), min(self.scales)
        yield Claim("C2", f"at scale {large:g} it ends at the smallest l2 norm (distance)",
                    measured=ends.distance_to_min_l2.sel(scale=large), at_most=1e-3)
        yield Claim("C2b", f"the penalty's minimum at scale {self.smallest:g} has the smallest l1 norm (excess)",
                    measured=depth2.excess_l1.sel(scale=self.smallest), at_most=1e-3)
        yield Claim("C2c", "between, the l1 norm grows with the scale in every problem (rank correlation)",
                    measured=[rank_correlation(ends.scale, one) for one in ends.excess_l1.transpose("problem", ...)], at_least=0.99)
        share = (depth2.population_error / depth2.min_l2_error).mean("problem")
        decades = np.log10(float(share.scale[share > 0.9].min()) / float(share.scale[share < 0.1].max()))
        yield Claim("C2d", "smoothly: from a tenth to nine tenths of the kernel's error takes decades of scale (how many)",
                    measured=decades, at_least=0.5)

        yield Claim("C3", f"rich learning (scale {small:g}) finds the teacher from {self.samples} samples (error)",
                    measured=ends.population_error.sel(scale=small), at_most=0.01)
        yield Claim("C3b", f"the kernel's (scale {large:g}) does not (error)", measured=ends.population_error.sel(scale=large), at_least=0.5)
        error = theory["few"].population_error.mean("problem")
        enough = [int(error.samples[(error.sel(scale=a) < 0.05).values].min()) if (error.sel(scale=a) < 0.05).any() else np.inf
                  for a in (self.smallest, large)]  # fmt: skip
        yield Claim("C3c", "samples that suffice at the smallest scale, over those that do at the largest (error below 0.05; 0 if "
                    "none of those tried do)", measured=enough[0] / enough[1], at_most=0.5)
        known = error.sel(samples=[n for n in self.counts if (error.sel(samples=n) < 0.05).any()])
        threshold = [float(one.scale[(one < 0.05).values].max()) for one in known.transpose("samples", "scale")]
        yield Claim("C3d", "the largest scale that suffices grows with the number of samples (smallest step, ratio)",
                    measured=np.divide(threshold[1:], threshold[:-1]).min() if len(threshold) > 1 else np.nan,
                    at_least=1.0, reason="where the teacher is not found at any scale there is no threshold")

        at = 0.1 if 0.1 in self.deep_scales else self.deep_scales[-1]
        yield Claim("C4", f"at scale {at:g} depth 3 is nearer to the smallest l1 norm than depth 2 (excess over excess)",
                    measured=deep.excess_l1.sel(scale=at) / depth2.excess_l1.sel(scale=at), at_most=0.5)
        by_power = [self._least_power(theory["depth"].sel(depth=d), d) for d in (2, 3, 4)]
        yield Claim("C4b", "by scale^depth, an excess of 0.05 is reached earlier with depth (smallest step from depth 2 to 3 to 4, ratio)",
                    measured=min(by_power[1] / by_power[0], by_power[2] / by_power[1]), at_least=1.0)

        wait = crossing_time(measured["waiting"].train_loss.isel(seed=0) / measured["waiting"].train_loss.isel(time=0, seed=0), 0.5, falling=True)
        logs = np.log(1 / wait.scale.values)
        fits = [np.corrcoef(logs, one)[0, 1] for one in wait.transpose("problem", "scale").values]
        yield Claim("C5", "learning waits in proportion to ln(1/scale) (correlation of the time to half the loss with it)",
                    measured=fits, at_least=0.99)
        slopes = [np.polyfit(logs, one, 1)[0] * self._pull(p) for p, one in zip(wait.problem.values, wait.transpose("problem", "scale").values, strict=True)]
        yield Claim("C5b", "by ln(1/scale)/(2 max|Xᵀy|) or longer (slope, in that unit)", measured=slopes, between=(0.9, 3.0),
                    reason="the coefficient with the strongest pull grows at that rate; half the loss wants others as well")

        relu = self._ends(measured, "relu", self.relu_scales, None)
        moved = [rank_correlation(np.log(relu.scale), one) for one in relu.kernel_distance.transpose("seed", ...)]
        flat = len(self.relu_scales) < 3
        yield Claim("C6", "ReLU networks on digits: the larger the scale, the less the kernel moves (rank correlation)",
                    measured=relu.kernel_distance.isel(scale=-1) - relu.kernel_distance.isel(scale=0) if flat else moved, at_most=-0.99 if not flat else 0.0)
        yield Claim("C6b", f"at scale {max(self.relu_scales):g} it hardly moves (relative distance)",
                    measured=relu.kernel_distance.sel(scale=max(self.relu_scales)), at_most=0.1)
        errors = 1 - relu.test_accuracy
        yield Claim("C6c", "and the test error changes with the scale (largest over smallest scale's)",
                    measured=errors.sel(scale=max(self.relu_scales)) / errors.sel(scale=min(self.relu_scales)), at_least=1.2)

    def _least_power(self, said, depth: int) -> float:
        """scale^depth at which the mean excess l1 norm is 0.05, linear in logarithms."""
        excess = said.excess_l1.mean("problem").dropna("scale")
        return float(np.exp(np.interp(np.log(0.05), np.log(excess.values), np.log(excess.scale.values)))) ** depth

    def _pull(self, problem: float) -> float:
        x, y, _ = problem_data(SparseRegression(self.dimension, self.samples, self.sparsity, problem=problem))
        return 2 * float(np.abs(x.T @ y).max())

    def figures(self, measured, theory):
        yield Figure("bias", "What gradient flow finds against the scale of its initial weights: excess l1 norm, distance to the "
                     "smallest l2 norm, and population error. Lines: the penalty's minimum; dots: simulated (means over problems, "
                     "bars one standard error).", lambda axes: self._draw_bias(axes[0], measured, theory), grid=(1, 3))
        yield Figure("map", "Population error over samples and scale. Colours: the penalty's minimum; circles, in the same colours: "
                     "simulated. Right: the penalties, over their values at 10.",
                     lambda axes: self._draw_map(axes[0], measured, theory), grid=(1, 2), size=(8.4, 3.0))
        yield Figure("waiting", "Left: loss against time from ever smaller weights; lines are the mirror flow. Right: the time to half "
                     "the loss grows as ln(1/scale).", lambda axes: self._draw_waiting(axes[0], measured, theory), grid=(1, 2))
        yield Figure("relu", "A two-layer ReLU network (minus its twin) on digits, odd or even: movement of the tangent kernel, and test "
                     "error, against the scale of the initial weights.", lambda axes: self._draw_relu(axes[0], measured), grid=(1, 2))

    def _draw_bias(self, axes, measured, theory):
        names = (("excess_l1", "excess l1 norm"), ("distance_to_min_l2", "distance to min-l2"), ("population_error", "population error"))
        for depth, color in zip((2, 3, 4), COLORS, strict=False):
            said = theory["depth"].sel(depth=depth)
            for axis, (name, words) in zip(axes, names, strict=True):
                lines(axis, said[name].mean("problem"), "scale", color=color, label=f"depth {depth}")
                if depth < 4:
                    start, scales = ("scale", self.scales) if depth == 2 else ("deep scale", self.deep_scales)
                    ends = self._ends(measured, start, scales, said)
                    dots(axis, ends[name].rename(problem="seed"), "scale", color=color)
                label(axis, "scale α", words, xlog=True, ylog=name != "distance_to_min_l2")
        axes[0].set_ylim(1e-5, None)
        axes[2].set_ylim(1e-9, None)
        key_of_overlay(axes[0], loc="lower right")

    def _draw_map(self, axes, measured, theory):
        error = theory["few"].population_error.mean("problem").transpose("samples", "scale")
        style = {"cmap": "viridis", "vmin": 0.0, "vmax": 1.0}
        rows = np.arange(len(error.samples))
        mesh = axes[0].pcolormesh(error.scale, rows, error, shading="nearest", **style)
        for a in self._map_scales:
            for n in {*self.counts, self.samples}:
                seen = measured[f"scale {a:g}"] if n == self.samples else measured[f"few {a:g}"].sel(samples=n)
                seen = float(seen.isel(time=-1, seed=0).population_error.mean("problem"))
                axes[0].scatter([a], [list(error.samples).index(n)], c=[seen], s=70, edgecolors="w", linewidths=1.2, **style)
        axes[0].set_xlim(None, 2 * max(self.scales))
        axes[0].figure.colorbar(mesh, ax=axes[0], label="population error")
        label(axes[0], "scale α", "samples", f"{self.sparsity} of {self.dimension} coefficients", xlog=True)
        axes[0].set_yticks(rows, [str(n) for n in error.samples.values])
        axes[0].grid(False)
        z = np.linspace(-10, 10, 401)
        for depth, color in zip((2, 3, 4), COLORS, strict=False):
            axes[1].plot(z, penalty(z, depth) / penalty(10.0, depth), color=color, label=f"q, depth {depth}")
        axes[1].plot(z, np.abs(z) / 10, color="0.5", linestyle="--", linewidth=1, label="l1")
        axes[1].plot(z, (z / 10) ** 2, color="0.5", linestyle=":", linewidth=1, label="l2, squared")
        label(axes[1], "coefficient over $α^D$", "penalty", "from round to pointed")
        axes[1].legend(loc="upper center")

    def _draw_waiting(self, axes, measured, theory):
        seen, said = (t["waiting"].train_loss.isel(problem=0) for t in (measured, theory))
        seen = seen.isel(seed=0)
        for color, a in zip(shades(len(self.waits)), self.waits, strict=True):
            lines(axes[0], said.sel(scale=a).isel(time=slice(1, None)), color=color, label=f"{a:g}")
            dots(axes[0], seen.sel(scale=a).isel(time=slice(1, None)), every=3, color=color)
        label(axes[0], "time (τ)", "training loss", xlog=True, ylog=True)
        axes[0].set_ylim(1e-6, None)
        axes[0].legend(title="scale α")
        for marker, color, number in zip("os", COLORS, range(2), strict=False):
            loss = [t["waiting"].train_loss.isel(problem=number) for t in (theory, measured)]
            loss[1] = loss[1].isel(seed=0)
            said, seen = (crossing_time(one / one.isel(time=0), 0.5, falling=True) for one in loss)
            lines(axes[1], said, "scale", color=color)
            dots(axes[1], seen, "scale", color=color, fmt=marker, label=f"problem {number}")
        label(axes[1], "scale α", "time to half the loss", xlog=True)
        key_of_overlay(axes[1], loc="upper right")

    def _draw_relu(self, axes, measured):
        relu = self._ends(measured, "relu", self.relu_scales, None)
        dots(axes[0], relu.kernel_distance, "scale", color=COLORS[0], linestyle="-", label="distance")
        dots(axes[0], 1 - relu.kernel_alignment, "scale", color=COLORS[1], linestyle="-", label="1 − alignment")
        label(axes[0], "initial scale", "kernel movement", xlog=True, ylog=True)
        axes[0].legend()
        dots(axes[1], 1 - relu.test_accuracy, "scale", color=COLORS[0], linestyle="-")
        label(axes[1], "initial scale", "test error", xlog=True)
