"""Quadratic networks recover a quadratic teacher as soon as they have as many units as it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from armillary.clock import At
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least, between
from armillary.measures import crossing_time, power_law
from armillary.models.factorised import SymmetricFactors
from armillary.probes import Losses, Probe
from armillary.probes.matrix_recovery import MatrixRecovery, PrincipalCosines
from armillary.quantity import Quantity
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, lines, shades
from armillary.rules import SGD, Descent, GradientFlow
from armillary.study import Claim, Paper, Study
from armillary.tasks.quadratic import QuadraticTeacher
from armillary.theory.jacobi import FreeJacobi
from armillary.theory.quadratic import high_dimensional_flow, riccati_flow, stationary_risk

RECOVERED = 0.999
"""Overlap from which recovery counts as strong."""


class Start(Probe):
    """The weights and the teacher that a member was drawn with, which the closed form starts from."""

    def __call__(self, now):
        return {"weights": Quantity(now.network.factor, ("input", "unit")),
                "teacher": Quantity(now.data.teacher, ("input", "column"))}


@dataclass(frozen=True, kw_only=True)
class QuadraticOverparam(Study):
    """A network of squared units learns a teacher of m* such units by gradient flow on the population's risk. With
    fewer units than the teacher a known risk remains; with as many, the teacher is recovered, and exponentially fast.

    More units make the beginning faster and the end slower: what the surplus units hold decays as 1/t only. Between
    independent orthonormal families the whole course follows in high dimensions from the free Jacobi law of the
    principal angles, and Gaussian initial weights behave alike.
    """

    paper: ClassVar = Paper(
        "On the Impact of Overparameterization on the Training of a Shallow Neural Network in High Dimensions",
        authors="Simon Martin, Francis Bach, Giulio Biroli", year=2023, arxiv="2311.03794",
    )  # fmt: skip
    seeds: ClassVar = {"smoke": 2, "desk": 4, "paper": 8}

    dimension: int = at_least(4, default=20, smoke=10, paper=60)
    """Inputs of the network whose whole course is followed."""
    teachers: tuple[int, ...] = at_least(2, default=(2, 5), smoke=(2,))
    """Numbers m* of its teacher's units; the last is drawn."""
    until: float = above(30.0, default=200.0)
    """Flow time until which it is followed."""
    tolerance: float = above(0.0, default=1e-7)
    """Relative tolerance of that flow."""
    closed_dimension: int = at_least(10, default=30, smoke=10, paper=100)
    """Inputs at which the closed form is checked, with a fifth as many teachers and three tenths as many units."""
    large_dimension: int = at_least(100, default=200, smoke=100, paper=400)
    """Inputs of the high-dimensional limit."""
    share: float = between(0.01, 0.5, default=0.2)
    """Teachers over inputs there, and at the threshold."""
    widths: tuple[float, ...] = above(0.0, default=(0.15, 0.3))
    """Units over inputs there; the last has more units than teachers."""
    threshold_dimension: int = at_least(20, default=100, smoke=40, paper=200)
    """Inputs at which the number of units is swept through the number of teachers."""
    ratios: tuple[float, ...] = above(0.0, default=(0.25, 0.5, 0.75, 0.95, 1.0, 1.25, 1.5, 2.0), smoke=(0.5, 1.0, 1.5))
    """Units over teachers there."""
    draws: int = at_least(2, default=50, smoke=4, paper=50)
    """Pairs of random subspaces whose principal angles are taken."""
    oversampling: float = above(0.0, default=4.0)
    """Samples over weights (inputs times units) of the run on a finite data set."""
    steps: int = at_least(100, default=1000, smoke=500)
    """Gradient descent steps of that run, of 0.02 flow time each."""

    def experiments(self):
        few, many = self._all_widths()
        angles = self._limit(self.large_dimension, orthonormal=True, times=(0.0,))
        closed = self._experiment(self.closed_dimension, self.closed_dimension // 5, 3 * self.closed_dimension // 10)
        closed = Experiment(closed.task, closed.model, GradientFlow(6.0, tolerance=1e-9), [*closed.probes, Start()],
                            At(tuple(np.linspace(0, 6, 25))), precision="float64")
        threshold = {"model.width": [round(r * self._threshold_teachers) for r in self.ratios]}
        ends = (0.0, 12.0)
        return {
            "limit": Sweep(self._limit(self.large_dimension, orthonormal=True, times=(0.0, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0)),
                           {"model.width": [round(w * self.large_dimension) for w in self.widths]}),
            "threshold": Sweep(self._limit(self.threshold_dimension, orthonormal=True, times=ends), threshold),
            "threshold Gaussian": Sweep(self._limit(self.threshold_dimension, orthonormal=False, times=ends), threshold),
            "flow": self._grid(few),
            "wide flow": self._grid(many),
            "starts": self._starts(few),
            "wide starts": self._starts(many),
            "closed form": closed,
            "samples": self._samples(),
            "angles": Experiment(angles.task, angles.model, Descent(steps=0), [PrincipalCosines()], At((0,)), precision="float64"),
        }

    def _all_widths(self) -> tuple[list[int], list[int]]:
        """Units below the number of inputs, and above: two programs, as the widest sets the cost of each."""
        few = {max(1, w) for m in self.teachers for w in (1, m - 1, m, m + 1, 2 * m)} - {self.dimension, 2 * self.dimension}
        return sorted(few), [self.dimension, 2 * self.dimension]

    @property
    def _threshold_teachers(self) -> int:
        return round(self.share * self.threshold_dimension)

    def _experiment(self, dimension: int, teachers: int, width: int, *, orthonormal: bool = False) -> Experiment:
        flow = GradientFlow(self.until, tolerance=self.tolerance)
        times = sorted({0.0, 20.0, 30.0, *np.geomspace(0.02, self.until, 49).round(6).tolist()})
        model = SymmetricFactors(width, orthonormal=orthonormal, capacity=width)
        return Experiment(QuadraticTeacher(dimension, teachers), model, flow, [Losses(), MatrixRecovery()], At(tuple(times)), precision="float64")

    def _grid(self, widths) -> Sweep:
        experiment = self._experiment(self.dimension, self.teachers[0], max(widths))
        return Sweep(experiment, {"teachers": self.teachers, "model.width": widths})

    def _starts(self, widths) -> Sweep:
        """The same draws as in the flow, without the flow."""
        flow = self._experiment(self.dimension, self.teachers[-1], max(widths))
        start = Experiment(flow.task, flow.model, Descent(steps=0), [Start()], At((0,)), precision="float64")
        return Sweep(start, {"model.width": widths})

    def _limit(self, dimension: int, *, orthonormal: bool, times) -> Experiment:
        shares = self.widths if dimension == self.large_dimension else [r * self.share for r in self.ratios]
        base = self._experiment(dimension, round(self.share * dimension), round(max(shares) * dimension), orthonormal=orthonormal)
        rule = GradientFlow(times[-1], tolerance=1e-6)
        return Experiment(base.task, base.model, rule, base.probes, At(times), precision="float64")

    def _samples(self) -> Experiment:
        """Gradient descent on a finite data set, from the flow's own draws (the capacity sets them)."""
        few, _ = self._all_widths()
        width = 2 * self.teachers[-1]
        task = QuadraticTeacher(self.dimension, self.teachers[-1], samples=round(self.oversampling * self.dimension * width))
        rule = Descent(SGD(0.02), steps=self.steps)
        times = sorted({0, *np.geomspace(1, self.steps, 40).astype(int).tolist()})
        return Experiment(task, SymmetricFactors(width, capacity=max(few)), rule, [Losses(), MatrixRecovery()], At(tuple(times)), precision="float64")

    def measure(self, name, what, seeds, key, progress):
        # The limit is one of self-averaging numbers: two draws show it. The closed form is laid over one draw.
        many = {"angles": self.draws, "starts": 1, "wide starts": 1, "closed form": 1}
        seeds = many.get(name, min(seeds, 2) if name in ("limit", "threshold", "threshold Gaussian") else seeds)
        return super().measure(name, what, seeds, key, progress)

    def claims(self, measured, theory):
        flow: Any = xr.concat([measured["flow"].train_loss, measured["wide flow"].train_loss], "width")
        widths = flow.width.values.tolist()
        gap = [flow.sel(teachers=m, width=w, time=self.until) - stationary_risk(m, w) for m in self.teachers for w in widths if w < m]
        at_thirty = [flow.sel(teachers=m, width=m, time=30.0) for m in self.teachers]
        surplus = [flow.sel(teachers=m, width=w) for m in self.teachers for w in widths if w > m]
        yield Claim("C1", "as many Gaussian units as teachers recover the teacher (largest risk at t = 30)",
                    measured=np.max(at_thirty), at_most=1e-10)
        yield Claim("C1b", "and so do more units, whatever the number (largest risk at the end over that at the start)",
                    measured=np.max([s.isel(time=-1) / s.isel(time=0) for s in surplus]), at_most=1e-5,
                    reason="each surplus unit still holds about 1/(4 t) at the end")
        yield Claim("C2", "with k units too few a risk of k + k²/(m + 2) remains (largest distance from it)",
                    measured=np.max(np.abs(gap)), at_most=1e-4)

        ends = {name: measured[name].isel(time=-1).assign_coords(width=measured[name].width / self._threshold_teachers)
                for name in ("threshold", "threshold Gaussian")}
        few = [e.overlap.mean("seed").where(e.width < 1, drop=True) for e in ends.values()]
        yield Claim("C2b", "and there is no strong recovery: the overlap is √(m/m*) (largest distance, both starts)",
                    measured=max(float(np.abs(o - np.sqrt(o.width)).max()) for o in few), at_most=1e-3)

        seen, said = measured["limit"].train_loss.mean("seed"), theory["limit"].train_loss
        wide = int(max(seen.width))
        yield Claim("C3", f"orthonormal families follow the free Jacobi limit (largest relative error of the risk, {wide} units)",
                    measured=np.abs(seen / said - 1).sel(width=wide).max("time"), at_most=0.06)
        closed = measured["closed form"].isel(seed=0)
        exact = riccati_flow(closed.time.values, closed.weights.isel(time=0).values, closed.teacher.isel(time=0).values)
        yield Claim("C3b", "and any weights follow the matrix Riccati equation's solution (largest relative error, t ≤ 6)",
                    measured=np.abs(closed.train_loss.values / exact.risk - 1).max(), at_most=1e-4)
        yield from self._threshold_claims("C3", "cd", "orthonormal", ends["threshold"])
        cosines = np.sort(measured["angles"].squared_cosine.values.ravel())
        yield Claim("C3e", "the principal angles follow the free Jacobi law (largest distance of the distributions)",
                    measured=self._distance(cosines[np.isfinite(cosines)]), at_most=0.05,
                    reason="the entry asks for the picture only; eigenvalues are rigid, so a distance of a few units' share is much")
        yield from self._threshold_claims("C4", ("", "b"), "Gaussian", ends["threshold Gaussian"])

        level = xr.DataArray(np.array(self.teachers) / 10, dims="teachers", coords={"teachers": list(self.teachers)})
        reached = crossing_time(flow, level, falling=True)
        early = [reached.sel(teachers=m, width=2 * m) / reached.sel(teachers=m, width=m) for m in self.teachers]
        yield Claim("C5", "twice the teacher's units are faster at first (time to a risk of m*/10 over that with m* units)",
                    measured=early, at_most=1.0)
        late = [s.sel(time=slice(20, self.until)) for s in surplus]
        slopes = [power_law(s.time.values, one).exponent for s in late for one in s.transpose("seed", "time").values]
        yield Claim("C5b", "with more units than teachers the risk ends as t⁻² (exponent farthest from -2, t ≥ 20)",
                    measured=slopes[int(np.argmax(np.abs(np.array(slopes) + 2)))], expected=-2.0, tolerance=0.15)
        behind = [flow.sel(teachers=m, width=m, time=30.0) / flow.sel(teachers=m, width=2 * m, time=30.0) for m in self.teachers]
        yield Claim("C5c", "so that the minimal network, exponentially fast, is ahead in the end (risk over that of 2 m* units, t = 30)",
                    measured=np.max(behind), at_most=1e-4)

        run = measured["samples"]
        run = run.assign_coords(time=run.time * 0.02)
        m = self.teachers[-1]
        times = [crossing_time(loss, m / 10, falling=True) for loss in (run.test_loss, flow.sel(teachers=m, width=2 * m))]
        yield Claim("C6", f"{self.oversampling:g} samples a weight follow the population's flow (time to a risk of m*/10 over the flow's)",
                    measured=times[0] / times[1].drop_vars(["teachers", "width"]), expected=1.0, tolerance=0.2,
                    reason="the entry gives no number. At four samples a weight the flow is slower by a quarter (at sixteen by a tenth): "
                    "the data's curvature is still far from its mean; the order of events and the end are the population's")
        yield Claim("C6b", "and recover the teacher (overlap at the end)", measured=run.overlap.isel(time=-1), at_least=RECOVERED)

    def _threshold_claims(self, name, letters, start, end):
        """`end` at the last time, its width in units of the teachers'."""
        recovered = end.width.where((end.overlap >= RECOVERED).all("seed"), drop=True)
        yield Claim(f"{name}{letters[0]}", f"{start} initial units: the fewest that recover the teacher, over the teacher's",
                    measured=float(recovered.min()) if recovered.size else np.nan, expected=1.0, tolerance=1e-9)
        teachers = self._threshold_teachers
        expected = xr.DataArray([stationary_risk(teachers, w * teachers) for w in end.width.values.tolist()], dims="width", coords={"width": end.width})
        yield Claim(f"{name}{letters[1]}", f"{start} initial units: the remaining risk is the formula's at every number of units "
                    "(largest distance, a teacher, t = 12)", measured=np.abs(end.train_loss - expected).max() / teachers, at_most=1e-3,
                    reason="surplus units still hold about 1/t² then")

    def _law(self) -> FreeJacobi:
        width, teachers = (round(s * self.large_dimension) / self.large_dimension for s in (max(self.widths), self.share))
        return FreeJacobi(width, teachers)

    def _distance(self, cosines) -> float:
        """Kolmogorov's distance between the cosines above 0 and the law's continuous part."""
        nodes, weights = self._law().quadrature(4000)
        below = np.cumsum(weights[::-1]) / weights.sum()  # the quadrature's nodes descend
        cosines = cosines[cosines > 1e-9]
        return float(np.abs(np.interp(cosines, nodes[::-1], below) - (np.arange(len(cosines)) + 0.5) / len(cosines)).max())

    def figures(self, measured, theory):
        yield Figure("risk", f"Left: risk of a network of m Gaussian units on {self.teachers[-1]} teachers, one draw; lines are the "
                     "solution of the matrix Riccati equation from the same weights. Fewer units than teachers keep a risk, as many "
                     "lose it exponentially, more as t⁻² (dotted). Right: gradient descent on a finite data set beside the "
                     "population's flow from the same draws; bars are one standard error over seeds.",
                     lambda axes: self._draw_risk(axes[0], measured), grid=(1, 2))
        yield Figure("threshold", "What remains at t = 12 against the number of units over that of teachers: risk a teacher and overlap. "
                     "Lines are k + k²/(m + 2) for k missing units and √(m/m*); orthonormal and Gaussian initial weights agree.",
                     lambda axes: self._draw_threshold(axes[0], measured), grid=(1, 2))
        yield Figure("limit", "Left: squared cosines of the principal angles between two random subspaces, and the free Jacobi law. "
                     "Right: risk a teacher of orthonormal families, and the limit that this law gives.",
                     lambda axes: self._draw_limit(axes[0], measured), grid=(1, 2))

    def _draw_risk(self, axes, measured):
        m = self.teachers[-1]
        shown = [w for w in sorted({1, m - 1, m, m + 1, 2 * m, 2 * self.dimension}) if w > 0]
        for color, width in zip(shades(len(shown)), shown, strict=True):
            name = "wide " if width >= self.dimension else ""
            seen = measured[f"{name}flow"].train_loss.sel(teachers=m, width=width).isel(seed=0, time=slice(1, None))
            start = measured[f"{name}starts"].sel(width=width).isel(seed=0, time=0)
            time = np.geomspace(seen.time[0], self.until, 150)
            axes[0].plot(time, np.maximum(riccati_flow(time, start.weights.values, start.teacher.values).risk, 1e-30), color=color, label=f"m = {width}")
            dots(axes[0], seen.where(seen > 1e-13), every=3, color=color)
        late = np.array([10.0, self.until])
        axes[0].plot(late, 1.5 / late**2, ":", color="0.3")
        label(axes[0], "time", "risk", f"m* = {m}, d = {self.dimension}", xlog=True, ylog=True)
        axes[0].set_ylim(1e-10, None)
        key_of_overlay(axes[0], loc="lower left")
        run = measured["samples"]
        flow = measured["flow"].train_loss.sel(teachers=m, width=2 * m).mean("seed").isel(time=slice(1, None))
        lines(axes[1], flow, color=COLORS[0], label="population, flow")
        for color, name, words in ((COLORS[1], "test_loss", "n samples: risk"), (COLORS[2], "train_loss", "n samples: training loss")):
            seen = run[name].assign_coords(time=run.time * 0.02).isel(time=slice(1, None))
            dots(axes[1], seen, every=2, color=color, label=words)
        count = round(self.oversampling * self.dimension * 2 * m)
        label(axes[1], "time", "risk", f"m = {2 * m}, n = {count}", xlog=True, ylog=True)
        axes[1].set_xlim(0.02, 0.02 * self.steps * 1.2)
        axes[1].set_ylim(1e-4, None)
        axes[1].legend(loc="lower left")

    def _draw_threshold(self, axes, measured):
        teachers = self._threshold_teachers
        units = range(max(1, teachers // 5), 2 * teachers + 1)
        ratio = np.array(units) / teachers
        axes[0].plot(ratio, [stationary_risk(teachers, u) / teachers for u in units], color="0.3")
        axes[1].plot(ratio, np.sqrt(np.minimum(ratio, 1)), color="0.3")
        for color, marker, size, name, words in ((COLORS[0], "o", 4, "threshold", "orthonormal start"),
                                                 (COLORS[1], "s", 7, "threshold Gaussian", "Gaussian start")):  # fmt: skip
            end = measured[name].isel(time=-1).assign_coords(width=measured[name].width / teachers)
            dots(axes[0], end.train_loss / teachers, "width", color=color, fmt=marker, markersize=size, mfc="none", label=words)
            dots(axes[1], end.overlap, "width", color=color, fmt=marker, markersize=size, mfc="none")
        label(axes[0], "units m/m*", "risk that remains, over m*", f"m* = {teachers}, d = {self.threshold_dimension}")
        label(axes[1], "units m/m*", "overlap")
        axes[0].legend()

    def _draw_limit(self, axes, measured):
        law = self._law()
        cosines = measured["angles"].squared_cosine.values.ravel()
        cosines = cosines[cosines > 1e-9]
        axes[0].hist(cosines, bins=40, density=True, color=COLORS[5], label="measured")
        low, high = law.edges
        x = low + (high - low) * np.sin(np.linspace(0, np.pi / 2, 400)) ** 2
        axes[0].plot(x, law.density(x) / (min(law.first, law.second) - law.atom_at_one), color="0.0", label="free Jacobi law")
        label(axes[0], "squared cosine", "density (without the atoms)", f"m/d = {law.first:g}, m*/d = {law.second:g}")
        axes[0].legend()
        teachers = round(self.share * self.large_dimension)
        seen = measured["limit"].train_loss / teachers
        time = np.linspace(0, float(seen.time[-1]), 201)  # finer than the observations
        for color, width in zip(COLORS, seen.width.values.tolist(), strict=False):
            said = high_dimensional_flow(time, width, teachers, self.large_dimension)
            axes[1].plot(time, said.risk / teachers, color=color, label=f"m = {width}")
            dots(axes[1], seen.sel(width=width), color=color)
        label(axes[1], "time", "risk over m*", f"m* = {teachers}, d = {self.large_dimension}", ylog=True)
        key_of_overlay(axes[1], loc="lower left")
