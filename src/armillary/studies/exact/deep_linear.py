"""Deep linear networks learn mode by mode, along exact sigmoids."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from armillary.clock import Evenly, LogSpaced
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least
from armillary.measures import crossing_time, rank_correlation
from armillary.models import MLP, Decoupled, DeepLinear, Gaussian, GreedyAutoencoder, Orthogonal
from armillary.probes import JacobianSpectrum, Losses, ModeStrength
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, lines, shades
from armillary.rules import SGD, Descent, GradientFlow
from armillary.study import Claim, Paper, Study
from armillary.tasks import Correlations, Digits, LinearTeacher, whitened
from armillary.theory import depth_time, infinitely_deep_time, mode_sigmoid, mode_time

INITIAL = {"Orthogonal": "orthogonal", "GreedyAutoencoder": "pretrained", "Gaussian": "Gaussian, variance 1/N"}


@dataclass(frozen=True, kw_only=True)
class DeepLinearStudy(Study):
    """A deep linear network computes a linear map, but learns it non-linearly: long plateaus, then sudden drops,
    one for each singular mode of the input-output correlation, the strongest first.

    From decoupled weights every mode follows its own closed-form sigmoid. Very deep networks learn in a number of
    steps that does not grow with depth if they start orthogonal or pretrained, and not if they start Gaussian; in
    tanh networks orthogonal weights near the edge of chaos keep the gradients' sizes.
    """

    paper: ClassVar = Paper(
        "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks",
        authors="Andrew M. Saxe, James L. McClelland, Surya Ganguli", year=2013, arxiv="1312.6120",
    )  # fmt: skip
    seeds: ClassVar = {"smoke": 2, "desk": 4, "paper": 16}

    inputs: int = at_least(4, default=8)
    """Width of every layer of the two-layer network."""
    modes: tuple[float, ...] = above(0.0, default=(4.0, 2.0, 1.0, 0.5))
    """Singular values of the input-output correlation; the others are 0."""
    strengths: tuple[float, ...] = above(0.0, default=(1e-4, 1e-3, 1e-2))
    """Initial mode strengths; the middle one is drawn."""
    small: float = above(0.0, default=1e-2)
    """Standard deviation of the small random weights."""
    until: float = above(0.0, default=15.0)
    """Flow time of the two-layer network."""
    chain_depths: tuple[int, ...] = at_least(2, default=(2, 10, 50), smoke=(2, 10), paper=(2, 3, 5, 10, 50, 200))
    """Depths (weight layers) of the single-mode networks."""
    depths: tuple[int, ...] = at_least(2, default=(4, 16, 64), smoke=(2, 4), paper=(2, 4, 8, 16, 32, 64, 100))
    """Depths at which orthogonal and pretrained networks learn digits."""
    gaussian_depths: tuple[int, ...] = at_least(2, default=(4, 16), smoke=(2, 4), paper=(2, 4, 8, 16, 32, 64, 100))
    """Depths at which Gaussian ones do (they need many more steps)."""
    components: int = at_least(10, default=40, smoke=12)
    """Whitened principal components of the digits, and the width of the networks on them."""
    rates: tuple[float, ...] = above(0.0, default=(1.0, 2.0, 4.0), smoke=(0.5, 1.0))
    """Learning rates, before the division by depth, from which each depth takes its best."""
    steps: int = at_least(10, default=40, smoke=50, paper=60)
    """Longest training of orthogonal and pretrained networks."""
    gaussian_steps: int = at_least(10, default=300, smoke=100, paper=4000)
    """Longest training of Gaussian networks."""
    gap: float = above(0.0, default=0.02)
    """Gap to the best linear map at which a network counts as trained."""
    bottleneck: int = at_least(2, default=10)
    """Hidden width where pretraining is tested on inputs that are not white."""
    jacobian_width: int = at_least(2, default=200, smoke=8, paper=1000)
    """Width of the deep tanh network."""
    jacobian_depth: int = at_least(2, default=50, smoke=4, paper=100)
    """Hidden layers of the deep tanh network."""
    gains: tuple[float, ...] = above(0.0, default=(0.9, 1.0, 1.05, 1.1, 1.3))
    """Weight gains of the deep tanh network."""

    def experiments(self):
        decoupled = self._two_layers(Decoupled(self._correlations().input_output_correlation, self.strengths[0]))
        greedy = GreedyAutoencoder(np.eye(self.components))
        return {
            "depth": self._digits([Orthogonal(), greedy], self.depths, self.steps),
            "isometry": self._isometry(),
            "modes": Sweep(decoupled, {"strength": self.strengths}),
            "random": self._two_layers(Gaussian(self.small, per_entry=True)),
            "delay": self._chains(0.5, steps=1200, depths=self.chain_depths),
            "slow delay": self._chains(1e-3, steps=90_000, depths=[d for d in self.chain_depths if d <= 10]),
            "gaussian depth": self._digits([Gaussian()], self.gaussian_depths, self.gaussian_steps),
            "aligned": self._pretraining(aligned=True),
            "rotated": self._pretraining(aligned=False),
        }

    def _correlations(self) -> Correlations:
        target = np.zeros((self.inputs, self.inputs))
        np.fill_diagonal(target, np.resize([*self.modes, *[0.0] * self.inputs], self.inputs))
        return Correlations(np.eye(self.inputs), target)

    def _two_layers(self, initialisation) -> Experiment:
        task = self._correlations()
        model = DeepLinear(depth=2, width=self.inputs, initialisation=initialisation)
        probes = [Losses(), ModeStrength(task.input_output_correlation)]
        flow = GradientFlow(until=self.until, tolerance=1e-8)
        return Experiment(task, model, flow, probes, Evenly(121), precision="float64")

    def _chains(self, strength: float, steps: int, depths) -> Sweep:
        """Networks one neuron wide: a single mode of strength 2, rate 2e-3 / depth."""
        task = Correlations(np.eye(1), np.full((1, 1), 2.0))
        model = DeepLinear(width=1, initialisation=Decoupled(np.ones((1, 1)), strength), rate_by_depth=True)
        rule = Descent(SGD(2e-3), steps=steps)
        probes = [ModeStrength(np.ones((1, 1)))]
        clock = LogSpaced(201)
        return Sweep(Experiment(task, model, rule, probes, clock, precision="float64"), {"depth": depths})

    def _digits(self, starts, depths, steps: int) -> Sweep:
        digits = Digits(samples=1796).clean.train
        task = Correlations.of(whitened(digits, self.components))
        model = DeepLinear(width=self.components, rate_by_depth=True)
        experiment = Experiment(task, model, Descent(steps=steps), [Losses()], Evenly(min(steps, 100) // 2 + 1))
        return Sweep(experiment, {"depth": depths, "initialisation": starts, "learning_rate": self.rates})

    def _pretraining(self, *, aligned: bool) -> Sweep:
        """Inputs of a decaying spectrum through a bottleneck; the task lies along the leading principal directions,
        or along random ones."""
        draw = np.random.default_rng(0)
        size, outputs, depth = 4 * self.bottleneck, 5, 4
        spectrum = np.geomspace(1.0, 0.02, size)
        principal, random = (np.linalg.qr(draw.normal(size=(size, size)))[0] for _ in range(2))
        covariance = principal * (spectrum * size / spectrum.sum()) @ principal.T
        directions = (principal if aligned else random)[:, :outputs]
        teacher = np.linalg.qr(draw.normal(size=(outputs, outputs)))[0] @ directions.T
        teacher /= np.sqrt(np.trace(teacher @ covariance @ teacher.T))  # targets of unit power either way
        task = Correlations(covariance, teacher @ covariance)
        model = DeepLinear(depth=depth, width=self.bottleneck, rate_by_depth=True)
        rule = Descent(steps=2 * self.gaussian_steps)
        experiment = Experiment(task, model, rule, [Losses()], Evenly(61))
        starts = [GreedyAutoencoder(task.input_correlation, readout="gaussian"), Gaussian()]
        return Sweep(experiment, {"initialisation": starts, "learning_rate": [r / 4 for r in self.rates]})

    def measure(self, name, what, seeds, key, progress):
        # One draw of a wide Jacobian has hundreds of singular values. As many random starts as decoupled ones at
        # all strengths: they are then runs of one compiled program.
        many = {"isometry": 1, "random": len(self.strengths) * seeds, "aligned": 4 * seeds, "rotated": 4 * seeds}
        seeds = many.get(name, seeds)
        return super().measure(name, what, seeds, key, progress)

    def _isometry(self) -> Sweep:
        width = self.jacobian_width
        task = LinearTeacher(width, samples=1, outputs=width, spectrum=(float(width),) * width)  # inputs N(0, 1)
        model = MLP(width, self.jacobian_depth + 1, "tanh", bias=False, gain=1.0)
        experiment = Experiment(task, model, Descent(steps=0), [JacobianSpectrum()])
        return Sweep(experiment, {"orthogonal": [True, False], "gain": [g**2 for g in self.gains]})

    def theory(self):
        said = super().theory()
        s, u0 = np.array(self.modes), self.inputs * self.small**2 / 2
        # The growing combination (W_1 v + W_2ᵀ u)/2 of random weights has squared norm N sigma²/2 on average.
        time = np.linspace(0, self.until, 121)
        mode = {"time": time, "mode": np.arange(1, len(s) + 1)}
        said["random"] = xr.Dataset({"mode_strength": (("time", "mode"), mode_sigmoid(time[:, None], s, u0))}, mode)
        return said

    def claims(self, measured, theory):
        s = xr.DataArray(np.array(self.modes), dims="mode", coords={"mode": np.arange(1, len(self.modes) + 1)})
        modes, predicted = measured["modes"].mode_strength, theory["modes"].mode_strength
        yield Claim("C1", "decoupled weights: every mode follows its sigmoid (largest error over the largest mode)",
                    measured=np.abs(modes - predicted).max(("strength", "time", "mode")) / s.max().item(), at_most=1e-3, reason="an adaptive solver reaches this; an Euler step of 0.002 is off by 2.5e-2")
        random = crossing_time(measured["random"].mode_strength.sel(mode=s.mode), s / 2)
        expected = mode_time(s / 2, s, self.inputs * self.small**2 / 2)
        yield Claim("C1b", "small random weights: half times lie near the sigmoids' (mean relative distance)",
                    measured=np.abs(random / expected - 1).mean("mode"), at_most=0.3,
                    reason="random weights are balanced and aligned only after the plateau")

        orders = [rank_correlation(1 / s, times) for times in random.values]
        yield Claim("C2", "modes are learned in the order of their strengths (rank correlation, random weights)",
                    measured=orders, at_least=0.99)
        half = crossing_time(modes.sel(mode=s.mode), s / 2)
        law = mode_time(s / 2, s, half.strength)
        yield Claim("C2b", "the transition comes at ln(s/u0 - 1)/(2 s) (largest relative error)",
                    measured=np.abs(half / law - 1).max(("strength", "mode")), at_most=0.02,
                    reason="half times are read off between observations 0.125 apart")
        logs = np.log(1 / half.strength)
        slope = 2 * s * (half * (logs - logs.mean())).sum("strength") / ((logs - logs.mean()) ** 2).sum("strength")
        yield Claim("C2c", "the plateau lengthens as ln(1/u0)/(2 s) (slope, in that unit)",
                    measured=slope.mean("mode"), expected=1.0, tolerance=0.03)

        chain = measured["delay"].mode_strength.squeeze("mode")
        error = np.abs(chain - theory["delay"].mode_strength.squeeze("mode")) / 2.0
        yield Claim("C3", "networks of any depth follow the depth equation (largest error over s)",
                    measured=error.max(("depth", "time")), at_most=0.01)
        steps = crossing_time(chain, 1.9) * 2e-3
        deepest = int(steps.depth.max())
        yield Claim("C3b", f"with rate 1/depth, learning from u0 = 0.5 takes the same number of steps at any depth "
                    f"(rate times steps at depth {deepest})", measured=steps.sel(depth=deepest),
                    expected=float(infinitely_deep_time(1.9, 2.0, 0.5)), tolerance=0.03 if deepest < 50 else 0.01,
                    relative=True, reason="the limit is reached as 1/depth")
        slow = crossing_time(measured["slow delay"].mode_strength.squeeze("mode"), 1.9) * 2e-3
        grown = slow.isel(depth=-1) / slow.isel(depth=0)
        depth = int(slow.depth[-1])
        yield Claim("C3c", f"but from u0 = 0.001 the delay still grows with depth at these depths (depth {depth} over 2)",
                    measured=grown, expected=depth * depth_time(1.9, 2.0, 1e-3, depth) / (2 * depth_time(1.9, 2.0, 1e-3, 2)), tolerance=0.03, relative=True, reason="a finding: depth-independence is a limit, far away for small weights")

        best = self._steps_to_gap(measured["depth"])
        deep, middle = max(self.depths), sorted(self.depths)[-2]
        for name, start in (("C4", "Orthogonal"), ("C4b", "GreedyAutoencoder")):
            times = best.sel(initialisation=start)
            yield Claim(name, f"{INITIAL[start]} weights: steps to learn digits do not grow with depth ({deep} over {middle})",
                        measured=times.sel(depth=deep) / times.sel(depth=middle), at_most=1.5)
        gauss = self._steps_to_gap(measured["gaussian depth"]).sel(initialisation="Gaussian")
        gauss = gauss.fillna(self.gaussian_steps)  # never reached: at least so many
        deep, middle = max(self.gaussian_depths), 4 if 4 in self.gaussian_depths else min(self.gaussian_depths)
        yield Claim("C4c", f"Gaussian weights slow down with depth ({deep} over {middle}; a lower bound where never learned)",
                    measured=gauss.sel(depth=deep) / gauss.sel(depth=middle), at_least=3.0)

        gain = {name: self._pretraining_gain(measured[name]) for name in ("aligned", "rotated")}
        yield Claim("C5", "pretraining is faster than random weights where the task lies along the input's directions "
                    "(steps, random over pretrained)", measured=gain["aligned"], at_least=2.0)
        yield Claim("C5b", "and brings no gain where it does not", measured=gain["rotated"], at_most=1.2)

        sizes = np.log10(measured["isometry"].jacobian_singular_values.squeeze(("time", "sample")))
        near = (np.abs(sizes) < 1).mean("rank").sel(gain=[g**2 for g in self.gains if 1 < g < 1.2]).max("gain")
        yield Claim("C6", "orthogonal tanh networks just above gain 1 keep many of the Jacobian's singular values of "
                    "order one (share within a factor 10)", measured=near.sel(orthogonal=True), at_least=0.5)
        yield Claim("C6b", "Gaussian ones do not", measured=near.sel(orthogonal=False), at_most=0.2)
        edge = sizes.sel(gain=[g**2 for g in self.gains if 1 < g < 1.2]).median("rank").max("gain")
        yield Claim("C6c", "a typical gradient direction shrinks by less than a factor 10 (orthogonal, median log10)",
                    measured=edge.sel(orthogonal=True), at_least=-1.0)

    def _steps_to_gap(self, measured) -> xr.DataArray:
        """Steps to the gap at each depth's best rate, mean over nothing: [depth, initialisation, seed]."""
        return crossing_time(measured.train_loss, self.gap, falling=True).min("learning_rate")

    def _pretraining_gain(self, measured) -> xr.DataArray:
        steps = crossing_time(measured.train_loss, self.gap / 2, falling=True).min("learning_rate")
        steps = steps.fillna(2 * self.gaussian_steps)
        return steps.sel(initialisation="Gaussian") / steps.sel(initialisation="GreedyAutoencoder")

    def figures(self, measured, theory):
        yield Figure("modes", "Mode strengths of a two-layer linear network. Left: from decoupled weights, every mode "
                     "follows the closed-form sigmoid. Right: from small random weights, with the sigmoids of "
                     "u₀ = Nσ²/2; bars are one standard error over seeds.",
                     lambda axes: self._draw_modes(axes[0], measured, theory), grid=(1, 2))
        yield Figure("depth", "Left: rate × steps to reach 95 % of a single mode against depth, from two initial strengths: "
                     "depth-independence is a limit, reached early from u₀ = 0.5 and late from 0.001. Right: steps to "
                     "learn whitened digits at each depth's best rate; open triangles mark runs that never did.",
                     lambda axes: self._draw_depth(axes[0], measured), grid=(1, 2))
        yield Figure("pretraining", "Loss gap on inputs with a decaying spectrum through a bottleneck, each start at its best "
                     "rate (mean over seeds). Pretraining helps where the task lies along the leading input directions.",
                     lambda axes: self._draw_pretraining(axes[0], measured), grid=(1, 2))
        yield Figure("isometry", "Singular values of the input-output Jacobian of a deep tanh network before training. "
                     "Orthogonal weights keep a band of them of order one just above gain 1; Gaussian ones lose all but a few.",
                     lambda axes: self._draw_isometry(axes[0], measured), grid=(1, 2))

    def _draw_modes(self, axes, measured, theory):
        middle = self.strengths[len(self.strengths) // 2]
        sides = (("modes", f"decoupled, u₀ = {middle:g}"), ("random", f"random, σ = {self.small:g}"))
        for axis, (name, title) in zip(axes, sides, strict=True):
            seen, said = measured[name].mode_strength, theory[name].mode_strength
            if "strength" in seen.dims:
                seen, said = seen.sel(strength=middle), said.sel(strength=middle)
            for i, s in enumerate(self.modes):
                lines(axis, said.sel(mode=i + 1), color=COLORS[i], label=f"s = {s:g}")
                dots(axis, seen.sel(mode=i + 1), every=4, color=COLORS[i])
            label(axis, "time (τ)", "mode strength u", title)
        key_of_overlay(axes[0], loc=(0.4, 0.62), ncols=2)

    def _draw_depth(self, axes, measured):
        depths = np.unique(np.round(np.geomspace(2, max(self.chain_depths), 16))).astype(int)
        for i, (name, start) in enumerate((("delay", 0.5), ("slow delay", 1e-3))):
            axes[0].plot(depths, [d * depth_time(1.9, 2.0, start, d) for d in depths.tolist()], color=COLORS[i], label=f"u₀ = {start:g}")
            axes[0].axhline(infinitely_deep_time(1.9, 2.0, start), color=COLORS[i], linestyle=":", linewidth=1)
            found = crossing_time(measured[name].mode_strength.squeeze("mode"), 1.9) * 2e-3
            dots(axes[0], found, "depth", color=COLORS[i])
        label(axes[0], "depth (weight layers)", "rate × steps to u = 0.95 s", "one mode", xlog=True, ylog=True)
        key_of_overlay(axes[0], loc="center right")
        for i, (start, name) in enumerate(INITIAL.items()):
            seen = measured["gaussian depth" if start == "Gaussian" else "depth"]
            times = self._steps_to_gap(seen).sel(initialisation=start)
            dots(axes[1], times, "depth", color=COLORS[i], label=name, linestyle="-", linewidth=1)
            never = times.depth[times.isnull().all("seed")]
            axes[1].plot(never, np.full(len(never), self.gaussian_steps), "^", mfc="none", color=COLORS[i])
        label(axes[1], "depth (weight layers)", "steps to learn", "whitened digits", xlog=True, ylog=True)
        for axis, ticks in zip(axes, (self.chain_depths, sorted({*self.depths, *self.gaussian_depths})), strict=True):
            axis.set_xticks(ticks, [str(t) for t in ticks])
            axis.xaxis.minorticks_off()
        axes[1].legend()

    def _draw_pretraining(self, axes, measured):
        for axis, name in zip(axes, ("aligned", "rotated"), strict=True):
            loss = measured[name].train_loss
            for i, start in enumerate(("GreedyAutoencoder", "Gaussian")):
                mine = loss.sel(initialisation=start).mean("seed")
                best = int(np.argmin(mine.fillna(np.inf).mean("time").values))
                lines(axis, mine.isel(learning_rate=best), color=COLORS[i + 1], label=INITIAL[start])
            axis.axhline(self.gap / 2, color="0.5", linewidth=0.8, linestyle="--")
            label(axis, "step", "loss gap", f"task {name}", ylog=True)
            axis.set_ylim(1e-4, None)
        axes[0].legend()

    def _draw_isometry(self, axes, measured):
        sizes = np.log10(measured["isometry"].jacobian_singular_values.squeeze(("time", "sample")))
        for axis, orthogonal in zip(axes, (True, False), strict=True):
            for color, gain in zip(shades(len(self.gains)), self.gains, strict=True):
                values = sizes.sel(orthogonal=orthogonal, gain=gain**2).values.ravel()
                axis.hist(np.clip(values, -10, 2), bins=np.linspace(-10, 2, 61), color=color, histtype="step",
                          density=True, label=f"g = {gain:g}")  # fmt: skip
            label(axis, "log₁₀ singular value", "density", "orthogonal" if orthogonal else "Gaussian")
        axes[1].legend(loc="upper center")
