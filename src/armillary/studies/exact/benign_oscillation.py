"""A learning rate that makes the loss oscillate teaches the weak feature that a small one leaves out."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from armillary.clock import Evenly
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least, between
from armillary.models.patch_network import PatchModel
from armillary.probes import Losses
from armillary.probes.patches import PatchFeatures
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, lines
from armillary.rules import SGD, Descent, MiniBatch
from armillary.study import Claim, Paper, Study
from armillary.tasks.patches import FeaturePatches
from armillary.theory.oscillation import critical_learning_rate, final_weak_share, oscillating_growth

RATIO = 0.05
"""c_weak / c_strong of the one-sample map."""


@dataclass(frozen=True, kw_only=True)
class BenignOscillation(Study):
    """Samples hold a weak feature, all of them, and a strong one, most of them. A small learning rate fits through the
    strong feature, the residual vanishes and the weak feature stops growing. A large one makes the strong coordinate
    jump around its target; since growth is multiplicative, an oscillation that stays bounded has a positive mean
    residual, and that mean drives the weak feature. Only one of the two networks can then tell samples that have
    nothing but the weak feature.

    For a single sample this is a map of two numbers with a sharp threshold (learning rate = units / 2 |u|²) and a final
    share of the weak feature in closed form. Networks with noise in every sample show the same threshold.
    """

    paper: ClassVar = Paper(
        "Benign Oscillation of Stochastic Gradient Descent with Large Learning Rates",
        authors="Miao Lu, Beining Wu, Xiaodong Yang, Difan Zou", year=2023, arxiv="2310.17074",
    )  # fmt: skip
    seeds: ClassVar = {"smoke": 2, "desk": 4, "paper": 8}

    dimension: int = at_least(3, default=1000, smoke=100, paper=10_000)
    """Entries of a patch."""
    samples: int = at_least(2, default=100, smoke=20, paper=1000)
    """Training samples."""
    weak_only: float = between(0.0, 1.0, default=0.1)
    """Share of training samples without the strong patch."""
    weak: float = above(0.0, default=1.0)
    """Norm of the weak feature."""
    strong: float = above(0.0, default=6.0)
    """Norm of the strong feature."""
    noise: float = above(0.0, default=5.0)
    """Norm of the noise patch."""
    units: int = at_least(1, default=10)
    """Hidden units for each sign."""
    scale: float = above(0.0, default=0.01)
    """Standard deviation of the initial weights."""
    rates: tuple[float, ...] = above(0.0, default=(0.02, 0.05, 0.1, 0.12, 0.16), smoke=(0.02, 0.16))
    """Learning rates, from small to large; one at least on each side of the threshold."""
    steps: int = at_least(100, default=20_000, smoke=2000)
    """Steps of one sample each."""
    strengths: tuple[float, ...] = above(0.0, default=(0.2, 0.5, 0.9, 1.05, 1.1, 1.2, 1.3, 1.5, 1.8))
    """Learning rates of the one-sample map, in units of the threshold."""

    def experiments(self):
        task = FeaturePatches(self.dimension, self.samples, self.weak_only, self.weak, self.strong, self.noise)
        rule = Descent(SGD(self.rates[0]), steps=self.steps, feed=MiniBatch(1))
        model = PatchModel(self.units, self.scale)
        experiment = Experiment(task, model, rule, [Losses(), PatchFeatures()], Evenly(101))
        return {"network": Sweep(experiment, {"learning_rate": self.rates})}

    def theory(self):
        """The one-sample map: no paper's theory speaks of the whole network."""
        strengths = np.array(self.strengths)
        run = oscillating_growth(strengths, RATIO * strengths, strong=1e-3, weak=1e-6, steps=20_000)
        names = dict(zip(("strong", "weak", "residual"), run, strict=True))
        axes = {"time": np.arange(20_001), "c_strong": strengths}
        said = {name: (("time", "c_strong"), values) for name, values in names.items()}
        return {"map": xr.Dataset(said, axes)}

    @property
    def threshold(self) -> float:
        """The learning rate at which the strong feature starts to oscillate."""
        return critical_learning_rate(self.units, self.strong)

    def claims(self, measured, theory):
        seen, run = measured["network"], theory["map"]
        end = seen.isel(time=-1)
        above_it = [rate for rate in self.rates if rate > self.threshold]
        below = [rate for rate in self.rates if rate < self.threshold]
        fast, slow = min(above_it), max(below)
        weak = end.weak_accuracy
        yield Claim("C1", f"above the threshold ({self.threshold:.3f}) samples with only the weak feature are told apart "
                    f"(accuracy at rate {fast:g}, the worst seed)", measured=weak.sel(learning_rate=fast).min("seed"), at_least=0.97)
        yield Claim("C1b", f"below it they are not (accuracy at rate {slow:g}, the best seed)",
                    measured=weak.sel(learning_rate=slow).max("seed"), at_most=0.62)
        ratio = end.weak_alignment.sel(learning_rate=fast) / end.weak_alignment.sel(learning_rate=slow)
        yield Claim("C1c", "the weak feature has grown more than tenfold stronger above than below (the worst seed)",
                    measured=ratio.min("seed"), at_least=10.0)

        yield Claim("C2", "while it oscillates, the residual on samples with the strong feature is positive on average",
                    measured=seen.residual.sel(learning_rate=fast).mean("time"), at_least=0.0)
        residual = run.residual.isel(time=slice(0, -1))
        wild = run.c_strong[(run.c_strong > 1) & (run.c_strong <= 1.2)]
        swings = _oscillating(residual)
        mean, square = ((part.where(swings)).mean("time") for part in (residual, residual**2))
        predicted = mean.c_strong / 2 * square
        yield Claim("C2b", "in the map its mean is c/2 times its mean square to leading order (largest relative error, c ≤ 1.2)",
                    measured=np.abs(predicted / mean - 1).sel(c_strong=wild).max(), at_most=0.1, reason="the next order is of the size of r³")
        growth = np.log(run.weak.where(swings)).diff("time").mean("time")
        said = 2 * np.log1p(RATIO * residual.c_strong * residual.where(swings)).mean("time")
        unstable = run.c_strong[run.c_strong > 1]
        yield Claim("C3", "in the map the weak part grows by 2 mean log(1 + c_weak r) a step (largest relative error)",
                    measured=np.abs(growth / said - 1).sel(c_strong=unstable).max(), at_most=0.02)
        tested = run.c_strong[(run.c_strong >= 1.1) & (run.c_strong <= 1.8)]
        share = final_weak_share(tested.values, RATIO * tested.values)
        final = run.weak.isel(time=-1)
        yield Claim("C3b", "and ends at the share (c - 1)/(c - c_weak) (largest relative error, 1.1 ≤ c ≤ 1.8)",
                    measured=np.abs(final.sel(c_strong=tested) / share - 1).max(), at_most=0.02)

        for name, rate in (("C4", fast), ("C4b", min(self.rates))):
            yield Claim(name, f"at rate {rate:g} the training loss becomes small (the worst seed)",
                        measured=end.train_loss.sel(learning_rate=rate).max("seed"), at_most=1e-2)
        yield Claim("C4c", "and samples with the strong feature are told apart at every rate (the worst accuracy)",
                    measured=end.strong_accuracy.min(), at_least=0.999)

        sharpness = 2 * (run.c_strong * run.strong + RATIO * run.c_strong * run.weak).isel(time=-1).sel(c_strong=unstable)
        yield Claim("C5", "oscillation ends by itself in the map, where rate times sharpness is 2 (the farthest)",
                    measured=sharpness.values[np.argmax(np.abs(sharpness.values - 2))], expected=2.0, tolerance=0.04)
        late = seen.residual.sel(learning_rate=fast)
        late = np.sqrt(seen.squared_residual.sel(learning_rate=fast)).where(late.notnull())
        quarter = len(seen.time) // 4
        yield Claim("C5b", f"and in the network at rate {fast:g} (root-mean-square residual, last quarter over first)",
                    measured=late.isel(time=slice(-quarter, None)).mean("time") / late.isel(time=slice(1, quarter)).mean("time"),
                    at_most=0.5)
        yield Claim("C5c", f"whose largest rate times sharpness then is near 2 (rate {fast:g})",
                    measured=fast * end.largest_sharpness.sel(learning_rate=fast), expected=2.0, tolerance=0.2)

        small = min(self.rates)
        curve = seen.weak_accuracy.sel(learning_rate=small)
        half = curve.isel(time=len(seen.time) // 2)
        yield Claim("C6", f"longer training at rate {small:g} does not help (accuracy gained in the second half)",
                    measured=curve.isel(time=-1) - half, at_most=0.05)
        equal = seen.weak_accuracy.sel(learning_rate=fast).sel(time=self.steps * small / fast, method="nearest")
        yield Claim("C6b", "at equal rate times steps the large rate is ahead (difference in accuracy, the worst seed)",
                    measured=(equal - curve.isel(time=-1)).min("seed"), at_least=0.3,
                    reason="so early the weak feature has only begun to grow on some seeds; it has on all after twice as long")

    def figures(self, measured, theory):
        yield Figure("threshold", "Left: accuracy on samples that have only the weak feature against the learning rate (one standard "
                     "error over seeds); the dashed line is units/(2|u|²). Right: the weak feature's alignment along training.",
                     lambda axes: self._draw_threshold(axes[0], measured), grid=(1, 2))
        yield Figure("map", "The one-sample map. Left: the weak part at the end of 20,000 steps (dots) and (c - 1)/(c - c_weak) (line). "
                     "Right: strong and weak part along a run; the run ends where c s + c_weak w = 1 (dashed) meets s + w = 1 (dotted).",
                     lambda axes: self._draw_map(axes[0], theory["map"]), grid=(1, 2))
        yield Figure("training", "The network. Left: training loss. Right: root-mean-square residual on samples with the strong feature.",
                     lambda axes: self._draw_training(axes[0], measured), grid=(1, 2))

    def _draw_threshold(self, axes, measured):
        seen = measured["network"]
        dots(axes[0], seen.weak_accuracy.isel(time=-1), "learning_rate", color=COLORS[0], label="weak feature only")
        dots(axes[0], seen.strong_accuracy.isel(time=-1), "learning_rate", color=COLORS[1], mfc="none", markersize=6, label="with the strong feature")
        axes[0].axvline(self.threshold, color="0.4", linestyle="--", linewidth=1)
        axes[0].axhline(0.5, color="0.7", linewidth=0.8)
        label(axes[0], "learning rate", "test accuracy")
        axes[0].legend(loc="center left")
        self._curves(axes[1], seen.weak_alignment)
        label(axes[1], "step", "largest |w · v|", ylog=True)
        axes[1].legend(title="learning rate")

    def _curves(self, axis, values):
        for i, rate in enumerate(self.rates):
            lines(axis, values.sel(learning_rate=rate).mean("seed"), color=COLORS[i % len(COLORS)], label=f"{rate:g}")

    def _draw_map(self, axes, run):
        c = np.linspace(0.1, 1.85, 200)
        axes[0].plot(c, final_weak_share(c, RATIO * c), color=COLORS[0])
        axes[0].plot(run.c_strong, run.weak.isel(time=-1), "o", color=COLORS[0])
        label(axes[0], "learning rate over the threshold, c", "final weak part")
        key_of_overlay(axes[0], loc="upper left")
        shown = run.sel(c_strong=1.3, method="nearest")
        c = float(shown.c_strong)
        axes[1].plot(shown.strong, shown.weak, ".", markersize=1.5, color=COLORS[1], label=f"c = {c:g}")
        s = np.linspace(0, 1.6, 50)
        axes[1].plot(s, 1 - s, ":", color="0.3", label="s + w = 1")
        axes[1].plot(s, (1 - c * s) / (RATIO * c), "--", color="0.3", linewidth=1, label="stability")
        axes[1].set(xlim=(0, 1.6), ylim=(-0.01, 1.2 * float(shown.weak.max())))
        label(axes[1], "strong part s", "weak part w")
        axes[1].legend()

    def _draw_training(self, axes, measured):
        seen = measured["network"]
        self._curves(axes[0], seen.train_loss)
        label(axes[0], "step", "training loss", ylog=True)
        axes[0].legend(title="learning rate")
        self._curves(axes[1], np.sqrt(seen.squared_residual))
        label(axes[1], "step", "residual", ylog=True)


def _oscillating(residual: xr.DataArray) -> xr.DataArray:
    """Where the map has left its first growth and still oscillates: after the first overshoot, while |r| > 0.01."""
    overshot = (residual < 0).cumsum("time") > 0
    return overshot & (xr.apply_ufunc(np.abs, residual).rolling(time=2, min_periods=1).max() > 1e-2)
