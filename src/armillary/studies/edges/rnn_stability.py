"""Gradients of stacked recurrent nets are sums over paths through time and depth, so radii of one half are stable where 1 explodes."""

from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from armillary.clock import At, Evenly
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least
from armillary.measures import power_law
from armillary.models.local_stability import Stabilised, spectral_radius
from armillary.models.recurrent import Recurrent
from armillary.prediction import predict
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.probes.recurrent import GradientNorm, StepRadii, StepSensitivity
from armillary.process import Process
from armillary.quantity import Quantity
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, lines, shades
from armillary.rules import Adam, Descent, Loss, MiniBatch
from armillary.rules.local_stability import LocalStability
from armillary.simulation import simulate
from armillary.study import Claim, Paper, Study
from armillary.tasks.sequences import DigitSequences, FilteredNoise
from armillary.theory.path_counts import critical_depth_radius, endless_gradient, path_sum, total_gradient

HALF, ROOT = 0.5, 0.7071
"""The two rules: a half for time and a half for depth, and 1/sqrt 2 for both."""
TARGETS = (1.0, ROOT, HALF)
ALONE = float("inf")
"""The target that leaves a network as it was drawn."""


class TestScore(Probe):
    """`test_loss` and `test_accuracy` alone: the training samples are five times as many."""

    def __call__(self, now):
        test = data_of(now, self).test
        outputs = jax.vmap(now.network)(test.inputs)
        right = jnp.argmax(outputs, axis=1) == test.targets
        return {
            "test_loss": Quantity(jnp.mean(now.loss.per_sample(outputs, test.targets)), long_name="test loss"),
            "test_accuracy": Quantity(jnp.mean(right), long_name="test accuracy"),
        }


class FirstRadii(Process):
    """One-step radii of drawn layers on white inputs, by width and by kind: nothing runs."""

    widths: tuple[int, ...] = eqx.field(static=True)
    key: Any = None

    kinds = (("gaussian", "linear", "gaussian"), ("relu", "relu", "gaussian"), ("orthogonal", "linear", "orthogonal"), ("tanh", "tanh", "gaussian"))

    def draw(self, key):
        return FirstRadii(self.widths, key)

    def init(self, key):
        inputs = {n: jax.random.normal(jax.random.fold_in(self.key, n), (1, n)) for n in self.widths}
        layer = lambda n, cell, weights: Recurrent(cell, 1, n, weights)(self.key, n, 1).one_steps(inputs[n])[0]
        jacobian = lambda step: jax.jacrev(step.cell, argnums=1)(step.before[0], step.below[0])
        radius = lambda n, cell, weights: spectral_radius(jacobian(layer(n, cell, weights)), 8)
        return {name: jnp.stack([radius(n, cell, weights) for n in self.widths]) for name, cell, weights in self.kinds}

    def observe(self, state, time):
        return {name: Quantity(radii, "width", long_name=f"radius, {name}") for name, radii in state.items()}


@dataclass(frozen=True, kw_only=True)
class RnnStability(Study):
    """In a stack of recurrent layers a gradient reaches back along binomially many paths. If every one-step Jacobian has
    radius 1 the paths' sum grows with that binomial; with a half for time and a half for depth it does not.

    Weights of one sign add paths up coherently and are critical where the radii add up to 1. Random ones add squares:
    theirs must. Networks for which no initialisation is known can be pre-trained on inputs alone until the radii are right.
    """

    paper: ClassVar[Paper] = Paper("Stabilizing RNN Gradients through Pre-training",
                                   authors="Luca Herranz-Celotti, Jean Rouat", year=2023, arxiv="2308.12075")  # fmt: skip
    seeds: ClassVar = {"smoke": 2, "desk": 3, "paper": 4}

    depth: int = at_least(2, default=5, smoke=2)
    """Recurrent layers of the trained networks."""
    width: int = at_least(4, default=32, smoke=8, paper=128)
    """Their units."""
    steps: int = at_least(20, default=250, smoke=20, paper=4000)
    """Steps of Adam."""
    gated_steps: int = at_least(20, default=125, smoke=20, paper=4000)
    """Steps of the gated networks, each of which costs as much as three."""
    learning_rate: float = above(0.0, default=3e-3)
    """Its learning rate."""
    batch: int = at_least(1, default=32, smoke=2)
    """Sequences of a step."""
    starts: tuple[float, ...] = above(0.0, default=(1.2, 1.0, ROOT, HALF))
    """Initial radii, in time and depth alike."""
    bad_tanh: float = above(0.0, default=2.5)
    """Radius from which tanh networks are pre-trained; ReLU ones are from the first of the starts."""
    stabilising_steps: int = at_least(1, default=40, smoke=4)
    """Multiplicative steps of pre-training."""
    linear_width: int = at_least(2, default=48)
    """Units of the linear random stacks."""
    length: int = at_least(10, default=60)
    """Steps of their sequences."""
    linear_depths: tuple[int, ...] = at_least(1, default=(2, 5, 10), smoke=(5,))
    """Their layers; 5 should be among them."""
    draws: int = at_least(2, default=400, smoke=4, paper=2000)
    """Draws of the random stacks, at radii 1: all paths of a delay have as many factors of each radius, so that others follow."""
    grid: int = at_least(3, default=9, smoke=3, paper=21)
    """Points in each direction of the maps of the two radii."""
    widths: tuple[int, ...] = at_least(4, default=(32, 128, 512), smoke=(16,))
    """Widths at which initialisations are checked."""

    def experiments(self):
        pairs = {"radius": (1.0, HALF, 0.7), "depth_radius": (1.0, HALF, 0.3)}
        scalar = lambda depth, length: Sweep(self._linear(Recurrent("linear", depth, 1, "constant", depth_radius=1.0), length), pairs)
        stack = lambda depth, **more: Recurrent("linear", depth, self.linear_width, **more)
        # As many starts as targets, so that both run in one program.
        starts, targets = {"radius": self.starts, "target": (ALONE,)}, lambda radius: {"radius": (radius,), "target": (ALONE, *TARGETS)}
        return {
            "relu starts": Sweep(self._trained("relu"), starts),
            "tanh starts": Sweep(self._trained("tanh"), starts),
            "relu targets": Sweep(self._trained("relu"), targets(max(self.starts))),
            "tanh targets": Sweep(self._trained("tanh"), targets(self.bad_tanh)),
            "gru targets": Sweep(self._trained("gru"), targets(1.0)),
            "radii": Sweep(self._stabilising(), {"target": TARGETS}),
            "scalar 3": scalar(3, 20),
            "scalar 10": scalar(10, 60),
            "random": Sweep(self._linear(stack(2), self.length), {"model.depth": self.linear_depths}),
            "positive map": Sweep(self._linear(stack(5, weights="positive", depth_radius=1.0), 40), self._plane),
            "first": FirstRadii(self.widths),
        }  # fmt: skip

    @property
    def _plane(self):
        return {name: np.linspace(0.1, most, self.grid).round(3).tolist() for name, most in (("radius", 0.9), ("depth_radius", 1.1))}

    def _model(self, cell: str, radius: float = 1.0) -> Recurrent:
        return Recurrent(cell, self.depth, self.width, radius=radius)  # type: ignore[arg-type]

    def _trained(self, cell: str) -> Experiment:
        steps = self.gated_steps if cell == "gru" else self.steps
        model = Stabilised(self._model(cell), DigitSequences().sequences.train.inputs, steps=self.stabilising_steps, times=2)
        rule = Descent(Adam(self.learning_rate), steps, Loss("cross_entropy"), MiniBatch(self.batch))
        # The radii of ReLU layers are watched on the way, in an experiment of their own.
        probes = {"relu": [GradientNorm(32)], "tanh": [GradientNorm(32), StepRadii(6, 4, 6)], "gru": [StepRadii(6, 4, 6)]}[cell]
        return Experiment(DigitSequences(), model, rule, [TestScore(), *probes], Evenly(9 if self.steps > 40 else 3))

    def _stabilising(self) -> Experiment:
        rule = LocalStability(steps=self.stabilising_steps, times=2)
        return Experiment(DigitSequences(), self._model("relu", max(self.starts)), rule, [StepRadii(6, 4, 6)], Evenly(21))

    def _linear(self, model: Recurrent, length: int) -> Experiment:
        inputs = model.width
        task = FilteredNoise((0.0,), (((0.0,) * inputs,),), sequences=1, length=length)
        return Experiment(task, model, Descent(steps=0), [StepSensitivity(1)], At((0,)), precision="float64" if model.weights == "constant" else "float32")

    def measure(self, name, what, seeds, key, progress):
        if name == "first":
            return simulate(what, seeds=10, times=[0.0], key=key, memory=1e6, progress=progress)
        draws = {"random": self.draws, "positive map": 1, "scalar 3": 1, "scalar 10": 1}.get(name, seeds)
        return simulate(what, seeds=draws, key=key, progress=progress)

    def theory(self):
        linear = ("scalar 3", "scalar 10", "random")
        return {name: predict(what) for name, what in self.experiments().items() if name in linear}

    def claims(self, measured, theory):
        yield from self._path_claims(measured, theory)
        yield from self._random_claims(measured, theory)
        first = measured["first"].isel(time=0, width=-1)
        widest = max(self.widths)
        for number, (kind, limit, tolerance) in enumerate((("gaussian", 1.0, 0.05), ("relu", 1.0, 0.05), ("orthogonal", 1.0, 1e-3), ("tanh", 0.682, 0.05))):
            name = {"gaussian": "Glorot", "relu": "He, with ReLU", "orthogonal": "orthogonal", "tanh": "Glorot, with tanh at unit variance"}[kind]
            yield Claim(f"C4.{number + 1}", f"the radius of a feed-forward layer at width {widest}: {name}", measured=first[kind], expected=limit, tolerance=tolerance,
                        reason="the entry gives no tolerance; set beforehand: radii of finite matrices exceed their limit by some 1/sqrt(n)")
        yield from self._training_claims(measured)

    def _path_claims(self, measured, theory):
        for name, what in (("C1", "scalar 3"), ("C1b", "scalar 10")):
            seen, said = measured[what].squared_sensitivity.isel(time=0, seed=0), theory[what].squared_sensitivity.isel(time=0)
            depth, length = what.split()[1], seen.sizes["step"]
            wrong = np.abs(np.sqrt(seen / said) - 1)
            same = max(float(wrong.sel(radius=r, depth_radius=r).max()) for r in (1.0, HALF))
            yield Claim(f"{name}", f"scalar stack of {depth} layers, {length} steps: each derivative is its number of paths (relative error at radii 1 and 1/2)",
                        measured=same, at_most=1e-15)
            yield Claim(f"{name}.all", f"and so at other radii, {depth} layers (relative error at all nine pairs)", measured=wrong.max(), at_most=1e-13,
                        reason="ours: 70 factors that are no powers of two round")
        total = lambda what, r, d: float(np.sqrt(measured[what].squared_total_sensitivity.isel(time=0, seed=0).sel(radius=r, depth_radius=d)))
        deviation = max(abs(total(what, r, round(1 - r, 3)) / float(endless_gradient(layers, r, round(1 - r, 3))) - 1)
                        for what, layers in (("scalar 3", 3), ("scalar 10", 10)) for r in (HALF, 0.7))
        yield Claim("C1c", "where the radii add up to 1 the gradient by all steps together is 1 at either depth (largest deviation)", measured=deviation, at_most=0.03,
                    reason="finite sequences: .979 for radii .7 and .3 after 20 steps, in the entry too")
        yield Claim("C2", "at radii 1 it is the binomial (relative error, the larger of both stacks)",
                    measured=max(abs(total("scalar 3", 1.0, 1.0) / 1540 - 1), abs(total("scalar 10", 1.0, 1.0) / float(total_gradient(10, 60, 1.0, 1.0)) - 1)), at_most=1e-12)
        yield Claim("C2b", "and grows with depth and length by eight orders, where at one half it stays (growth from 3 layers and 20 steps to 10 and 60, at 1/2)",
                    measured=total("scalar 10", HALF, HALF) / total("scalar 3", HALF, HALF), expected=1.0, tolerance=1e-3, reason="ours")
        positive = np.sqrt(measured["positive map"].squared_total_sensitivity.isel(time=0))
        said = total_gradient(5, 40, positive.radius.values[:, None], positive.depth_radius.values[None])
        yield Claim("C2c", "non-negative random weights add up coherently too (largest factor between them and the scalar net, over the map)",
                    measured=np.exp(np.abs(np.log(positive / said[..., None])).max()), at_most=1.5, reason="ours; roots scatter by a percent, to the power 40")

    def _random_claims(self, measured, theory):
        seen = measured["random"].squared_sensitivity.isel(time=0)
        root, half = (self._at_radii(seen, radius, radius) for radius in (ROOT, HALF))
        for number, depth in enumerate(self.linear_depths):
            yield Claim(f"C3.{number + 1}", f"random weights, {depth} layers: the squares' sum stays near 1 at radii 1/sqrt 2", measured=root.sum("step").sel(depth=depth),
                        between=(0.8, 1.3))
        mean = half.sum("step").mean("seed")
        slope = power_law(np.exp(self.linear_depths), mean).exponent
        yield Claim("C3b", "and at one half it vanishes with depth as 3^-L (slope of the logarithm in depth)", measured=slope, expected=-np.log(3), tolerance=0.1, relative=True)
        for number, delay in enumerate((0, 10)):
            at = {"depth": 5, "step": self.length - delay}
            yield Claim(f"C3c.{number + 1}", f"a step's derivative follows the paths' number: 5 layers, radii 1/sqrt 2, {delay} steps back (mean square over theory)",
                        measured=seen.sel(at) / theory["random"].squared_sensitivity.isel(time=0).sel(at), expected=1.0, tolerance=0.25,
                        reason="the entry gives no tolerance; set beforehand for its 40 draws of heavy tails, which left it undecided; at finite width paths that meet a matrix again are not independent, which adds to the mean")
        plane = [self._sums(which["random"].squared_sensitivity.isel(time=0)) for which in (measured, theory)]
        inside = (plane[0] / plane[1]).where(plane[0].radius <= 0.75)
        yield Claim("C3d", "over the whole map of both radii the sum is that of squared paths (median factor off, time radius ≤ 3/4)",
                    measured=np.exp(np.abs(np.log(inside)).median()), at_most=1.3, reason="ours; with 4 draws a point it had been 1.33, by scatter")

    def _at_radii(self, squares, time, depth):
        """Squares at radii 1 as other radii have them, exactly."""
        return squares * depth ** (2.0 * squares.depth) * time ** (2.0 * (self.length - squares.step))

    def _sums(self, squares):
        """Sums over 40 delays, of 5 layers, over the plane of both radii."""
        mean = squares.sel(depth=5 if 5 in self.linear_depths else self.linear_depths[0])
        mean = mean.mean("seed") if "seed" in mean.dims else mean
        plane = xr.Dataset(coords=self._plane)
        return self._at_radii(mean.where(self.length - mean.step < 40, 0.0), plane.radius, plane.depth_radius).sum("step")

    def _starts(self, measured, cell: str):
        return measured[f"{cell} starts"].isel(target=0, drop=True)

    def _targets(self, measured, cell: str):
        return measured[f"{cell} targets"].isel(radius=0, drop=True)

    def _training_claims(self, measured):
        starts, targets = self._starts(measured, "relu"), self._targets(measured, "relu")
        end = lambda t: t.test_accuracy.isel(time=-1)
        worst, tanh, gru = max(self.starts), self._targets(measured, "tanh"), self._targets(measured, "gru")
        gain = end(targets).sel(target=HALF) - end(starts).sel(radius=worst)
        for cell, which in (("relu", measured["radii"].isel(time=-1)), ("tanh", tanh.isel(time=0)), ("gru", gru.isel(time=0))):
            seen = which.sel(target=[t for t in TARGETS if (cell, t) != ("gru", HALF)])
            mean = seen[["time_radius", "depth_radius"]].to_array().mean(("variable", "layer"), skipna=True)
            yield Claim(f"C5.{cell}", f"pre-training brings the mean radius of {cell} layers to each target{' but 1/2' if cell == 'gru' else ''} (largest deviation)",
                        measured=np.abs(mean - mean.target).max(), at_most=0.08)
        floor = gru.isel(time=0).sel(target=HALF)
        yield Claim("C5.floor", "gated layers have a floor: towards 1/2 their mean radius stays above", measured=floor[["time_radius", "depth_radius"]].to_array().mean(("variable", "layer"), skipna=True),
                    at_least=0.55, reason="the entry gives .59 without a threshold")
        yield Claim("C5", f"ReLU from radius {worst:g}: accuracy after pre-training to 1/2 less that without (every seed)", measured=gain.min(), at_least=0.4)
        yield Claim("C5b", f"tanh from radius {self.bad_tanh:g}: the same gain (every seed)", measured=(end(tanh).sel(target=HALF) - end(tanh).sel(target=ALONE)).min(), at_least=0.2, reason="the entry gives .95 against .54 and no threshold; ours")
        gru = end(gru)
        yield Claim("C5c", "gated layers from Glorot's start gain nothing (best mean accuracy after pre-training less that without)",
                    measured=gru.sel(target=list(TARGETS)).mean("seed").max() - gru.sel(target=ALONE).mean("seed"), at_most=0.02, reason="the entry says no gain; threshold ours")
        loss = targets.test_loss.mean("time")
        yield Claim("C6", "ReLU: target 1/2 trains better than 1 (mean test loss over the run, 1/2 less 1)", measured=loss.sel(target=HALF) - loss.sel(target=1.0), at_most=0.0)
        gain = end(starts).sel(radius=HALF) - end(starts).sel(radius=1.0)
        yield Claim("C6b", "and so from the start: accuracy from radius 1/2 less that from 1 (every seed)", measured=gain.min(), at_least=0.08)
        norm = lambda cell: self._starts(measured, cell).gradient_norm.isel(time=0).mean("seed")
        yield Claim("C6c", f"ReLU's gradient at the start explodes with the radius (norm at {worst:g} over that at 1/2)", measured=norm("relu").sel(radius=worst) / norm("relu").sel(radius=HALF),
                    at_least=1e4, reason="the entry gives 9e5 over .5; threshold ours")
        yield Claim("C6d", "tanh saturates instead (the same ratio)", measured=norm("tanh").sel(radius=worst) / norm("tanh").sel(radius=HALF), at_most=30.0,
                    reason="the entry gives 2.7 over .39; threshold ours")
        best = end(self._starts(measured, "tanh")).mean("seed")
        yield Claim("C6e", "and gains nothing from 1/2 (mean accuracy from radius 1/2 less that from 1)", measured=best.sel(radius=HALF) - best.sel(radius=1.0), at_most=0.01,
                    reason="the entry says no gain; threshold ours")

    def figures(self, measured, theory):
        yield Figure("map", "The gradient by all steps together, over both radii (5 layers, 40 steps). Left: the scalar net, exact. Middle: non-negative random weights. Right: "
                     "Gaussian weights, root mean square. Lines: where radii (solid) or their squares (dashed) add up to 1.", lambda axes: self._draw_map(axes[0], measured), grid=(1, 3), size=(10.5, 3.2))
        yield Figure("paths", "The derivative of the output by the input so many steps back. Left: scalar stacks, 3 layers (20 steps) and 10 (60). Right: Gaussian weights, root mean square over "
                     "draws; late steps use each matrix many times, which at this width are not independent. Dots: measured; lines: numbers of paths.", lambda axes: self._draw_paths(axes[0], measured, theory), grid=(1, 2))
        yield Figure("training", "Test accuracy in training, with and without pre-training on inputs; bars: one standard error over seeds.",
                     lambda axes: self._draw_training(axes, measured), grid=(2, 3), size=(10.5, 5.4))
        yield Figure("radii", "Mean radius of each layer's one-step Jacobian while a ReLU stack is pre-trained to three targets (dotted). Left: in time. Right: in depth.",
                     lambda axes: self._draw_radii(axes[0], measured), grid=(1, 2))

    def _draw_map(self, axes, measured):
        positive = np.log10(measured["positive map"].squared_total_sensitivity.isel(time=0).mean("seed")) / 2
        random = np.log10(self._sums(measured["random"].squared_sensitivity.isel(time=0))) / 2
        exact = positive.copy(data=np.log10(total_gradient(5, 40, positive.radius.values[:, None], positive.depth_radius.values[None])))
        across, mesh = np.linspace(0.0, 1.0, 200), None
        for axis, values, title in zip(axes, (exact, positive, random), ("scalar (exact)", "non-negative weights", "random signs"), strict=True):
            mesh = axis.pcolormesh(values.radius, values.depth_radius, values.transpose("depth_radius", "radius"), cmap="RdBu_r", vmin=-4, vmax=4, shading="nearest", rasterized=True)
            for random_signs, style in ((False, "-"), (True, "--")):
                axis.plot(across, critical_depth_radius(across, random=random_signs), color="0.0", linestyle=style)
            label(axis, "radius in time", "radius in depth", title)
            axis.set_xlim(float(values.radius[0]), float(values.radius[-1]))
            axis.set_ylim(float(values.depth_radius[0]), float(values.depth_radius[-1]))
            axis.grid(False)
        axes[-1].figure.colorbar(mesh, ax=list(axes), label="log10 of the gradient", extend="both")

    def _draw_paths(self, axes, measured, theory):
        for color, (layers, what) in zip(COLORS, ((3, "scalar 3"), (10, "scalar 10")), strict=False):
            for radius, style in ((1.0, "-"), (HALF, "--")):
                seen = np.sqrt(measured[what].squared_sensitivity.isel(time=0, seed=0).sel(radius=radius, depth_radius=radius))
                delay = seen.sizes["step"] - seen.step.values
                axes[0].plot(delay, path_sum(layers, delay, radius, radius), color=color, linestyle=style, label=f"{layers} layers, radii {radius:g}")
                axes[0].plot(delay[::2], seen[::2], color=color, marker="o", linestyle="")
        label(axes[0], "steps back", "derivative of the output", "scalar stacks", ylog=True)
        axes[0].set_ylim(1e-12, 1e17)
        axes[0].legend(loc="upper right", ncols=2, fontsize=7)
        shown = [1.0, ROOT, HALF]
        depth = 5 if 5 in self.linear_depths else self.linear_depths[0]
        for color, radius in zip(shades(len(shown)), shown, strict=True):
            mean, said = (self._at_radii(which["random"].squared_sensitivity.isel(time=0).sel(depth=depth), radius, radius) for which in (measured, theory))
            mean = mean.mean("seed")
            delay = self.length - mean.step
            axes[1].plot(delay, np.sqrt(said), color=color, label=f"radii {radius:g}")
            axes[1].plot(delay[::2], np.sqrt(mean)[::2], color=color, marker="o", linestyle="")
        label(axes[1], "steps back", "root mean square", f"Gaussian weights, {depth} layers", ylog=True)
        key_of_overlay(axes[1], loc="lower left", fontsize=7)

    def _draw_training(self, axes, measured):
        for column, cell in enumerate(("relu", "tanh")):
            seen = self._starts(measured, cell).test_accuracy
            for color, radius in zip(shades(len(self.starts)), self.starts, strict=True):
                dots(axes[0][column], seen.sel(radius=radius), color=color, linestyle="-", linewidth=1, label=f"{radius:.3g}")
            label(axes[0][column], "step", "test accuracy", f"{'ReLU' if cell == 'relu' else cell}, by initial radius")
        axes[0][2].set_axis_off()
        key = axes[0][2].legend(*axes[0][0].get_legend_handles_labels(), loc="upper left", title="upper row: radius at the start")
        axes[0][2].add_artist(key)
        for column, (cell, start) in enumerate((("relu", max(self.starts)), ("tanh", self.bad_tanh), ("gru", 1.0))):
            axis, seen = axes[1][column], self._targets(measured, cell).test_accuracy
            dots(axis, seen.sel(target=ALONE), color="0.3", linestyle="--", linewidth=1, label="without")
            for color, target in zip(shades(3), TARGETS, strict=True):
                dots(axis, seen.sel(target=target), color=color, linestyle="-", linewidth=1, label=f"target {target:.3g}")
            label(axis, "step", "test accuracy", f"{ {'relu': 'ReLU', 'gru': 'GRU'}.get(cell, cell)} from radius {start:g}")
        axes[0][2].legend(*axes[1][2].get_legend_handles_labels(), loc="lower left", title="lower row: pre-trained")
        for axis in [*axes[0][:2], *axes[1]]:
            axis.set_ylim(0, 1.02)

    def _draw_radii(self, axes, measured):
        for axis, name, title in zip(axes, ("time_radius", "depth_radius"), ("in time", "in depth"), strict=True):
            for color, target in zip(shades(3), TARGETS, strict=True):
                axis.axhline(target, color=color, linestyle=":", linewidth=1)
                each = measured["radii"][name].sel(target=target).mean("seed")
                for layer in each.layer.values:
                    if bool(np.isfinite(each.sel(layer=layer)).all()):
                        lines(axis, each.sel(layer=layer), color=color, linewidth=0.9, label=f"target {target:.3g}" if layer == each.layer.values[-1] else None)
            label(axis, "step of pre-training", "mean radius of a layer", title)
        axes[0].legend(loc="upper right")
