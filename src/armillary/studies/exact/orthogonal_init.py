"""Orthogonal weights keep very deep linear networks fast at a width that does not grow with depth."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from armillary.clock import Evenly
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least
from armillary.measures import crossing_time, rank_correlation
from armillary.models.normalised_chain import NormalisedLinear
from armillary.probes.linear_networks import ExcessLoss, GramOperator, SignalNorm, SubproductSpectrum
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, lines, shades
from armillary.rules import SGD, Descent, Loss
from armillary.study import Claim, Paper, Study
from armillary.tasks.regression import FixedDesign, conditioned_design
from armillary.theory.linear_convergence import log_norm_law

SUM = Loss(reduction="sum")
"""The paper's loss, half the sum of squares."""

WIDE = 32
"""Width from which the theorem's condition is taken to hold for the data used here (16 is below it)."""


@dataclass(frozen=True, kw_only=True)
class OrthogonalInitialisation(Study):
    """Orthogonal initial weights speed up a deep linear network through the whole of training, not only at its start:
    the loss falls geometrically, at a rate and a width that do not depend on depth.

    Gaussian weights need a width that grows in proportion to depth. Narrower, a signal's norm is a product of many
    chi-square ratios and vanishes, gradients with it, and training takes a time exponential in depth over width.
    """

    paper: ClassVar = Paper(
        "Provable Benefit of Orthogonal Initialization in Optimizing Deep Linear Networks",
        authors="Wei Hu, Lechao Xiao, Jeffrey Pennington", year=2020, arxiv="2001.05992",
    )  # fmt: skip
    seeds: ClassVar = {"smoke": 2, "desk": 3, "paper": 8}

    inputs: int = at_least(2, default=10)
    """Number of inputs, and of orthonormal samples."""
    outputs: int = at_least(1, default=5)
    """Number of outputs."""
    widths: tuple[int, ...] = at_least(10, default=(16, 32, 64, 128), smoke=(32,), paper=(16, 32, 64, 128, 256, 512))
    """Hidden widths."""
    depths: tuple[int, ...] = at_least(2, default=(4, 16, 64), smoke=(8,), paper=(4, 8, 16, 32, 64, 128, 256))
    """Depths in weight layers."""
    steps: int = at_least(20, default=120, smoke=60)
    """Steps of gradient descent, at the largest learning rate of the theorem."""
    narrow: int = at_least(10, default=16, smoke=10)
    """Width of the Gaussian networks whose slowing down is followed."""
    slow_depths: tuple[int, ...] = at_least(2, default=(8, 16, 32), smoke=(4, 8), paper=(8, 16, 24, 32, 40, 48))
    """Their depths."""
    slow_draws: int = at_least(1, default=3, smoke=1)
    """Draws of each of them for each seed of the others: medians over them scatter."""
    slow_steps: int = at_least(20, default=1000, smoke=100, paper=20_000)
    """Their steps."""
    gap: float = above(0.0, default=0.1)
    """Relative loss at which they count as trained."""
    flat_depth: int = at_least(2, default=256, smoke=8)
    """Depth, the square of the width, at which they do not train at all."""
    draws: int = at_least(2, default=128, smoke=16)
    """Draws of an untrained network of the narrow width and the largest depth."""

    def experiments(self):
        training = self._experiment(NormalisedLinear(rate_by_depth=True), self.steps)
        grid = {"width": self.widths, "depth": self.depths}
        still = self._experiment(NormalisedLinear(max(self.depths), self.narrow), 0, [SignalNorm()])
        return {
            "orthogonal": Sweep(training, grid),
            "gaussian": Sweep(self._experiment(self._gaussian(), self.steps), grid),
            "slow": Sweep(self._experiment(self._gaussian(), self.slow_steps, [ExcessLoss()], 301), {"depth": self.slow_depths}),
            "flat": self._experiment(self._gaussian(self.flat_depth), self.steps, [ExcessLoss()]),
            "signals": Sweep(still, {"orthogonal": [True, False]}),
        }

    def _gaussian(self, depth: int = 2) -> NormalisedLinear:
        return NormalisedLinear(depth, self.narrow, orthogonal=False, rate_by_depth=True)

    def _experiment(self, model, steps, probes=None, looks: int = 41) -> Experiment:
        task = FixedDesign(conditioned_design(self.inputs, self.inputs), self.outputs)
        rule = Descent(SGD(self.outputs / 2), steps, SUM)  # the theorem's largest rate, times depth
        probes = [ExcessLoss(), SubproductSpectrum(), GramOperator()] if probes is None else probes
        return Experiment(task, model, rule, probes, Evenly(looks), precision="float64")

    def measure(self, name, what, seeds, key, progress):
        # The late factor and the medians of slow runs scatter over draws, as do signals.
        seeds = {"signals": self.draws, "slow": self.slow_draws * seeds, "orthogonal": 2 * seeds}.get(name, seeds)
        return super().measure(name, what, seeds, key, progress)

    def claims(self, measured, theory):
        wide = [m for m in self.widths if m >= WIDE]
        deep, shallow = max(self.depths), min(self.depths)
        orthogonal, loss = measured["orthogonal"], measured["orthogonal"].relative_excess_loss
        factor = self._factor(loss)
        said = theory["orthogonal"].relative_excess_loss_bound
        checked = loss.where(said > 1e-15).isel(time=slice(1, None))  # in units of the start; later is rounding
        yield Claim("C1", f"orthogonal: a step multiplies the loss by at most the theorem's factor at every depth (largest, width ≥ {WIDE})",
                    measured=factor.sel(width=wide).max(("width", "depth")), at_most=float(said.sel(width=wide).isel(time=1).max()) ** (1 / float(said.time[1])))
        yield Claim("C1b", f"and is below the bound throughout (largest loss over bound, width ≥ {WIDE})",
                    measured=(checked / said).sel(width=wide).max(("width", "depth", "time")), at_most=1.0)
        late = (1 - self.outputs / 2 * orthogonal.gram_smallest.isel(time=-1)) ** 2
        yield Claim("C1c", "the factor late in training is that of the Gram operator reached (largest relative error)",
                    measured=np.abs(self._factor(loss, since=1e-16, until=1e-26) / late - 1).sel(width=wide).max(("width", "depth")), at_most=0.02,
                    reason="read off between 1e-16 and 1e-26 of the start; earlier (1e-10 to 1e-20) the next eigenvalues, close by in wide networks, still count, which left it undecided at 0.02")
        narrow = min(self.widths)
        yield Claim("C1d", f"the width condition matters: at width {narrow} and depth {deep} the loss falls more slowly than the bound",
                    measured=factor.sel(width=narrow, depth=deep), at_least=0.75)

        mean = factor.sel(width=wide).mean("seed")
        yield Claim("C2", f"orthogonal: the factor does not depend on depth (largest spread over depths, width ≥ {WIDE})",
                    measured=(mean.max("depth") - mean.min("depth")).max(), at_most=0.1)
        iterations = self._iterations(loss, 1e-10).sel(width=wide).mean("seed")
        yield Claim("C2b", f"nor does the number of steps to 1e-10 of the loss (depth {deep} over {shallow}, largest over widths)",
                    measured=(iterations.sel(depth=deep) / iterations.sel(depth=shallow)).max(), at_most=1.5)

        ends = {name: self._final(measured[name]) for name in ("orthogonal", "gaussian")}
        slower = (ends["gaussian"] - ends["orthogonal"]).sel(depth=deep, width=[m for m in self.widths if m <= 64])
        yield Claim("C3", f"Gaussian: at depth {deep} and widths up to 64 the final loss is ten orders larger (smallest log10 ratio)",
                    measured=slower.min("width"), at_least=10.0, reason="a run that diverged counts with its loss at the start")
        cells = ends["gaussian"].mean("seed")
        yield Claim("C3b", "and grows with depth over width (rank correlation of log10 loss over all cells)",
                    measured=rank_correlation(cells.depth / cells.width, cells.transpose("depth", "width")), at_least=0.9)
        slow = self._slow(measured["slow"])
        ratio = slow.depth / self.narrow
        yield Claim("C3c", "steps to a tenth of the loss grow at least as e^(depth/width) (growth of their logarithm; median over draws)",
                    measured=np.polyfit(ratio.values, np.log(slow.values), 1)[0], at_least=1.0,
                    reason="the Gram operator is typically e^(-depth/width) of its orthogonal value")
        fits = [np.corrcoef(x, np.log(slow.values))[0, 1] ** 2 for x in (ratio.values, np.log(ratio.values))]
        yield Claim("C3g", "and that growth is exponential rather than a power of depth (R² of the exponential less that of the power)",
                    measured=fits[0] - fits[1], at_least=0.0,
                    reason="not seen at desk size: depths within 2 widths and medians of few draws; deeper ones are not trained in the steps there are")
        flat = measured["flat"].relative_excess_loss
        yield Claim("C3d", f"at a width of {self.narrow} and depth {self.flat_depth} nothing is learned (final loss over the start's)",
                    measured=flat.isel(time=-1), between=(0.8, 1.2), reason="the theorem's 0.4 to 0.6 |Y|², in units of the start's |Y|²/2")
        norm = measured["signals"].log_squared_norm.isel(time=0, gap=-1)
        yield Claim("C3e", "the mechanism: a signal's log squared norm falls as the chi-square law says (after the last hidden layer)",
                    measured=norm.sel(orthogonal=False), expected=log_norm_law(deep - 1, self.narrow)[0], tolerance=0.2, relative=True,
                    reason="its standard deviation is 3; the draws leave 6 % of the mean")
        yield Claim("C3f", "and stays with orthogonal weights (largest change of the logarithm)",
                    measured=np.abs(norm.sel(orthogonal=True)).max(), at_most=1e-10)

        moved = self._stretch(orthogonal).sel(width=wide)
        yield Claim("C4", f"isometry persists: sub-products' singular values stay within a factor 2 of their start (largest, width ≥ {WIDE})",
                    measured=moved.max(("width", "depth")), at_most=2.0, reason="the paper asks for some constant; 2 was set before measuring")
        grown = moved.mean("seed")
        yield Claim("C4b", f"and that factor does not grow with depth (depth {deep} over {shallow}, largest over widths)",
                    measured=(grown.sel(depth=deep) / grown.sel(depth=shallow)).max(), at_most=1.2)

    def _iterations(self, loss: xr.DataArray, level: float) -> xr.DataArray:
        """Steps until the relative loss is `level`, linear in its logarithm."""
        logarithm: xr.DataArray = xr.apply_ufunc(np.log, loss.clip(1e-300))
        return crossing_time(logarithm, float(np.log(level)), falling=True)

    def _factor(self, loss: xr.DataArray, since: float = 1.0, until: float = 1e-20) -> xr.DataArray:
        """Mean factor of a step between `since` and `until` of the start's loss, or the end."""
        begin = 0.0 if since == 1 else self._iterations(loss, since)
        end = self._iterations(loss, until)
        known = (np.log(until) - np.log(since)) / (end - begin)
        rest = (np.log(loss.isel(time=-1)) - np.log(since)) / (float(loss.time[-1]) - begin)
        return np.exp(known.fillna(rest))

    def _final(self, seen) -> xr.DataArray:
        """log10 of the final relative loss; a run that diverged has not got below its start."""
        return np.log10(seen.relative_excess_loss.isel(time=-1).fillna(1.0))

    def _slow(self, seen) -> xr.DataArray:
        """Median steps to the gap; runs that did not reach it count with all their steps."""
        return self._iterations(seen.relative_excess_loss, self.gap).fillna(self.slow_steps).median("seed")

    def _stretch(self, seen) -> xr.DataArray:
        """The largest factor by which any sub-product's singular value has moved from its start, either way."""
        factors = []
        for values in (seen.lower_singular_values, seen.upper_singular_values):
            change = np.abs(np.log(values / values.isel(time=0)))
            factors.append(np.exp(change.max(("time", "gap", "rank"))))
        return np.maximum(*factors)

    def figures(self, measured, theory):
        yield Figure("losses", f"Loss above its minimum, over its start, of deep linear networks {self._shown()} wide, one line for each "
                     "draw. Left: from orthogonal weights, at any depth below the theorem's bound (black) and above the limit of "
                     "infinite width (dotted). Right: from Gaussian weights.",
                     lambda axes: self._draw_losses(axes[0], measured, theory), grid=(1, 2))
        yield Figure("grid", f"log₁₀ of the relative loss after {self.steps} steps, over width and depth (mean over draws; a number in brackets "
                     "counts runs that diverged, which enter as 0).",
                     lambda axes: self._draw_grid(axes[0], measured), grid=(1, 2))
        yield Figure("isometry", f"Left: singular values of the product of all layers at width {self._shown()} and depth {max(self.depths)}, first "
                     "draw that did not diverge. Right: largest factor by which a sub-product's singular value moves in training from orthogonal weights.",
                     lambda axes: self._draw_isometry(axes[0], measured), grid=(1, 2))
        yield Figure("vanishing", f"Left: log squared norm of a signal through {max(self.depths) - 1} layers {self.narrow} wide before training, "
                     f"mean over {self.draws} draws; the band is the chi-square law's standard deviation. Right: steps to {self.gap:g} of the loss "
                     f"from Gaussian weights at width {self.narrow} (dots; median circled; triangles: not reached) with the fitted exponential and power of depth.",
                     lambda axes: self._draw_vanishing(axes[0], measured, theory), grid=(1, 2))

    def _shown(self) -> int:
        return WIDE if WIDE in self.widths else max(self.widths)

    def _draw_losses(self, axes, measured, theory):
        width = self._shown()
        said = theory["orthogonal"].sel(width=width).isel(depth=0)
        for axis, name in zip(axes, ("orthogonal", "gaussian"), strict=True):
            loss = measured[name].relative_excess_loss.sel(width=width)
            for color, depth in zip(COLORS, self.depths, strict=False):
                for seed in loss.seed:
                    words = f"depth {depth}" if seed == loss.seed[0] else None
                    axis.plot(loss.time, loss.sel(depth=depth, seed=seed), color=color, linewidth=1, label=words)
            lines(axis, said.relative_excess_loss_bound, color="0.0", linestyle="--", label="bound (theory)")
            lines(axis, said.relative_excess_loss_wide, color="0.4", linestyle=":", label="infinite width (theory)")
            label(axis, "step", "loss over its start", f"{name.replace('gaussian', 'Gaussian')}, width {width}", ylog=True)
            axis.set_ylim(1e-32, 1e3)
        axes[1].legend(loc="lower right", fontsize=7)

    def _draw_grid(self, axes, measured):
        image = None
        cells = {name: self._final(measured[name]).mean("seed").transpose("depth", "width") for name in ("orthogonal", "gaussian")}
        for axis, (name, values) in zip(axes, cells.items(), strict=True):
            image = axis.imshow(values, origin="lower", aspect="auto", cmap="viridis", vmin=-30, vmax=0)
            gone = measured[name].diverged_at.notnull().sum("seed").transpose("depth", "width").values
            for (i, j), value in np.ndenumerate(values.values):
                text = f"{value:.1f}" + (f" ({gone[i, j]})" if gone[i, j] else "")
                axis.text(j, i, text, ha="center", va="center", color="white" if value < -12 else "black", fontsize=8)
            axis.set_xticks(range(len(self.widths)), [str(w) for w in self.widths])
            axis.set_yticks(range(len(self.depths)), [str(d) for d in self.depths])
            axis.grid(False)
            label(axis, "width", "depth", name.replace("gaussian", "Gaussian"))
        axes[1].figure.colorbar(image, ax=list(axes), label="log₁₀ loss over its start")

    def _draw_isometry(self, axes, measured):
        for color, name in zip(COLORS, ("orthogonal", "gaussian"), strict=False):
            seen = measured[name].product_singular_values.sel(width=self._shown(), depth=max(self.depths))
            fine = measured[name].diverged_at.sel(width=self._shown(), depth=max(self.depths)).isnull()
            whole = seen.dropna("rank", how="all").isel(seed=int(np.argmax(fine.values)))
            for rank in whole["rank"].values:
                axes[0].plot(whole.time, whole.sel(rank=rank), color=color, linewidth=1.2,
                             label=name.replace("gaussian", "Gaussian") if rank == 1 else None)  # fmt: skip
        label(axes[0], "step", "singular values of the product", f"depth {max(self.depths)}, width {self._shown()}", ylog=True)
        axes[0].set_ylim(1e-6, 3)
        axes[0].legend(loc="lower right", ncols=2)
        for color, depth in zip(COLORS, self.depths, strict=False):
            dots(axes[1], self._stretch(measured["orthogonal"]).sel(depth=depth), "width", color=color, linestyle="-", label=f"depth {depth}")
        axes[1].axhline(2.0, color="0.5", linestyle="--", linewidth=0.8)
        label(axes[1], "width", "largest change (factor)", "sub-products in training", xlog=True)
        axes[1].set_xticks(self.widths, [str(w) for w in self.widths])
        axes[1].xaxis.minorticks_off()
        axes[1].legend()

    def _draw_vanishing(self, axes, measured, theory):
        norm, said = (t["signals"].log_squared_norm.isel(time=0) for t in (measured, theory))
        for color, orthogonal in zip(COLORS, (True, False), strict=False):
            lines(axes[0], said.sel(orthogonal=orthogonal), "gap", color=color, label="orthogonal" if orthogonal else "Gaussian")
            dots(axes[0], norm.sel(orthogonal=orthogonal), "gap", every=4, color=color)
        mean, variance = log_norm_law(said.gap.values, self.narrow)
        spread = np.sqrt(variance)
        axes[0].fill_between(said.gap, mean - spread, mean + spread, color=COLORS[1], alpha=0.15, linewidth=0)
        label(axes[0], "layer", "log squared norm of a signal", f"untrained, width {self.narrow}")
        key_of_overlay(axes[0], loc="lower left")
        each = self._iterations(measured["slow"].relative_excess_loss, self.gap)
        ratio, median = each.depth.values / self.narrow, self._slow(measured["slow"])
        for seed in each.seed:
            axes[1].plot(ratio, each.sel(seed=seed), ".", color=COLORS[1], alpha=0.6)
        never = each.isnull().sum("seed").values
        axes[1].plot(ratio[never > 0], np.full((never > 0).sum(), self.slow_steps), "^", mfc="none", color=COLORS[1])
        axes[1].plot(ratio, median, "o", mfc="none", color="0.0", label="median")
        slope, offset = np.polyfit(ratio, np.log(median), 1)
        axes[1].plot(ratio, np.exp(offset + slope * ratio), color=shades(2)[0], label=f"∝ exp({slope:.2f} depth/width)")
        power, factor = np.polyfit(np.log(ratio), np.log(median), 1)
        axes[1].plot(ratio, np.exp(factor) * ratio**power, "--", color="0.4", label=f"∝ depth^{power:.2f}")
        label(axes[1], "depth over width", f"steps to {self.gap:g} of the loss", f"Gaussian, width {self.narrow}", ylog=True)
        axes[1].legend()
