"""What two-layer linear networks conserve sets how fast they converge, and to which of many solutions."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from armillary.clock import LogSpaced
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least, between
from armillary.measures import crossing_time, power_law, rank_correlation
from armillary.models import DeepLinear, Gaussian
from armillary.models.two_layer_linear import NullOrthogonal, Opposed, TwoLayerLinear
from armillary.probes import FrozenSubspace
from armillary.probes.linear_networks import ExcessLoss, ImbalanceSpectrum, MinimumNorm
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, lines, shades
from armillary.rules import GradientFlow, Loss
from armillary.study import Claim, Paper, Study
from armillary.tasks import Correlations, LinearTeacher
from armillary.tasks.regression import FixedDesign
from armillary.theory.linear_convergence import opposed_mode

SUM = Loss(reduction="sum")
"""The paper's loss, half the sum of squares; time is in its units."""

FLOOR = 1e-16
"""Relative loss down to which bounds are checked; below it the solver's tolerance rules."""

TRAINED = 1e-3
"""Relative loss at which times to learn are read off."""


@dataclass(frozen=True, kw_only=True)
class LinearInitialisationBias(Study):
    """Gradient flow on a two-layer linear network conserves an imbalance matrix, whose spectrum guarantees a rate of
    convergence, whatever the width and the size of the weights. Where there are more inputs than samples, weights on
    directions without data never move, and they alone decide how far the solution is from that of minimum norm.

    If they are orthogonal to all other weights the flow ends in the minimum-norm solution exactly; wide networks with
    random weights of the right size are nearly so, and the distance falls as a power of the width.
    """

    paper: ClassVar = Paper(
        "On the Explicit Role of Initialization on the Convergence and Implicit Bias of Overparametrized Linear Networks",
        authors="Hancheng Min, Salma Tarmoun, René Vidal, Enrique Mallada", year=2021, arxiv="2105.06351",
    )  # fmt: skip
    seeds: ClassVar = {"smoke": 1, "desk": 4, "paper": 16}

    inputs: int = at_least(4, default=20, paper=200)
    """Number of inputs."""
    samples: int = at_least(1, default=5, paper=50)
    """Number of samples, fewer than inputs."""
    widths: tuple[int, ...] = at_least(4, default=(25, 100, 400, 1600), smoke=(100,), paper=(1000, 2000, 5000, 10_000))
    """Hidden widths of the random networks."""
    exponents: tuple[float, ...] = between(0.25, 0.5, default=(0.25, 0.375, 0.5), smoke=(0.25, 0.35, 0.45, 0.5))
    """Exponents a of initial weights N(0, width^(-2a)); the last is the claim's."""
    until: float = above(0.0, default=20.0, smoke=8.0)
    """Flow time."""
    scales: tuple[float, ...] = above(0.0, default=(0.1, 0.5, 1.0), smoke=(0.1, 1.0))
    """Standard deviations of initial weights at a fixed width."""
    draws: int = at_least(1, default=8, smoke=2)
    """Draws of each of these for each seed."""
    width: int = at_least(8, default=50, smoke=100, paper=500)
    """That width."""
    narrow: int = at_least(4, default=30, paper=300)
    """Width of the network whose frozen weights are orthogonal to the others."""
    imbalances: tuple[float, ...] = between(0.0, 1.0, default=(0.0, 0.01, 0.03, 0.1, 0.3, 1.0))
    """Imbalances, over their largest at weights of that size, of a start against its target; the first is 0."""
    tolerance: float = above(0.0, default=1e-10, smoke=1e-7)
    """Relative tolerance of the solver."""

    def experiments(self):
        design = np.random.default_rng(0).normal(size=(self.samples, self.inputs)) / np.sqrt(self.inputs)
        task = LinearTeacher(self.inputs, self.samples, signal=0.0, noise=1.0)  # targets N(0, 1), inputs N(0, 1/D)
        fixed = FixedDesign(design, signal=0.0, noise=1.0)
        target = np.eye(1, self.samples)
        white = Correlations(np.eye(self.samples), target)
        wide = self._experiment(task, TwoLayerLinear(self.widths[0]))
        sizes = DeepLinear(depth=2, width=self.width, initialisation=Gaussian(per_entry=True))
        blind = TwoLayerLinear(self.narrow, NullOrthogonal(design))
        opposed = TwoLayerLinear(2 * self.samples, Opposed(target, size=0.5))
        return {
            "wide": Sweep(wide, {"width": self.widths, "exponent": self.exponents}),
            "scales": Sweep(self._experiment(task, sizes, first=1e-3), {"scale": self.scales}),
            "orthogonal": self._experiment(fixed, blind),
            "imbalance": Sweep(self._experiment(white, opposed, Loss()), {"start.imbalance": self.imbalances}),
        }

    def _experiment(self, task, model, loss=SUM, first: float = 0.01) -> Experiment:
        flow = GradientFlow(self.until, loss, self.tolerance)
        probes = [ExcessLoss(), ImbalanceSpectrum(), MinimumNorm(), FrozenSubspace()]
        return Experiment(task, model, flow, probes, LogSpaced(61, first=first), precision="float64")

    def measure(self, name, what, seeds, key, progress):
        # Draws of data and weights scatter: exponents and rates want more of them.
        seeds = {"wide": 3, "scales": self.draws}.get(name, 1) * seeds
        return super().measure(name, what, seeds, key, progress)

    def claims(self, measured, theory):
        drift = {name: seen.imbalance_drift.max() for name, seen in measured.items()}
        yield Claim("C1", "the imbalance is conserved (largest change of the matrix, all networks, all times)",
                    measured=max(float(d) for d in drift.values()), at_most=1e-8, reason="an adaptive solver's error")
        moved = max(float(seen.frozen_displacement.max()) for seen in measured.values())
        yield Claim("C1b", "weights on inputs without data never move (largest change of an entry)", measured=moved, at_most=1e-10)

        yield Claim("C2", "the loss stays below the bound from the imbalance (largest loss over bound, all networks, all times)",
                    measured=max(float(self._over_bound(seen).max()) for seen in measured.values()), at_most=1.01,
                    reason="1 % for the solver; checked while the bound is above 1e-16 of the start")
        scales = measured["scales"]
        guaranteed = scales.convergence_rate.isel(time=0)
        yield Claim("C2b", "and its rate is of the right size for random weights (largest observed over guaranteed, scales from 0.5)",
                    measured=(self._observed_rate(scales) / guaranteed).sel(scale=[s for s in self.scales if s >= 0.5]).max("scale"),
                    at_most=2.0, reason="our factor: the bound counts the slowest mode alone, and small weights grow on the way")

        blind = measured["orthogonal"]
        yield Claim("C3", f"frozen weights orthogonal to the others: the minimum-norm solution is reached exactly at width {self.narrow} (distance)",
                    measured=blind.distance_to_minimum_norm.isel(time=-1).max(), at_most=1e-8)
        yield Claim("C3b", "and the map never leaves the data's span on the way (largest part outside)",
                    measured=blind.null_space_part.max(), at_most=1e-8)
        end = measured["wide"].isel(time=-1)
        identity = np.abs(end.distance_to_minimum_norm - end.frozen_bias).max()
        yield Claim("C3c", "random weights: the distance is exactly that of the frozen weights' product with the trained read-out (largest difference)",
                    measured=identity, at_most=1e-8)

        for name, exponent in zip(("C4", "C4b", "C4c"), self.exponents[::-1], strict=False):
            expected = 0.5 - 2 * exponent
            claimed = (-0.6, -0.35) if exponent == 0.5 else (expected - 0.1, expected + 0.1)
            slopes = [power_law(end.width, d).exponent for d in end.distance_to_minimum_norm.sel(exponent=exponent).transpose("seed", "width").values]
            yield Claim(name, f"entries N(0, h^-{2 * exponent:g}): the distance to the minimum norm goes as h^{expected:g} (exponent over widths)",
                        measured=slopes, between=claimed, reason="at these widths the read-out's own motion, which vanishes as h^-(1 - 2a), still adds to the fall" if 0.25 < exponent < 0.5 else "")
        rms = np.sqrt((end.distance_to_minimum_norm**2).mean("seed"))
        said = theory["wide"].null_space_part.isel(time=-1)
        yield Claim("C4d", "its size is the wide limit's (root mean square over draws, mean relative error over predicted cells)",
                    measured=np.abs(rms / said - 1).mean(), at_most=0.2, reason="a few draws of data leave about a fifth")

        opposed, predicted = measured["imbalance"], theory["imbalance"]
        times = crossing_time(np.log(opposed.relative_excess_loss), np.log(TRAINED), falling=True).fillna(self.until).mean("seed")
        yield Claim("C5", "the more imbalance at weights of one size, the sooner it is learned (rank correlation of c with time)",
                    measured=rank_correlation(times.imbalance, times), at_most=-0.99)
        yield Claim("C5b", "balanced weights (c = 0) may not learn at all (loss left over its start)",
                    measured=opposed.relative_excess_loss.sel(imbalance=0.0).isel(time=-1), at_least=0.1, reason="they run into the saddle at 0")
        error = np.abs(opposed.relative_excess_loss - predicted.relative_excess_loss).max(("imbalance", "time"))
        yield Claim("C5c", "the course follows the scalar closure K² - 4p² = c² (largest error of the relative loss)", measured=error, at_most=1e-3)
        constant = np.abs(opposed.convergence_constant.isel(time=0) - predicted.convergence_constant.isel(time=0)).max("imbalance")
        yield Claim("C5d", "and c is that of the start's geometry (largest error)", measured=constant, at_most=1e-10)
        smallest = min(self.scales)
        yield Claim("C5e", f"random weights: c grows with their size (c at scale {max(self.scales):g} over {smallest:g}, over the squared ratio of scales)",
                    measured=guaranteed.sel(scale=max(self.scales)) / guaranteed.sel(scale=smallest) / (max(self.scales) / smallest) ** 2,
                    expected=1.0, tolerance=1e-6, reason="the imbalance is quadratic in the weights, and the draws are the same")

    def _bound(self, seen) -> xr.DataArray:
        """The guaranteed relative loss, from the imbalance at the start."""
        return np.exp(-seen.convergence_rate.isel(time=0) * seen.time)

    def _over_bound(self, seen) -> xr.DataArray:
        bound = self._bound(seen)
        return (seen.relative_excess_loss / bound).where(bound > FLOOR)

    def _observed_rate(self, seen) -> xr.DataArray:
        """Mean rate of decay until the loss is a millionth of the start's."""
        return np.log(1e6) / crossing_time(np.log(seen.relative_excess_loss), -np.log(1e6), falling=True)

    def figures(self, measured, theory):
        yield Figure("convergence", f"Loss above its minimum, over its start, against time, for random weights of three sizes at width {self.width} "
                     "(one line for each draw); dashed, in the same colour, the bound from each draw's imbalance.",
                     lambda axes: self._draw_convergence(axes[0, 0], measured), size=(5.2, 3.4))
        yield Figure("bias", "Left: distance between the solution reached and the minimum-norm one against width, for initial weights of variance "
                     "h^(-2a); dots are means over draws (bars: one standard error), lines the wide limit. Right: the distance of each run is "
                     "that of its frozen weights' product with the trained read-out; plus signs: frozen weights orthogonal to the others.",
                     lambda axes: self._draw_bias(axes[0], measured, theory), grid=(1, 2))
        yield Figure("imbalance", "Two layers of one size that start against their target, with more or less imbalance. Left: loss, and the scalar "
                     "closure (lines). Middle: the guaranteed constant c against the imbalance over its largest at weights of that size. "
                     f"Right: time to {TRAINED:g} of the loss against c, and the closure's; dashed, the latest time that the bound allows.",
                     lambda axes: self._draw_imbalance(axes[0], measured, theory), grid=(1, 3))

    def _draw_convergence(self, axis, measured):
        seen = measured["scales"]
        for color, scale in zip(COLORS, self.scales, strict=False):
            one, bound = seen.relative_excess_loss.sel(scale=scale), self._bound(seen).sel(scale=scale)
            for seed in seen.seed:
                words = f"σ = {scale:g}" if seed == seen.seed[0] else None
                axis.plot(one.time[1:], one.sel(seed=seed)[1:], color=color, linewidth=1, label=words)
                axis.plot(one.time[1:], bound.sel(seed=seed)[1:], color=color, linewidth=0.9, linestyle="--")
        axis.plot([], [], color="0.3", linestyle="--", label="bound (theory)")
        label(axis, "time", "loss over its start", f"width {self.width}", xlog=True, ylog=True)
        axis.set_ylim(1e-18, 3)
        axis.legend(loc="lower left")

    def _draw_bias(self, axes, measured, theory):
        end, said = measured["wide"].isel(time=-1), theory["wide"].null_space_part.isel(time=-1)
        for color, exponent in zip(COLORS, self.exponents, strict=False):
            dots(axes[0], end.distance_to_minimum_norm.sel(exponent=exponent), "width", color=color)
            lines(axes[0], said.sel(exponent=exponent), "width", color=color, label=f"a = {exponent:g}")
        label(axes[0], "width h", "distance to the minimum norm", xlog=True, ylog=True)
        axes[0].set_yticks([0.1, 0.2, 0.5, 1, 2, 5], ["0.1", "0.2", "0.5", "1", "2", "5"])
        axes[0].set_xticks(self.widths, [str(w) for w in self.widths])
        for axis in (axes[0].xaxis, axes[0].yaxis):
            axis.minorticks_off()
        key_of_overlay(axes[0], loc="lower left")
        for color, exponent in zip(COLORS, self.exponents, strict=False):
            one = end.sel(exponent=exponent)
            axes[1].plot(one.frozen_bias.values.ravel(), one.distance_to_minimum_norm.values.ravel(), "o", color=color, markersize=3)
        blind = measured["orthogonal"].isel(time=-1)
        axes[1].plot(blind.frozen_bias, blind.distance_to_minimum_norm, "+", color="0.0", markersize=7, label="orthogonal start")
        ends = np.array([1e-16, 20.0])
        axes[1].plot(ends, ends, color="0.4", linewidth=0.9, zorder=1, label="identity (theory)")
        axes[1].legend(loc="upper left")
        label(axes[1], "|U₂(0) V(∞)ᵀ|", "distance to the minimum norm", "the bias is the frozen weights'", xlog=True, ylog=True)

    def _draw_imbalance(self, axes, measured, theory):
        seen, said = measured["imbalance"], theory["imbalance"]
        for color, imbalance in zip(shades(len(self.imbalances)), self.imbalances, strict=True):
            c = float(said.convergence_constant.sel(imbalance=imbalance).isel(time=0))
            lines(axes[0], said.relative_excess_loss.sel(imbalance=imbalance)[1:], color=color, label=f"c = {c:.2g}")
            dots(axes[0], seen.relative_excess_loss.sel(imbalance=imbalance).isel(time=slice(1, None)), every=3, color=color)
        label(axes[0], "time", "loss over its start", ylog=True)
        axes[0].set_ylim(1e-8, 2)
        key_of_overlay(axes[0], loc="center right", fontsize=7)
        dots(axes[1], seen.convergence_constant.isel(time=0), "imbalance", color=COLORS[0])
        lines(axes[1], said.convergence_constant.isel(time=0), "imbalance", color=COLORS[0])
        label(axes[1], "imbalance over its largest", "c, at the start")
        key_of_overlay(axes[1], loc="upper left")
        constants = said.convergence_constant.isel(time=0)
        inside = constants.imbalance[constants > 0]
        times = crossing_time(np.log(seen.relative_excess_loss), np.log(TRAINED), falling=True)
        moved = times.sel(imbalance=inside).assign_coords(imbalance=constants.sel(imbalance=inside).values)
        dots(axes[2], moved, "imbalance", color=COLORS[0], label="measured")
        fine = np.geomspace(float(moved.imbalance.min()), float(moved.imbalance.max()), 50)
        axes[2].plot(fine, [self._closure_time(c) for c in fine.tolist()], color=COLORS[0], label="scalar closure")
        axes[2].plot(fine, -np.log(TRAINED) / (2 * fine), "--", color="0.4", label="at the latest (bound)")
        label(axes[2], "c, from the imbalance", f"time to {TRAINED:g} of the loss", xlog=True, ylog=True)
        axes[2].legend()

    def _closure_time(self, constant: float) -> float:
        """When the scalar closure leaves a relative loss of `TRAINED`, from an opposed start of unit target."""
        size, time = 0.5, np.linspace(0.0, self.until, 4000)
        product = -np.sqrt(max(size**2 - constant**2 / 4, 0.0))
        left = (1 - opposed_mode(time, 1.0, product, constant)) / (1 - product)
        return float(time[np.argmax(left**2 <= TRAINED)])
