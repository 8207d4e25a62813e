"""Test error of many weights and many samples: over-training peaks where they are equally many."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from armillary.clock import At, Clock, LogSpaced
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least, between
from armillary.measures import power_law, rank_correlation
from armillary.models import MLP, DeepLinear, Gaussian, RandomFeatures
from armillary.probes import FrozenSubspace, Probe, RegressionErrors
from armillary.quantity import Quantity
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, lines, shades
from armillary.rules import SGD, Adam, Descent, LinearFlow, Loss
from armillary.study import Claim, Paper, Study
from armillary.tasks import Digits, LinearTeacher, NetworkTeacher
from armillary.theory import best_ridge_error, best_stopping, final_error
from armillary.trajectory import over_seeds

SUM = Loss(reduction="sum")
"""The paper's loss, ½ times the sum over samples; time is in its units."""


CHECKED = (0.5, 1.0, 1.5, 3.0)
"""Ratios at which curves are held against the formula; at 0.25 a draw has so few samples that chance rules."""


EVERY_SCALE = LogSpaced(43, first=0.01)


class ComplexityBounds(Probe):
    """Rademacher bounds on a trained read-out of P samples' features H.

    `norm_bound` is |a| C / sqrt(P), with C the features' root-mean-square norm; `subspace_bound` counts only the
    min(P, width) directions that move, each by about 1/sqrt(smallest non-zero eigenvalue of H Hᵀ): C times the
    square root of that many over that eigenvalue, over sqrt(P). Scalings only: the paper's constants are left out.
    """

    def __call__(self, now):
        features = jax.vmap(now.network.features)(now.data.train.inputs)
        count, width = features.shape
        size = jnp.sqrt(jnp.mean(jnp.sum(features**2, axis=1)) / count)
        eigenvalues = jnp.linalg.svd(features, compute_uv=False) ** 2
        smallest = jnp.min(jnp.where(eigenvalues > eigenvalues[0] * 1e-12, eigenvalues, jnp.inf))
        return {
            "norm_bound": Quantity(size * jnp.linalg.norm(now.network.readout), long_name="bound from the norm"),
            "subspace_bound": Quantity(
                size * jnp.sqrt(min(count, width) / smallest), long_name="bound from what moves"
            ),
        }


@dataclass(frozen=True, kw_only=True)
class HighDimensionalGeneralization(Study):
    """In linear regression with as many weights as samples, the whole course of training and test error follows from
    the Marchenko-Pastur law. Over-training is worst when samples and weights are equally many, and shrinks if the
    network is made smaller or larger: directions without data stay frozen, and the smallest non-zero eigenvalue moves
    away from zero.

    The frozen weights keep their initial values for ever, so they should start small. ReLU networks, on a
    teacher's data and on digits, show the same peak, and early stopping hides it.
    """

    paper: ClassVar = Paper(
        "High-dimensional dynamics of generalization error in neural networks",
        authors="Madhu S. Advani, Andrew M. Saxe", year=2017, arxiv="1710.03667",
    )  # fmt: skip
    seeds: ClassVar = {"smoke": 2, "desk": 4, "paper": 12}

    dimension: int = at_least(20, default=200, smoke=100, paper=600)
    """Inputs N of the linear network."""
    ratios: tuple[float, ...] = above(0.0, default=(0.25, 0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 4.0), smoke=(0.5, 1.0))
    """Samples over inputs."""
    snr: float = above(0.0, default=5.0)
    """Variance of the teacher's weights over that of the label noise."""
    inrs: tuple[float, ...] = at_least(0.0, default=(0.0, 1.0))
    """Variances of the initial weights over that of the label noise: the smaller ones first."""
    snrs: tuple[float, ...] = above(0.0, default=(1.0, 5.0, 50.0), smoke=(1.0, 50.0))
    """Signal-to-noise ratios at which stopping times are compared, at ratio 0.5."""
    draws: int = at_least(2, default=48, smoke=6, paper=96)
    """Draws of each linear problem."""
    until: float = above(100.0, default=1e4)
    """Flow time of the linear problems."""
    relu_inputs: int = at_least(1, default=15)
    """Inputs of the ReLU student and its teacher."""
    relu_samples: int = at_least(10, default=150, smoke=60)
    """Samples of the ReLU student."""
    widths: tuple[int, ...] = at_least(1, default=(4, 8, 10, 14, 40, 100, 300), smoke=(10,))
    """Hidden units of the ReLU student."""
    digit_samples: int = at_least(10, default=400, smoke=60, paper=1000)
    """Digits on which the ReLU network is trained (odd or even, with flipped labels)."""
    digit_widths: tuple[int, ...] = at_least(1, default=(1, 6, 8, 12, 50, 150), smoke=(10,))
    """Hidden units of the network on digits."""
    label_noise: float = between(0.0, 1.0, default=0.2)
    """Share of the digits' labels drawn at random."""
    steps: int = at_least(10, default=3000, smoke=100)
    """Full-batch Adam steps of the ReLU networks."""
    feature_samples: int = at_least(10, default=100, smoke=30)
    """Samples of the random-feature networks."""
    feature_widths: tuple[int, ...] = at_least(1, default=(10, 60, 100, 160, 300, 1000), smoke=(30,))
    """Hidden units of the random-feature networks."""

    def experiments(self):
        teacher = NetworkTeacher(self.relu_inputs, self.relu_samples, MLP(20, 2, bias=False), 1.0, test_samples=2000)
        digits = Digits(self.digit_samples, "parity", self.label_noise, reshuffle=True)
        return {
            "curves": Sweep(self._linear(LinearFlow(self.until, SUM)), {
                "samples": [max(1, round(ratio * self.dimension)) for ratio in self.ratios],
                "scale": [inr**0.5 for inr in self.inrs]}),
            "relu": self._relu(teacher, self.widths),
            "relu digits": self._relu(digits, self.digit_widths),
            "features": self._features(NetworkTeacher(self.relu_inputs, self.feature_samples, MLP(20, 2, bias=False), 1.0)),
            "features digits": self._features(Digits(self.feature_samples, "parity", self.label_noise, reshuffle=True)),
            "relu scale": Sweep(self._network(teacher, max(self.widths)), {"model.scale": (0.1, 1.0, 3.0)}),
            "initial": Sweep(self._linear(LinearFlow(self.until, SUM), At((0.0, self.until))), {
                "scale": [inr**0.5 for inr in self.inrs]}),
            "stopping": Sweep(self._linear(LinearFlow(self.until, SUM)), {"signal": [snr**0.5 for snr in self.snrs]}),
            "frozen": self._frozen(),
        }  # fmt: skip

    def _linear(self, rule, clock: Clock = EVERY_SCALE) -> Experiment:
        task = LinearTeacher(self.dimension, self.dimension // 2, signal=self.snr**0.5, noise=1.0)
        model = DeepLinear(depth=1, initialisation=Gaussian(self.inrs[-1] ** 0.5, per_entry=True))
        return Experiment(task, model, rule, [RegressionErrors()], clock, precision="float64")

    def _frozen(self) -> Experiment:
        """Plain gradient descent, which could move the frozen directions if anything could."""
        flow = self._linear(Descent(SGD(0.02), steps=2000, loss=SUM))
        return Experiment(flow.task, flow.model, flow.rule, [FrozenSubspace()], At((0, 20, 200, 2000)), precision="float64")

    def _network(self, task, width: int) -> Experiment:
        student = MLP(width, 2, bias=False, gain=1.0, scale=0.5)
        rule = Descent(Adam(0.01), steps=self.steps)
        return Experiment(task, student, rule, [RegressionErrors()], LogSpaced(41))

    def _relu(self, task, widths) -> Sweep:
        return Sweep(self._network(task, widths[0]), {"model.width": widths})

    def _features(self, task) -> Sweep:
        model = RandomFeatures(scale=0.1)
        probes = [RegressionErrors(), ComplexityBounds()]
        forever = LinearFlow(1e9, SUM)  # to the ridgeless end: exact at any time
        experiment = Experiment(task, model, forever, probes, At((0.0, 1e9)), precision="float64")
        return Sweep(experiment, {"model.width": self.feature_widths})

    def measure(self, name, what, seeds, key, progress):
        draws = {"curves": self.draws, "stopping": self.draws, "initial": 8 * self.draws}.get(name, seeds)
        return super().measure(name, what, draws, key, progress)

    def claims(self, measured, theory):
        curves = measured["curves"]
        checked = [r for r in self.ratios if r in CHECKED] or list(self.ratios)
        early = self._at(curves, np.array(checked)).sel(time=slice(0, 100))
        said = theory["curves"].sel(samples=early.samples, time=early.time)
        test = np.abs(early.generalisation_error.mean("seed") / said.generalisation_error - 1).max()
        train = np.abs(early.training_error.mean("seed") - said.training_error).max("time")
        train = (train / said.training_error.isel(time=0)).max()
        yield Claim("C1", "test error follows the Marchenko-Pastur formula at every ratio and initial scale "
                    "(largest relative error, t ≤ 100)", measured=test, at_most=0.05,
                    reason="later, at ratio 1, single draws have heavy tails at finite N")
        yield Claim("C1b", "and so does training error (largest error over its start)", measured=train, at_most=0.05)

        large = curves.isel(scale=0)
        final = large.generalisation_error.isel(time=-1).median("seed")
        worst = float(final.samples[int(np.argmax(final.values))]) / self.dimension
        yield Claim("C2", "final test error peaks where samples and weights are equally many (ratio at the peak)",
                    measured=worst, expected=1.0, tolerance=0.1)
        critical = large.sel(samples=self.dimension, time=slice(100, 1000)).generalisation_error.mean("seed") - 1
        law = theory["curves"].generalisation_error.isel(scale=0).sel(samples=self.dimension) - 1
        late, window = law.sel(time=slice(1000, None)), law.sel(time=critical.time)
        yield Claim("C2b", "and grows there as the square root of time (the formula's exponent, t ≥ 1000)",
                    measured=power_law(late.time.values, late.values).exponent, expected=0.5, tolerance=0.03)
        yield Claim("C2c", "simulated, it grows with the formula's exponent (100 ≤ t ≤ 1000)",
                    measured=power_law(critical.time.values, critical.values).exponent,
                    expected=power_law(window.time.values, window.values).exponent, tolerance=0.03,
                    reason="still above one half on this window; later, finite N ends the growth")

        mean = large.generalisation_error.mean("seed")
        ratios = mean.samples.values / self.dimension
        ridge = xr.DataArray([best_ridge_error(r, self.snr) for r in ratios], dims="samples")
        yield Claim("C3", "stopping at the best time nearly reaches the optimal ridge penalty (largest ratio of errors)",
                    measured=(mean.min("time") / ridge.values).max(), at_most=1.05)
        formula = [best_stopping(r, snr)[1] / best_ridge_error(r, snr) for r in (0.25, 0.5, 1.0, 1.25, 2.0, 4.0)
                   for snr in (1.0, 5.0, 50.0)]  # fmt: skip
        yield Claim("C3b", "by the formulas too, at every ratio and signal-to-noise ratio (largest)",
                    measured=max(formula), at_most=1.05)
        stopping = measured["stopping"].generalisation_error.mean("seed")
        best = stopping.time.values[np.argmin(stopping.transpose("signal", "time").values, axis=1)]
        yield Claim("C3c", "the cleaner the labels, the later the best time to stop (rank correlation with SNR)",
                    measured=rank_correlation(self.snrs, best), at_least=0.99)

        ends = [e.generalisation_error.isel(time=-1) for e in (measured["initial"], self._at(curves, 3.0))]
        rise = [e.isel(scale=-1) - e.isel(scale=0) for e in ends]  # the same draws from two starts
        spread = self.inrs[-1] - self.inrs[0]
        yield Claim("C4", "with half as many samples as weights, initial weights cost (1 - ratio) INR for ever",
                    measured=rise[0], expected=0.5 * spread, tolerance=0.1, relative=True)
        yield Claim("C4b", "with more samples than weights, they cost nothing in the end", measured=np.abs(rise[1]),
                    at_most=1e-6)
        yield Claim("C4c", "directions without data never move (largest entry, gradient descent)",
                    measured=measured["frozen"].frozen_displacement.max("time"), at_most=1e-10)

        few = self._at(large, min(self.ratios)).generalisation_error.mean("seed")
        yield Claim("C5", f"at {min(self.ratios):g} samples a weight over-training has almost vanished (final over best)",
                    measured=few.isel(time=-1) / few.min("time"), at_most=1.05)

        yield from self._relu_claims("C6", "a teacher's data", measured["relu"], self.relu_inputs + 1, self.relu_samples)
        yield from self._relu_claims("C6.digits", "digits", measured["relu digits"], 65, self.digit_samples)
        scale = measured["relu scale"].generalisation_error.isel(time=-1)
        yield Claim("C6d", "large initial weights generalise worse (final error, scale 3 over scale 1)",
                    measured=scale.sel(scale=3.0) / scale.sel(scale=1.0), at_least=1.5)

        yield from self._bound_claims("C7", "a teacher's data", measured["features"])
        yield from self._bound_claims("C7.digits", "digits", measured["features digits"])

    def _relu_claims(self, name, where, seen, weights, samples):
        final = seen.generalisation_error.isel(time=-1)
        peak = float(seen.width[int(np.argmax(final.mean("seed").values))]) * weights / samples
        yield Claim(f"{name}", f"ReLU networks on {where}: final test error peaks where weights and samples are "
                    "equally many (weights over samples at the peak)", measured=peak, between=(0.5, 3.0))
        widest = final.isel(width=-1) / final.mean("seed").max()
        yield Claim(f"{name}b", f"on {where} the widest network is far better (its error over the peak's)",
                    measured=widest, at_most=0.5)
        best, last = seen.generalisation_error.min("time").mean("seed"), final.mean("seed")
        top = int(np.argmax(last.values))
        heights = [e.isel(width=top) / e.isel(width=-1) - 1 for e in (best, last)]
        hidden = heights[0] / heights[1]
        yield Claim(f"{name}c", f"stopping early hides the peak on {where} (its height over the final peak's)",
                    measured=hidden, at_most=0.2)

    def _bound_claims(self, name, where, seen):
        end = seen.isel(time=-1)
        widths = end.width.values
        bound = [rank_correlation(widths, one) for one in end.norm_bound.transpose("seed", "width").values]
        yield Claim(f"{name}", f"the norm-based bound only grows with width on {where} (rank correlation)", measured=bound,
                    at_least=0.99,
                    reason="the read-out's norm itself peaks where it just interpolates the noise; initial weights of order one "
                    "hide that (0.93 to 0.97 then), but their frozen part ruins the error")
        moved = end.subspace_bound.median("seed")
        at = float(widths[int(np.argmax(moved.values))]) / self.feature_samples
        yield Claim(f"{name}b", f"the bound from what moves peaks on {where} where width equals samples (width over samples)",
                    measured=at, between=(0.5, 2.0))
        yield Claim(f"{name}c", f"and falls again for wide networks on {where} (widest over peak)",
                    measured=moved.isel(width=-1) / moved.max(), at_most=0.5)
        error = end.generalisation_error.median("seed")
        yield Claim(f"{name}d", f"as the measured error does on {where} (width over samples at its peak)",
                    measured=float(widths[int(np.argmax(error.values))]) / self.feature_samples, between=(0.5, 2.0))

    def _at(self, curves, ratio: Any):
        """The sweep at the number of samples nearest to `ratio` per input."""
        return curves.sel(samples=ratio * self.dimension, method="nearest")

    def figures(self, measured, theory):
        yield Figure("curves", "Test and training error of linear regression against time, one colour for each number of "
                     "samples per input; lines are the Marchenko-Pastur formula, dots the mean over draws (bars: one "
                     "standard error).", lambda axes: self._draw_curves(axes[0], measured, theory), grid=(1, 2))
        yield Figure("final", "Left: final, best-stopped and optimal-ridge test error against samples per input. Right: at "
                     "equally many samples and inputs the excess error grows as √t.",
                     lambda axes: self._draw_final(axes[0], measured, theory), grid=(1, 2))
        yield Figure("relu", "ReLU networks trained to the end and stopped at their best, against width. The dashed line "
                     "marks as many weights as samples.", lambda axes: self._draw_relu(axes[0], measured), grid=(1, 2))
        yield Figure("bounds", "Random-feature networks trained without ridge: test error (left axis) and two complexity "
                     "bounds (right axis, in units of their smallest value). The dashed line marks as many features as "
                     "samples.", lambda axes: self._draw_bounds(axes[0], measured), grid=(1, 2), size=(9.2, 3.0))

    def _draw_curves(self, axes, measured, theory):
        shown = [r for r in self.ratios if r in (0.5, 1.0, 1.5, 3.0)] or list(self.ratios)
        for axis, name in zip(axes, ("generalisation_error", "training_error"), strict=True):
            for color, ratio in zip(COLORS, shown, strict=False):
                seen, said = (self._at(t["curves"], ratio).isel(scale=0)[name] for t in (measured, theory))
                lines(axis, said.isel(time=slice(1, None)), color=color, label=f"P/N = {ratio:g}")
                dots(axis, seen.isel(time=slice(1, None)), every=2, color=color)
            label(axis, "time (τ)", "error (units of label noise)", name.replace("_", " ").replace("generalisation", "test"),
                  xlog=True, ylog=True)
            axis.set_ylim(2e-2 if name == "training_error" else 1.0, 100)
        key_of_overlay(axes[0], loc="upper left", ncols=2)

    def _draw_final(self, axes, measured, theory):
        grid = np.concatenate([np.geomspace(0.22, 0.99, 60), [1.0], np.geomspace(1.01, 4.5, 60)])  # inf at 1: a gap
        snr = self.snr + self.inrs[0]
        curves = measured["curves"].isel(scale=0).generalisation_error
        ratio = curves.assign_coords(samples=curves.samples / self.dimension)
        axes[0].plot(grid, [final_error(r, snr) for r in grid], color=COLORS[0], label="trained to the end")
        coarse = grid[::6]
        axes[0].plot(coarse, [best_stopping(r, snr)[1] for r in coarse], color=COLORS[1], label="stopped at best")
        axes[0].plot(grid, [best_ridge_error(r, snr) for r in grid], color=COLORS[2], linestyle="--", label="best ridge")
        dots(axes[0], ratio.isel(time=-1), "samples", color=COLORS[0])
        dots(axes[0], ratio.sel(time=ratio.mean("seed").idxmin("time")), "samples", color=COLORS[1])
        label(axes[0], "samples per input P/N", "test error", f"SNR {self.snr:g}", xlog=True, ylog=True)
        axes[0].set_ylim(1, 200)
        axes[0].set_xticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
        axes[0].tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        key_of_overlay(axes[0], loc="upper right")
        seen, said = (t["curves"].isel(scale=0).sel(samples=self.dimension).generalisation_error - 1 for t in (measured, theory))
        lines(axes[1], said.isel(time=slice(1, None)), color=COLORS[0])
        dots(axes[1], seen.isel(time=slice(1, None)), every=2, color=COLORS[0])
        late = np.array([10.0, self.until])
        axes[1].plot(late, 4 / np.sqrt(np.pi) * (1 - 1 / np.sqrt(2)) * np.sqrt(late), ":", color="0.3", label="0.661 √t")
        label(axes[1], "time (τ)", "test error - noise", "P = N", xlog=True, ylog=True)
        key_of_overlay(axes[1], loc="upper left")

    def _draw_relu(self, axes, measured):
        sides = (("relu", "a teacher's data", self.relu_inputs + 1, self.relu_samples),
                 ("relu digits", "digits, odd or even", 65, self.digit_samples))  # fmt: skip
        for axis, (name, title, weights, samples) in zip(axes, sides, strict=True):
            error = measured[name].generalisation_error
            dots(axis, error.isel(time=-1), "width", color=COLORS[1], linestyle="-", label="trained to the end")
            dots(axis, error.min("time"), "width", color=COLORS[0], linestyle="-", label="stopped at best")
            axis.axvline(samples / weights, color="0.5", linestyle="--", linewidth=0.8)
            label(axis, "hidden units", "test error", title, xlog=True, ylog=True)
        axes[0].legend()

    def _draw_bounds(self, axes, measured):
        for axis, (name, title) in zip(axes, (("features", "a teacher's data"), ("features digits", "digits")), strict=True):
            end = measured[name].isel(time=-1)
            dots(axis, end.generalisation_error, "width", color="0.0", linestyle="-", label="test error")
            axis.axvline(self.feature_samples, color="0.5", linestyle="--", linewidth=0.8)
            label(axis, "features", "test error", title, xlog=True, ylog=True)
            other = axis.twinx()
            other.grid(False)
            other.spines["right"].set_visible(True)
            for color, bound, words in zip(shades(2), ("norm_bound", "subspace_bound"), ("norm", "what moves"), strict=True):
                mean, _ = over_seeds(end[bound])
                other.plot(end.width, mean / mean.min(), color=color, marker="s", linestyle="--", label=f"bound: {words}")
            other.set_yscale("log")
            other.set_ylabel("bound / its smallest")
            handles = [*axis.get_legend_handles_labels()[0], *other.get_legend_handles_labels()[0]]
            axis.legend(handles=handles, fontsize=7)
