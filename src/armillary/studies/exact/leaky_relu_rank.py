"""One step from small weights makes a leaky ReLU network nearly rank one, and it ends with a linear boundary."""

from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from armillary.clock import At
from armillary.errors import ProbeError
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least, between
from armillary.models.committee import Committee, CommitteeNetwork
from armillary.probes.losses import Accuracy, Losses
from armillary.probes.margins import BoundaryLinearity, DataOverlap, Margins
from armillary.probes.probing import Probe
from armillary.probes.spectra import StableRank
from armillary.quantity import Quantity
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, shades
from armillary.rules import SGD, Descent, Loss
from armillary.simulation import simulate
from armillary.study import Claim, Paper, Study
from armillary.tasks.classification import GaussianClasses, RandomLift
from armillary.tasks.digits import Digits
from armillary.theory.max_margin import OneStepCollapse, margin_direction

LOGISTIC = Loss("logistic")

GROWING = Loss("exponential", reduction="log_mean")
"""Steps over the mean exponential loss: they grow as it falls, and nothing underflows."""


class LimitDirection(Probe):
    """Cosine of the weights and the predicted max-margin direction of the network's own data.

    Returns `limit_cosine`, a scalar in [-1, 1]; `assumed_share`, the share of samples at which the prediction's own pattern
    of active units and signs of multipliers holds; `least_multiplier`, the smallest over the largest. Needs a leaky
    ReLU `Committee`; raises `ProbeError` for others. Cost: one solve of samples x samples.
    """

    def __call__(self, now):
        network, train = now.network, now.data.train
        if not isinstance(network, CommitteeNetwork) or network.slope is None:
            raise ProbeError(f"LimitDirection needs a leaky ReLU Committee's network, not a {type(network).__name__}")
        said = margin_direction(train.inputs, train.targets[:, 0], jnp.asarray(network.slope), network.signs, network.size)
        units = jnp.where(network.signs[:, None] > 0, said.positive, said.negative)
        weights = network.weights / jnp.max(jnp.abs(network.weights))
        inner = jnp.sum(weights[:, : units.shape[1]] * units)
        return {
            "limit_cosine": Quantity(inner / (jnp.linalg.norm(weights) * jnp.linalg.norm(units)), long_name="cosine with the max-margin direction"),
            "assumed_share": Quantity(jnp.mean(said.holds), long_name="samples at which the prediction's pattern holds"),
            "least_multiplier": Quantity(jnp.min(said.multipliers) / jnp.max(said.multipliers), long_name="least multiplier over the largest"),
        }


class BoundarySlice(Probe):
    """Outputs on a grid of the plane spanned by the mean weights of the units of either sign.

    Returns `slice_output`, float[down, across], over its own largest size: inputs across and down from -1 to 1, in units
    of the two orthonormal directions that Gram and Schmidt make of the means. Needs a `Committee`'s network.
    """

    points: int = eqx.field(static=True, default=41)

    def __call__(self, now):
        network = now.network
        means = [jnp.where((network.signs * s > 0)[:, None], network.weights, 0.0).sum(axis=0) for s in (1, -1)]
        across = means[0] / jnp.linalg.norm(means[0])
        down = means[1] - (means[1] @ across) * across
        down = down / jnp.linalg.norm(down)
        seen = network.weights @ jnp.stack([across, down], axis=1)
        grid = jnp.linspace(-1, 1, self.points)
        output = network.phi(grid[None, :, None] * seen[:, 0] + grid[:, None, None] * seen[:, 1]) @ network.second_layer
        return {"slice_output": Quantity(output / jnp.max(jnp.abs(output)), ("down", "across"), long_name="output")}


@dataclass(frozen=True, kw_only=True)
class LeakyReluRank(Study):
    """Two-layer leaky ReLU networks classify a few nearly orthogonal inputs in many dimensions. Their direction tends to a
    max-margin solution in which all units of one sign are the same: rank two, a linear boundary, and every sample a
    support vector, so that it follows from one linear system.

    Descent from small weights collapses the stable rank in its first step, by the share of the step that is of rank one;
    from large weights the initial noise stays. The limit needs inputs much nearer to orthogonal than the first step does.
    """

    paper: ClassVar = Paper(
        "Implicit Bias in Leaky ReLU Networks Trained on High-Dimensional Data",
        authors="Spencer Frei, Gal Vardi, Peter L. Bartlett, Nathan Srebro, Wei Hu", year=2022, arxiv="2210.07082",
    )  # fmt: skip
    seeds: ClassVar = {"smoke": 2, "desk": 4, "paper": 8}

    dimension: int = at_least(50, default=1500, smoke=100, paper=20_000)
    """Number of inputs."""
    samples: int = at_least(4, default=30, smoke=8, paper=60)
    """Training samples, with random labels."""
    fewer: int = at_least(4, default=8, paper=20)
    """Training samples where they are nearer to orthogonal."""
    width: int = at_least(2, default=50, paper=200)
    """Hidden units."""
    slope: float = between(0.0, 1.0, default=0.1)
    """Slope below 0."""
    slopes: tuple[float, ...] = between(0.0, 1.0, default=(0.1, 0.3, 0.5), smoke=(0.1,))
    """Slopes of the late runs, the first being that of the others."""
    scales: tuple[float, ...] = above(0.0, default=(1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1), smoke=(1e-4, 1e-2, 1e-1))
    """Standard deviations of the initial weights, from small to large."""
    learning_rate: float = above(0.0, default=0.5)
    """Learning rate under the mean logistic loss."""
    steps: int = at_least(100, default=1000, smoke=100)
    """Steps of those runs."""
    late_rate: float = above(0.0, default=0.02, smoke=0.05, paper=0.0015)
    """Learning rate of the late runs, on the logarithm of the mean exponential loss."""
    late_steps: int = at_least(1000, default=10_000, smoke=1000)
    """Steps of the late runs."""
    smoothing: float = above(0.0, default=1.0)
    """Width of the smoothed activation's bend."""
    features: int = at_least(50, default=1500, smoke=100, paper=4000)
    """Random features of the lifted digits."""
    frequencies: tuple[float, ...] = above(0.0, default=(0.5, 1.0, 2.0, 4.0), smoke=(1.0, 4.0))
    """Their frequencies: the higher, the nearer to orthogonal."""
    digits_steps: int = at_least(10, default=100, smoke=20, paper=1000)
    """Steps on the digits."""

    def experiments(self):
        small, large = min(self.scales), max(self.scales)
        late = self._experiment(self._gaussian(self.samples), self._model(small), self.late_steps, GROWING, exact=True)
        draws = self._experiment(self._gaussian(self.samples), self._model(small), self.steps, GROWING)
        few = self._experiment(self._gaussian(self.fewer), self._model(small), self.steps, GROWING, exact=True)
        start = self._experiment(self._gaussian(self.samples), self._model(small), self.steps, LOGISTIC)
        smooth = self._experiment(self._gaussian(self.samples), self._model(small, self.smoothing), 100, LOGISTIC)
        lifted = RandomLift(self._digits(), self.features, norm=float(np.sqrt(self.features)))
        digits = self._experiment(lifted, self._model(small), self.digits_steps, LOGISTIC)
        plain = self._experiment(self._digits(), self._model(small), self.digits_steps, LOGISTIC)
        return {
            "starts": Sweep(start, {"model.scale": self.scales}),
            "late": Sweep(late, {"slope": self.slopes}),
            "fewer": Sweep(few, {"slope": (self.slope,)}),
            "draws": draws,
            "smooth": smooth,
            "lifted digits": Sweep(digits, {"frequency": self.frequencies, "model.scale": (small, large)}),
            "digits": Sweep(plain, {"model.scale": (small, large)}),
        }

    def measure(self, name, what, seeds, key, progress):
        # What bends the boundary differs from draw to draw: twelve times as many of them.
        return simulate(what, seeds=12 * seeds if name == "draws" else seeds, key=key, progress=progress)

    def _gaussian(self, samples: int) -> GaussianClasses:
        return GaussianClasses(self.dimension, samples, framed=True, test_samples=0)

    def _digits(self) -> Digits:
        return Digits(self.samples, "parity", reshuffle=True)

    def _model(self, scale: float, smoothing: float | None = None) -> Committee:
        return Committee(self.width, slope=self.slope, scale=scale, smoothing=smoothing)

    def _experiment(self, task, model, steps: int, loss: Loss, *, exact: bool = False) -> Experiment:
        times = {0, *np.geomspace(1, steps, round(4 * np.log10(steps)) + 1).round().tolist()}
        probes = [StableRank(), BoundaryLinearity(), DataOverlap()]
        probes += [LimitDirection(), Margins(), BoundarySlice()] if exact else []
        probes += [Losses(), Accuracy()] if isinstance(task, RandomLift | Digits) else []
        rate = self.late_rate if loss is GROWING else self.learning_rate
        return Experiment(task, model, Descent(SGD(rate), steps, loss), probes, At(tuple(sorted(times))), "float64" if exact else "float32")

    def claims(self, measured, theory):
        small, large = min(self.scales), max(self.scales)
        late, few, starts = measured["late"], measured["fewer"].sel(slope=self.slope), measured["starts"].isel(layer=0)
        end = late.isel(time=-1, layer=0)
        first, best = end.sel(slope=self.slopes[0]), end.sel(slope=max(self.slopes))
        yield Claim("C1", f"late weights have the direction of the linear system's solution (cosine at step {self.late_steps}, slope {self.slopes[0]:g})",
                    measured=first.limit_cosine, at_least=0.95)
        yield Claim("C1a", f"at slope {max(self.slopes):g}", measured=best.limit_cosine, at_least=0.95)
        yield Claim("C1b", f"and with {self.fewer} samples at slope {self.slope:g}", measured=few.limit_cosine.isel(time=-1), at_least=0.95)
        decades = [10.0**k for k in (2, 3, 4) if 10**k <= self.late_steps]
        for name, slope in (("C2", self.slopes[0]), ("C2a", max(self.slopes))):
            third = late.singular_ratio.isel(layer=0).sel(rank=3, slope=slope, time=decades).mean("seed").values
            yield Claim(name, f"the direction loses its third singular value (largest ratio from one decade of steps to the next, from step 100, slope {slope:g})",
                        measured=np.max(third[1:] / third[:-1]), at_most=1.0,
                        reason="" if slope != self.slopes[0] else "inputs held at the bend of some units: the assumed pattern is missed there, and the limit has rank above two")
        yield Claim("C2b", f"until it has rank two (third singular value over the first at the end, slope {max(self.slopes):g})",
                    measured=best.singular_ratio.sel(rank=3), at_most=0.01, reason="the entry gives no number")
        yield Claim("C2c", f"at slope {self.slopes[0]:g}", measured=first.singular_ratio.sel(rank=3), at_most=0.01,
                    reason=f"overlaps of {float(first.overlap_ratio.mean()):.2g} where the theorem asks for about slope³/3: the pattern holds at {float(first.assumed_share.mean()):.2g} of the samples")
        yield Claim("C2d", f"and at slope {self.slope:g} with {self.fewer} samples", measured=few.singular_ratio.isel(layer=0, time=-1).sel(rank=3), at_most=0.01)
        yield Claim("C3", "every sample is a support vector (least multiplier of the linear system over the largest)",
                    measured=end.least_multiplier.min(), at_least=0.0)
        yield Claim("C3a", f"all margins become equal (smallest over largest at the end, slope {max(self.slopes):g})",
                    measured=best.margin_spread, at_least=0.99, reason="the entry gives no number")
        yield Claim("C3b", f"at slope {self.slopes[0]:g}", measured=first.margin_spread, at_least=0.99)

        yield Claim("C4", f"the boundary becomes linear (agreement with the linear rule on fresh inputs, slope {self.slope:g}, step {self.steps}, more draws)",
                    measured=measured["draws"].boundary_agreement.isel(time=-1), at_least=0.99,
                    reason="the mean over draws lies at the threshold: of 192 draws it was 0.9893 ± 0.0005. Inputs held at the bend of some units keep the boundary bent")
        yield Claim("C4a", f"at slope {max(self.slopes):g}", measured=best.boundary_agreement, at_least=0.99)
        yield Claim("C4b", "which it is not at the start", measured=late.boundary_agreement.isel(time=0).sel(slope=self.slopes[0]), at_most=0.95,
                    reason="the entry says clearly lower; it gives no number")

        rank = starts.stable_rank
        yield Claim("C5", f"from weights of {small:g} one step collapses the stable rank (after step 1)", measured=rank.sel(scale=small, time=1), at_most=2.5)
        yield Claim("C5a", "which was of the order of the units' number", measured=rank.sel(scale=small, time=0), at_least=20.0)
        yield Claim("C5b", "and it stays (the largest from step 1 on)", measured=rank.sel(scale=small, time=slice(1, None)).max(), at_most=2.5)
        yield Claim("C5c", f"from weights of {large:g} it does not (after step 1)", measured=rank.sel(scale=large, time=1), at_least=20.0)
        yield Claim("C5d", f"nor later (the smallest up to step {self.steps})", measured=rank.sel(scale=large).min(), at_least=20.0)
        if "starts" in theory:
            ratio = (rank.sel(time=1) / theory["starts"].stable_rank.isel(layer=0).sel(time=1)).mean("seed")
            yield Claim("C5e", "theory gives the stable rank after step 1 from every start (ratio farthest from 1)",
                        measured=ratio.values[np.argmax(np.abs(np.log(ratio.values)))], expected=1.0, tolerance=0.1, reason="samples over dimensions is 0.02, its root the order of what is left out")
        smooth = measured["smooth"].stable_rank.isel(layer=0)
        yield Claim("C5f", f"and so for the smoothed activation (bend {self.smoothing:g}, the largest from step 1 on)",
                    measured=smooth.sel(time=slice(1, None)).max(), at_most=2.5)

        lifted = measured["lifted digits"].isel(layer=0).sel(frequency=max(self.frequencies))
        yield Claim("C6", f"digits lifted to {self.features} features: the stable rank collapses from weights of {small:g} (after step 1)",
                    measured=lifted.stable_rank.sel(scale=small, time=1), at_most=2.5)
        yield Claim("C6a", f"and not from {large:g}", measured=lifted.stable_rank.sel(scale=large, time=1), at_least=20.0)
        yield Claim("C6b", "their inputs are nearly orthogonal (overlap ratio n max|x·x'|/min|x|²)",
                    measured=lifted.overlap_ratio.isel(time=0).sel(scale=small), at_most=1.0,
                    reason="below 1 is the least that such theorems ask; two digits alike, and features' noise, are above it")
        yield Claim("C6c", "as the plain ones are not", measured=measured["digits"].overlap_ratio.isel(time=0).sel(scale=small), at_least=5.0)

    def figures(self, measured, theory):
        yield Figure("rank", f"Stable rank of {self.width} units' weights. Left: over steps, by the initial weights' deviation. Right: after one step "
                     "against that size, by theory and measured.", lambda axes: self._draw_rank(axes[0], measured, theory), grid=(1, 2))
        yield Figure("limit", "Late training on the logarithm of the exponential loss. Left: sine of the angle to the direction that the linear system predicts. Middle: third "
                     "singular value over the first. Right: smallest over largest margin. Dashed: fewer samples.", lambda axes: self._draw_limit(axes[0], measured), grid=(1, 3))
        yield Figure("boundary", "Left: agreement with the linear rule on fresh Gaussian inputs. Middle and right: outputs on the plane of the mean weights of either sign, and the "
                     "boundary, at the end for the smallest and the largest slope.", lambda axes: self._draw_boundary(axes[0], measured), grid=(1, 3))
        yield Figure("digits", "Even against odd digits. Left: overlap of the inputs, lifted and plain (dashed). Right: stable rank after one step from small and large weights.",
                     lambda axes: self._draw_digits(axes[0], measured), grid=(1, 2))

    def _draw_rank(self, axes, measured, theory):
        rank = measured["starts"].stable_rank.isel(layer=0)
        for color, scale in zip(shades(len(self.scales)), self.scales, strict=True):
            dots(axes[0], rank.sel(scale=scale), color=color, label=f"{scale:g}", linestyle="-", linewidth=1)
        axes[0].set_xscale("symlog", linthresh=1)
        label(axes[0], "step", "stable rank", "by initial deviation", ylog=True)
        axes[0].set_yticks([1, 2, 5, 10, 20, 40], ["1", "2", "5", "10", "20", "40"])
        axes[0].minorticks_off()
        axes[0].legend(loc="lower left", fontsize=7)
        scales = np.geomspace(min(self.scales) / 2, max(self.scales) * 2, 100)
        starts = self.experiments()["starts"]
        said = [OneStepCollapse().predict(starts.at({"scale": scale})).stable_rank.values[1, 0] for scale in scales.tolist()]
        axes[1].plot(scales, said, color=COLORS[0])
        dots(axes[1], rank.sel(time=1), "scale", color=COLORS[0])
        label(axes[1], "deviation of the initial weights", "stable rank after one step", "theory and measured", xlog=True, ylog=True)
        axes[1].set_yticks([1, 2, 5, 10, 20, 40], ["1", "2", "5", "10", "20", "40"])
        axes[1].minorticks_off()
        key_of_overlay(axes[1], loc="upper left")

    def _draw_limit(self, axes, measured):
        cases = [(measured["late"].sel(slope=slope), f"slope {slope:g}", "-") for slope in self.slopes]
        cases.append((measured["fewer"].sel(slope=self.slope), f"slope {self.slope:g}, {self.fewer} samples", "--"))
        for color, (seen, words, style) in zip(COLORS, cases, strict=False):
            given = {"color": color, "label": words, "linestyle": style, "linewidth": 1}
            seen = seen.isel(time=slice(1, None))
            dots(axes[0], np.sqrt(1 - np.minimum(seen.limit_cosine**2, 1)), **given)
            dots(axes[1], seen.singular_ratio.isel(layer=0).sel(rank=3), **given)
            dots(axes[2], seen.margin_spread, **given)
        label(axes[0], "step", "sine of the angle", "to the max-margin direction", xlog=True, ylog=True)
        label(axes[1], "step", "third over first", "singular value", xlog=True, ylog=True)
        label(axes[2], "step", "smallest over largest", "margin", xlog=True)
        axes[2].legend(loc="lower right", fontsize=7)

    def _draw_boundary(self, axes, measured):
        late = measured["late"]
        for color, slope in zip(COLORS, self.slopes, strict=False):
            dots(axes[0], late.boundary_agreement.sel(slope=slope), color=color, label=f"slope {slope:g}", linestyle="-", linewidth=1)
        axes[0].set_xscale("symlog", linthresh=1)
        label(axes[0], "step", "agreement with the linear rule")
        axes[0].legend(loc="lower right", fontsize=7)
        grid = np.linspace(-1, 1, late.sizes["across"])
        for axis, slope in ((axes[1], min(self.slopes)), (axes[2], max(self.slopes))):
            shown = late.slice_output.sel(slope=slope).isel(seed=0, time=-1).values
            axis.pcolormesh(grid, grid, shown, cmap="RdBu_r", vmin=-1, vmax=1, shading="nearest", rasterized=True)
            axis.contour(grid, grid, shown, levels=[0.0], colors="k", linewidths=1.2)
            axis.grid(visible=False)
            label(axis, "along v", "along u, orthogonal to v", f"slope {slope:g}")

    def _draw_digits(self, axes, measured):
        lifted, plain = measured["lifted digits"].isel(layer=0), measured["digits"].isel(layer=0)
        small = min(self.scales)
        dots(axes[0], lifted.overlap_ratio.isel(time=0).sel(scale=small), "frequency", color=COLORS[0], linestyle="-", linewidth=1)
        axes[0].axhline(float(plain.overlap_ratio.isel(time=0).sel(scale=small).mean()), color=COLORS[1], linestyle="--")
        axes[0].axhline(1.0, color="0.3", linestyle=":")
        label(axes[0], "frequency of the features", "n max|x·x'| / min|x|²", "overlap", xlog=True, ylog=True)
        for color, scale in zip(COLORS, (small, max(self.scales)), strict=False):
            dots(axes[1], lifted.stable_rank.sel(scale=scale, time=1), "frequency", color=color, label=f"weights of {scale:g}", linestyle="-", linewidth=1)
            axes[1].axhline(float(plain.stable_rank.sel(scale=scale, time=1).mean()), color=color, linestyle="--")
        label(axes[1], "frequency of the features", "stable rank after one step", xlog=True, ylog=True)
        axes[1].legend(loc="center right")
        for axis in axes:
            axis.set_xticks(self.frequencies, [f"{f:g}" for f in self.frequencies])
            axis.xaxis.minorticks_off()
