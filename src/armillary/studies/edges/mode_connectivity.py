"""Wide networks survive the loss of half their units, and so any two solutions are joined by a path of low loss."""

from dataclasses import dataclass, replace
from typing import ClassVar

import equinox as eqx
import jax
import numpy as np
import xarray as xr

from armillary.clock import At
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least
from armillary.measures import power_law, standard_errors_away
from armillary.models import MLP
from armillary.models.ensemble import Ensemble
from armillary.models.mlp import MLPNetwork
from armillary.models.model import Dense, Model
from armillary.probes.dropout import DropoutStability
from armillary.probes.paths import PathLoss
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, shades
from armillary.rules import SGD, Descent, Loss, MiniBatch, Online
from armillary.rules.independent import Independently
from armillary.study import Claim, Paper, Study
from armillary.tasks import Digits, NetworkTeacher
from armillary.theory.dropout import bound_shape

POINTS, FINE = 11, 31  # on each segment of a path, and of one with fewer
SAMPLES, SETS = 300, 8  # of the teacher, on which losses are seen, and how many times as many sets of units: the mean over them is compared with theory
RUNS = ["seed", "member", "draw"]
HALF = 0  # where the share of a half is among the numbers of units left


class AveragingLayers(Model):
    """Two hidden layers of `width` units and no biases, whose sums are averages: weights of order one, multipliers 1/width.

    Rates are width, width² and width, so that a step moves each weight by an amount of order one. With one hidden layer
    this is `MLP(parametrisation="mup", gain=1)`.
    """

    width: int = eqx.field(static=True, default=64)

    def __call__(self, key, inputs, outputs):
        n, key_first, key_middle, key_last = self.width, *jax.random.split(key, 3)
        first = Dense(jax.random.normal(key_first, (n, inputs)) / np.sqrt(inputs), None, 1.0, float(n))
        middle = Dense(jax.random.normal(key_middle, (n, n)), None, 1 / n, float(n) ** 2)
        last = Dense(jax.random.normal(key_last, (outputs, n)), None, 1 / n, float(n))
        return MLPNetwork((first, middle, last), "tanh")


@dataclass(frozen=True, kw_only=True)
class ModeConnectivity(Study):
    """Networks in the mean-field scaling, trained by stochastic gradient descent with rates that grow with the width.

    Dropping units and scaling up what the others give changes the loss by an amount that depends on how many are left, not on
    how many there were. Where half of the units can be dropped, the others are free to become another network's: seven
    straight segments join two independent solutions, at a loss that is no higher than that of the two halves.

    The output is an average over units, and a random set of them a sample of it: its variance has a closed form, and for the
    squared error so has the mean rise of the loss.
    """

    paper: ClassVar = Paper(
        "Landscape Connectivity and Dropout Stability of SGD Solutions for Over-parameterized Neural Networks",
        authors="Alexander Shevchenko, Marco Mondelli", year=2019, arxiv="1912.10095",
    )  # fmt: skip
    seeds: ClassVar = {"smoke": 2, "desk": 3, "paper": 8}

    widths: tuple[int, ...] = at_least(4, default=(16, 64, 256, 1024), smoke=(16,), paper=(16, 64, 256, 1024, 4096))
    """Hidden units of networks with one hidden layer."""
    deep_widths: tuple[int, ...] = at_least(4, default=(16, 48, 128), smoke=(16,), paper=(16, 64, 256, 1024))
    """Units of each layer, with two hidden layers."""
    left: tuple[int, ...] = at_least(2, default=(8, 16, 32, 64, 128), smoke=(2, 4))
    """Numbers of units left, besides a half."""
    draws: int = at_least(2, default=4, smoke=2, paper=16)
    """Random sets of units for each number."""
    learning_rate: float = above(0.0, default=0.05)
    """Step size, which the width multiplies."""
    steps: int = at_least(10, default=2000, smoke=10, paper=30_000)
    """Steps."""
    batch: int = at_least(1, default=32)
    """Samples a step: images with replacement, or fresh ones of the teacher."""
    images: int = at_least(20, default=1200, smoke=200)
    """Digits learned, as even or odd."""
    dimensions: tuple[int, int] = at_least(2, default=(10, 80), smoke=(4, 8))
    """Inputs of the teacher; the first is used where widths are compared."""
    teacher_width: int = at_least(1, default=8)
    """Hidden units of the teacher."""
    bend_steps: int = at_least(1, default=200, smoke=10, paper=2000)
    """Steps that train the bend of a path between two networks of the second width."""

    def experiments(self):
        narrow, deep = MLP(self._second, 2, "relu", "mup", bias=False, gain=1.0), AveragingLayers(self.deep_widths[0])
        smooth = MLP(self.widths[0], 2, "tanh", "mup", bias=False, gain=1.0)
        alike, deeper = self._wide
        return {
            "teacher": Sweep(self._teacher(smooth, "straight", "dropout"), {"model.model.width": self.widths}),
            "digits": Sweep(self._digits(narrow, "straight", "dropout"), {"model.model.width": self.widths}),
            "three layers": Sweep(self._digits(deep, "straight", "dropout"), {"model.model.width": self.deep_widths}),
            "dimension": self._teacher(MLP(alike, 2, "tanh", "mup", bias=False, gain=1.0), dimension=self.dimensions[1]),
            "dimension, three layers": Sweep(self._teacher(AveragingLayers(deeper)), {"dimension": self.dimensions}),
            "bent": self._without_drops(self._digits(narrow, "straight", "bent")),
        }

    def _digits(self, model: Model, *ways) -> Experiment:
        rule = Descent(SGD(self.learning_rate), self.steps, Loss("logistic"), MiniBatch(self.batch, replace=True))
        return self._pairs(Digits(self.images, "parity"), model, rule, ways)

    @property
    def _second(self) -> int:
        """The second width, where there are two."""
        return self.widths[:2][-1]

    @property
    def _wide(self) -> tuple[int, int]:
        """Units where dimensions are compared, with one hidden layer and with two."""
        return self.widths[len(self.widths) // 2], self.deep_widths[len(self.deep_widths) // 2]

    def _teacher(self, model: Model, *ways, dimension: int | None = None) -> Experiment:
        task = NetworkTeacher(dimension or self.dimensions[0], SAMPLES, teacher=MLP(self.teacher_width, 2, "tanh", bias=False), test_samples=0)
        return self._pairs(task, model, Descent(SGD(self.learning_rate), self.steps, Loss(), Online(self.batch)), ways, SETS * self.draws)

    def _without_drops(self, experiment: Experiment) -> Experiment:
        return replace(experiment, probes=[probe for probe in experiment.probes if isinstance(probe, PathLoss)])

    def _pairs(self, task, model: Model, rule: Descent, ways, draws: int | None = None) -> Experiment:
        """Two networks on the same data, each in batches of its own."""
        probes = [DropoutStability((0.5, *self.left), draws or self.draws), *(PathLoss(way, POINTS if way == "dropout" else FINE, self.bend_steps) for way in ways)]
        return Experiment(task, Ensemble(model), Independently(rule), probes, At((float(self.steps),)))

    def claims(self, measured, theory):
        digits, teacher, deep = (measured[name].isel(time=-1) for name in ("digits", "teacher", "three layers"))
        few, most = min(self.widths), max(self.widths)
        half, taught, layered = (self._half(seen) for seen in (digits, teacher, deep))
        yield Claim("C1", f"digits: without half of the units the loss hardly changes (at {most} units)", measured=half.sel(width=most), at_most=0.01)
        yield Claim("C1b", f"less, the more there were (change at {most} units over that at {few})", measured=half.sel(width=most) / half.sel(width=few), at_most=0.05)
        yield Claim("C1c", f"nor does the accuracy (its fall at {most} units)", measured=(digits.whole_accuracy - digits.dropout_accuracy.isel(left=HALF)).sel(width=most).mean(), at_most=0.01,
                    reason="the entry asks for it without a number; set before it was seen")
        yield Claim("C1.teacher", f"squared error, one pass, a teacher's targets: the same (change at {most} units)", measured=taught.sel(width=most), at_most=0.01)
        yield Claim("C1b.teacher", f"less, the more there were (change at {most} units over that at {few})", measured=taught.sel(width=most) / taught.sel(width=few), at_most=0.05)
        yield Claim("C1d.teacher", "as one over their number, the sampling variance's law (exponent of the change without half in the number of units)",
                    measured=power_law(self.widths, taught.sel(width=list(self.widths)).values).exponent, expected=-1.0, tolerance=0.2,
                    reason="the entry gives no number; set after a trial at 16 and 256 units. What units differ by depends on the width at the narrowest")

        wide = [w for w in self.widths if w >= 2 * max(self.left)]
        both = " and ".join(str(w) for w in wide)
        slopes = {name: [power_law(self.left, one).exponent for one in self._units_left(seen).sel(width=wide).values] for name, seen in (("digits", digits), ("teacher", teacher))}
        yield Claim("C2", f"digits: the change falls with the number M of units left (exponent at {both} units)", measured=slopes["digits"], between=(-2.0, -0.8))
        yield Claim("C2.teacher", f"squared error: the same (exponent at {both} units)", measured=slopes["teacher"], between=(-2.0, -0.8))
        yield Claim("C2b", f"digits: at equal M it does not depend on how many there were ({wide[-1]} units over {wide[0]}, farthest from 1)", measured=self._farthest(digits, wide), between=(1 / 3, 3.0))
        yield Claim("C2b.teacher", f"squared error: the same ({wide[-1]} units over {wide[0]}, farthest from 1)", measured=self._farthest(teacher, wide), between=(1 / 3, 3.0))
        yield Claim("C2c.teacher", "squared error: the mean change is the variance of a sample of units, of order 1/M - 1/N (largest distance over N and M in standard errors)",
                    measured=self._away(teacher), at_most=3.5, reason=f"exact; ours, for the largest of {self._cases(teacher)}, set after a trial had shown agreement. At 4 sets a network a run gave 4.8: so few changes, which are skewed, do not give their own error")
        steepest = max(self._over_bound(seen, wide) for seen in (digits, teacher))
        yield Claim("C2d", f"it falls at least as fast as the proved bound's sqrt(log M/M) (change from that at {min(self.left)} units left, over the bound's, the largest)", measured=steepest, at_most=1.0,
                    reason="the bound's constants are vacuous, its shape is not; powers as recalled")

        yield from self._path_claims(digits, teacher, deep)
        bent = measured["bent"].isel(time=-1)
        yield Claim("A1", f"digits, {self._second} units: one trained bend lowers the straight line's barrier (mean barrier over it)",
                    measured=bent.bent_path_barrier.mean() / bent.straight_path_barrier.mean(), at_most=0.5, reason="an addition (Garipov et al. 2018); set before the first run")

        low, high = self.dimensions
        ratio = [found.sel(dimension=high) / found.sel(dimension=low) for found in (self._change(seen).mean(RUNS) for seen in self._dimensions(measured))]
        yield Claim("C4", f"one hidden layer: the change does not depend on the dimension (at {high} inputs over that at {low}, farthest from 1)", measured=_farthest(ratio[0]), between=(1 / 3, 3.0),
                    reason="the entry gives no number; this is its C2's. A trial had seen 1.2 to 1.6")
        yield Claim("C4b", "two hidden layers: it grows with it linearly at the most (the same, the largest)", measured=ratio[1].max(), at_most=high / low,
                    reason="M over the dimension enters the bound's square root, so the square of an output's change may grow as much; set after a trial")
        widest, narrowest = max(self.deep_widths), min(self.deep_widths)
        yield Claim("C5", f"two hidden layers, half of both dropped: the loss hardly changes (at {widest} units)", measured=layered.sel(width=widest), at_most=0.01,
                    reason="the entry's number for one hidden layer. tanh: the theorem wants bounded activations; with ReLU a trial had 0.012")
        yield Claim("C5b", f"less, the more there were (change at {widest} units over that at {narrowest})", measured=layered.sel(width=widest) / layered.sel(width=narrowest), at_most=0.1,
                    reason="the entry gives no number; a trial had seen 0.02")

    def _path_claims(self, digits, teacher, deep):
        most, widest = max(self.widths), max(self.deep_widths)
        for_path, for_line = ({name: seen[f"{way}_path_barrier"].mean("seed") for name, seen in (("digits", digits), ("teacher", teacher), ("deep", deep))} for way in ("dropout", "straight"))
        over = {name: found / for_line[name] for name, found in for_path.items()}
        few = min(self.widths)
        yield Claim("C3", f"digits: seven segments join two solutions, the loss hardly rises (mean barrier at {most} units)", measured=for_path["digits"].sel(width=most), at_most=0.01)
        yield Claim("C3b", f"where it does on the straight line (barrier over the line's, {most} units)", measured=over["digits"].sel(width=most), at_most=1.0)
        yield Claim("C3c", f"the line's barrier stays (at {most} units)", measured=for_line["digits"].sel(width=most), at_least=0.02, reason="the entry gives no number and saw 0.047; set after a trial at 256 units had 0.06")
        yield Claim("C3.teacher", f"squared error: the path's barrier vanishes (at {most} units)", measured=for_path["teacher"].sel(width=most), at_most=0.01)
        yield Claim("C3b.teacher", f"below the straight line's (barrier over the line's, {most} units)", measured=over["teacher"].sel(width=most), at_most=1.0)
        yield Claim("C3d", f"digits: a narrow network's path is worse than the line (barrier over the line's, {few} units)", measured=over["digits"].sel(width=few), at_least=1.0)
        worst = max(float(self._above_halves(seen).max()) for seen in (digits, teacher))
        yield Claim("C3e", "no path rises above the higher of its ends and their halves (largest loss over that, all runs)", measured=worst, at_most=1.001,
                    reason="exact for losses convex in the output; rounding of single precision is allowed for")
        yield Claim("C5c", f"two hidden layers: fifteen segments do it (mean barrier at {widest} units)", measured=for_path["deep"].sel(width=widest), at_most=0.01, reason="the entry's number for one hidden layer")
        yield Claim("C5d", f"below the straight line's (barrier over the line's, {widest} units)", measured=over["deep"].sel(width=widest), at_most=1.0)

    def _dimensions(self, measured):
        """What was seen in few and in many dimensions, with one hidden layer and with two."""
        few = measured["teacher"].sel(width=self._wide[0], drop=True).dropout_rise
        both = xr.concat([few, measured["dimension"].dropout_rise], xr.Variable("dimension", list(self.dimensions)))
        return xr.Dataset({"dropout_rise": both}).isel(time=-1), measured["dimension, three layers"].isel(time=-1)

    def _change(self, seen):
        return np.abs(seen.dropout_rise)

    def _half(self, seen):
        return self._change(seen).isel(left=HALF).mean(RUNS)

    def _units_left(self, seen):
        """Mean change, [width, left], with the numbers of units as coordinates."""
        return self._change(seen).isel(left=slice(1, None)).mean(RUNS).assign_coords(left=list(self.left)).transpose(..., "left")

    def _farthest(self, seen, wide):
        found = self._units_left(seen)
        return _farthest(found.sel(width=wide[-1]) / found.sel(width=wide[0]))

    def _over_bound(self, seen, wide) -> float:
        found = self._units_left(seen).sel(width=wide)
        shape = xr.DataArray(bound_shape(np.array(self.left)), coords={"left": list(self.left)})
        return float((found / found.isel(left=0) / (shape / shape.isel(left=0))).isel(left=slice(1, None)).max())

    def _distances(self, seen) -> list[float]:
        """Of each N and M: how far the mean change is from what is expected, relative to it, in standard errors."""
        gap = (seen.dropout_rise / seen.sampled_rise - 1).stack(run=RUNS).transpose(..., "run")
        some = gap.values.reshape(-1, gap.sizes["run"])
        # Where all units are left nothing changes; where fewer are there than should be, nothing is known.
        away = [standard_errors_away(one, 0.0) for one, sure in zip(some, (seen.sampled_rise > 0).all(["seed", "member"]).transpose(..., "left").values.ravel(), strict=True) if sure]
        return [a for a in away if np.isfinite(a)]

    def _away(self, seen) -> float:
        return max(self._distances(seen))

    def _cases(self, seen) -> int:
        return len(self._distances(seen))

    def _above_halves(self, seen):
        """The largest loss on each path over the largest at its ends and their halves, which are its second and last but one corner."""
        along, step = seen.dropout_path_loss, POINTS - 1
        corners = along.isel(dropout_path=[0, step, 6 * step, 7 * step])
        return along.max("dropout_path") / corners.max("dropout_path")

    def figures(self, measured, theory):
        seen = {name: found.isel(time=-1) for name, found in measured.items()}
        dimensions = self._dimensions(measured)
        three = [("digits", "digits, logistic loss"), ("teacher", "teacher, squared error"), ("three layers", "digits, two hidden layers")]
        yield Figure("dropout", "How much the loss changes (mean size over pairs, networks and random sets, with a standard error) when M units of N are left. Lines: the sampling variance "
                     "of the trained networks' units to second order in the output, exact for the squared error, too little for the logistic loss where few are left. Dotted: the proved bound's shape, at an arbitrary height.", lambda axes: self._draw_dropout(axes[0], seen, three), grid=(1, 3))
        yield Figure("paths", "The loss on the path between two solutions through their halves (mean over pairs); corners at whole positions. Dotted: the straight line.",
                     lambda axes: self._draw_paths(axes[0], seen, three), grid=(1, 3))
        yield Figure("barriers", "How far the loss rises between two solutions on the path and on the straight line, and without half of the units, against the width (means over pairs, with a standard error). Grey: one over the width.",
                     lambda axes: self._draw_barriers(axes[0], seen, three), grid=(1, 3))
        yield Figure("bent", f"Left: digits, {self._second} units: one trained bend, the straight line and the path through halves (mean over pairs), positions as a share of the path. "
                     f"Right: the change of the loss for a teacher in few and in many dimensions, with {self._wide[0]} units in one hidden layer (filled) and {self._wide[1]} in each of two (open).", lambda axes: self._draw_others(axes[0], seen, dimensions), grid=(1, 2))

    def _draw_dropout(self, axes, seen, three):
        for axis, (name, title) in zip(axes, three, strict=True):
            found, widths = seen[name], seen[name].width.values.tolist()
            change = self._change(found).mean(["member", "draw"]).isel(left=slice(1, None)).assign_coords(left=list(self.left))
            for color, width in zip(shades(len(widths)), widths, strict=True):
                some = change.sel(width=width, left=[m for m in self.left if m < width])
                if not some.sizes["left"]:
                    continue
                dots(axis, some, "left", color=color, label=f"N = {width}")
                if "sampled_rise" in found:
                    said = found.sampled_rise.mean(["seed", "member"]).isel(left=slice(1, None)).assign_coords(left=list(self.left))
                    axis.plot(some.left, said.sel(width=width, left=some.left), color=color, marker="_" if some.sizes["left"] == 1 else None, markersize=9)
            shape = bound_shape(np.array(self.left))
            axis.plot(self.left, 1.6 * float(change.max()) * shape / shape[0], ":", color="0.4")
            label(axis, "units left M", "change of the loss", title, xlog=True, ylog=True)
            axis.set_xticks(self.left, [str(m) for m in self.left])
            axis.minorticks_off()
            if "sampled_rise" in found:
                axis.set_ylim(axis.get_ylim()[0] / 4, None)
                key_of_overlay(axis, loc="lower left", ncols=2, columnspacing=1)
            else:
                axis.legend(loc="lower left")

    def _draw_paths(self, axes, seen, three):
        for axis, (name, title) in zip(axes, three, strict=True):
            found, widths = seen[name], seen[name].width.values.tolist()
            segments = (found.sizes["dropout_path"] - 1) // (POINTS - 1)
            for color, width in zip(shades(len(widths)), widths, strict=True):
                along, straight = (found[f"{way}_path_loss"].sel(width=width).mean("seed") for way in ("dropout", "straight"))
                axis.plot(np.linspace(0, segments, along.size), along, color=color, label=f"N = {width}")
                axis.plot(np.linspace(0, segments, straight.size), straight, ":", color=color)
            label(axis, "position on the path", "loss", title, ylog=True)
            axis.set_xticks(range(0, segments + 1, 1 if segments < 10 else 3))
            axis.margins(y=0.25)
            axis.legend(loc="upper center", ncols=2, fontsize=7)

    def _draw_barriers(self, axes, seen, three):
        for axis, (name, title) in zip(axes, three, strict=True):
            found = seen[name]
            half = self._change(found).isel(left=HALF).mean(["member", "draw"])
            for color, values, words in ((COLORS[0], found.dropout_path_barrier, "path through halves"), (COLORS[1], found.straight_path_barrier, "straight line"), (COLORS[2], half, "half dropped")):
                dots(axis, values, "width", color=color, label=words, linestyle="-", linewidth=1)
            widths = np.array(found.width.values, float)
            axis.plot(widths, 0.4 * float(half.isel(width=0).mean()) * widths[0] / widths, "--", color="0.6", zorder=1)
            label(axis, "units N", "rise of the loss", title, xlog=True, ylog=True)
            axis.set_xticks(widths, [f"{w:g}" for w in widths])
            axis.minorticks_off()
            axis.legend(loc="lower left", fontsize=7)

    def _draw_others(self, axes, seen, dimensions):
        bent, path = seen["bent"], seen["digits"].sel(width=self._second)
        for color, along, words in ((COLORS[1], bent.straight_path_loss, "straight"), (COLORS[0], path.dropout_path_loss, "through halves"), (COLORS[4], bent.bent_path_loss, "one trained bend")):
            mean = along.mean("seed")
            axes[0].plot(np.linspace(0, 1, mean.size), mean, color=color, label=words)
        label(axes[0], "share of the path", "loss", f"digits, {self._second} units", ylog=True)
        axes[0].margins(y=0.25)
        axes[0].legend(loc="upper center", ncols=2)
        for found, filled, shift in ((dimensions[0], True, 0.97), (dimensions[1], False, 1.03)):
            change = self._change(found).mean(["member", "draw"]).isel(left=slice(1, None))
            change = change.assign_coords(left=np.array(self.left) * shift)
            for color, dimension in zip(COLORS, self.dimensions, strict=False):
                dots(axes[1], change.sel(dimension=dimension), "left", color=color, markerfacecolor=color if filled else "white", label=f"{dimension} inputs" if filled else None)
        label(axes[1], "units left M", "change of the loss", "teacher, squared error", xlog=True, ylog=True)
        axes[1].set_xticks(self.left, [str(m) for m in self.left])
        axes[1].minorticks_off()
        axes[1].legend(loc="lower left")


def _farthest(ratios: xr.DataArray) -> float:
    """The one that is farthest from 1, by its logarithm; what is not known does not count."""
    values = ratios.values.ravel()
    values = values[np.isfinite(values) & (values > 0)]
    return float(values[np.argmax(np.abs(np.log(values)))])
