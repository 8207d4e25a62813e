"""Time, width and data each have a power law of their own in random-feature models, and compute is split by two of them."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from armillary.clock import At, LogSpaced
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least, setting
from armillary.measures import in_groups, power_law, rank_correlation
from armillary.models.projection import RandomProjection
from armillary.once import drawn
from armillary.probes import ExcessRisk, Losses
from armillary.probes.modes import UnlearnedModes
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, lines, shades
from armillary.rules import SGD, Descent, LinearFlow, Online
from armillary.study import Claim, Paper, Study
from armillary.tasks.eigenfeatures import Eigenfeatures
from armillary.theory.kernels.regression import kernel_modes
from armillary.theory.linear_dynamics import LinearDynamics
from armillary.theory.power_laws import power_law_modes
from armillary.theory.scaling_laws import exponents_of, scaling_law

NONE = "ours, set before the run: the entry gives no number"

EXPONENTS = ((1.5, 1.25), (2.0, 1.5), (4.5, 1.25))
"""Exponents a of the target's power and b of the spectrum: hard, and (the last) easy."""

CHECKED = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
"""Flow times at which simulation is held against theory."""


@dataclass(frozen=True, kw_only=True)
class ScalingLaws(Study):
    """A linear model on random projections of power-law features is trained on some samples for some time. In the limit of
    many features its train and test error are deterministic at any time, width and number of samples. Each resource alone has
    a power law; time's exponent differs from the others, so compute is best split unevenly between time and width.

    Small models lose to large ones as 1/width early, by a power of the task late, and no ensemble makes up for it. Train and
    test error part as data are reused. Test errors leave label noise out, training errors do not.
    """

    paper: ClassVar = Paper("A Dynamical Model of Neural Scaling Laws", authors="Blake Bordelon, Alexander Atanasov, Cengiz Pehlevan",
                            year=2024, arxiv="2402.01092")  # fmt: skip
    seeds: ClassVar = {"smoke": 3, "desk": 60, "paper": 200}

    target_exponent: float = above(1.0, default=2.0)
    """Power of the target in mode k is k to minus this, in simulations."""
    spectrum_exponent: float = above(1.0, default=1.5)
    """Their eigenvalues are k to minus this."""
    modes: int = at_least(40, default=400, smoke=40, paper=2000)
    """Features in simulations."""
    samples: tuple[int, int, int] = at_least(20, default=(100, 60, 100), smoke=(25, 25, 25))
    """Training samples of the three flows: under-parametrised, over-parametrised, noisy."""
    widths: tuple[int, int, int] = at_least(20, default=(50, 200, 400), smoke=(20, 20, 20))
    """Their projections."""
    label_variance: float = above(0.0, default=0.1)
    """Variance of the third one's label noise."""
    until: float = above(99.0, default=1e5)
    """Flow time."""
    descent_samples: int = at_least(20, default=60, smoke=25)
    """Training samples of descent in steps."""
    descent_width: int = at_least(20, default=80, smoke=20)
    """Its projections."""
    learning_rate: float = above(0.0, default=0.3)
    """Its learning rate."""
    momenta: tuple[float, ...] = setting((0.0, 0.5), low=0.0, high=1.0)
    """Its heavy-ball momenta."""
    steps: int = at_least(199, default=199)
    """Its steps."""
    batch: int = at_least(1, default=10)
    """Fresh samples of each step of one-pass SGD, at learning rate 0.2."""
    online_draws: int = at_least(2, default=100, smoke=4, paper=2000)
    """Runs of it."""
    endless: tuple[int, ...] = at_least(20, default=(20, 40, 80), smoke=(20,))
    """Projections of the models that see all samples there are; ensembles are compared between the first and the last."""
    measured_samples: int = at_least(200, default=1000, smoke=200)
    """Samples from which a kernel's modes are measured."""

    def experiments(self):
        flows = {
            name: self._flow(width, count, noise)
            for name, width, count, noise in zip(("narrow", "wide", "noisy"), self.widths, self.samples, (0.0, 0.0, self.label_variance), strict=True)
        }
        steps = At(tuple(float(s) for s in sorted({0, 1, 5, 20, 50, 100, 199, self.steps})))
        descent = Experiment(self._task(self.descent_samples), RandomProjection(self.descent_width),
                             Descent(SGD(self.learning_rate, self.momenta[0]), self.steps), self._probes, steps, precision="float64")  # fmt: skip
        rule = Descent(SGD(0.2), 300, feed=Online(self.batch))
        online = Experiment(self._task(None, self.modes // 2), RandomProjection(), rule, [ExcessRisk()],
                            At((0.0, 1.0, 10.0, 50.0, 100.0, 300.0)), precision="float64")  # fmt: skip
        endless = Sweep(self._flow(self.endless[0], None, 0.0), {"width": self.endless})
        return {**flows, "descent": Sweep(descent, {"momentum": self.momenta}), "online": online, "endless": endless}

    @property
    def _probes(self):
        return [Losses(), ExcessRisk(), UnlearnedModes()]

    def _task(self, samples: int | None, modes: int | None = None, noise: float = 0.0) -> Eigenfeatures:
        k = np.arange(1.0, (modes or self.modes) + 1)
        return Eigenfeatures(k**-self.spectrum_exponent, k ** (-self.target_exponent / 2), samples, noise)

    def _flow(self, width: int, samples: int | None, variance: float) -> Experiment:
        clock = LogSpaced(max(round(3 * np.log10(self.until / 0.1)) + 2, 3), first=0.1)
        return Experiment(self._task(samples, noise=variance**0.5), RandomProjection(width), LinearFlow(self.until), self._probes, clock, precision="float64")

    def measure(self, name, what, seeds, key, progress):
        return super().measure(name, what, self.online_draws if name == "online" else seeds, key, progress)

    def _dynamics(self, a: float, b: float, width: float = np.inf, samples: float = np.inf, noise: float = 0.0) -> LinearDynamics:
        """Of 1e8 modes."""
        return LinearDynamics(*power_law_modes(b, a), width, samples, noise)

    @cached_property
    def _law(self):
        """The scaling law of exact modes, and its best splits of compute."""
        (a, b), k = EXPONENTS[0], np.arange(1.0, 4001.0)
        law = scaling_law(k**-b, k ** (-a / 2))
        return law, law.frontier(np.geomspace(1e3, 1e7, 13).tolist())

    @cached_property
    def _measured_law(self):
        """Modes of the Gram matrix of drawn samples, and the law fitted to them."""
        train = drawn(self._task(self.measured_samples)).train
        x = np.asarray(train.inputs, float)
        modes = kernel_modes(x @ x.T, np.asarray(train.targets))
        last = min(self.measured_samples // 5, self.modes // 2)
        return modes, scaling_law(modes.eigenvalues, np.sqrt(modes.power), fit_range=(3, last), modes=self.modes)

    def claims(self, measured, theory):
        yield from self._simulated(measured, theory)
        yield from self._bottlenecks()
        yield from self._compute(measured, theory)
        yield from self._corrections()
        yield from self._ensembles(measured, theory)
        yield from self._gaps(measured, theory)

    def _simulated(self, measured, theory):
        away, apart = [], []
        for name in ("narrow", "wide", "noisy"):
            seen, said = (t[name].sel(time=[t for t in CHECKED if t <= self.until], method="nearest") for t in (measured, theory))
            for what in ("excess_risk", "train_loss"):
                mean, error = seen[what].mean("seed"), seen[what].std("seed", ddof=1) / np.sqrt(seen.sizes["seed"])
                there = said[what] > 1e-3 * theory[name][what][0]
                away.append((np.abs(mean / said[what] - 1)).where(there).max())
                apart.append((np.abs(mean - said[what]) / error).where(there).max())
        yield Claim("C1", "gradient flow: mean test and training errors of three settings are the theory's at six times (largest relative error)",
                    measured=max(map(float, away)), at_most=0.06, reason="where above 1e-3 of the start")
        yield Claim("C1b", "in standard errors of the simulated means (largest of 36)", measured=max(map(float, apart)), at_most=3.0)
        seen, said = measured["descent"].isel(time=slice(1, None)), theory["descent"].isel(time=slice(1, None))
        off = [np.abs(seen[what].mean("seed") / said[what] - 1).max() for what in ("excess_risk", "train_loss")]
        yield Claim("C1c", "descent in steps, plain and with momentum (largest relative error)", measured=max(map(float, off)), at_most=0.06)
        off = np.abs(measured["online"].excess_risk.mean("seed") / theory["online"].excess_risk - 1)
        yield Claim("C1d", f"one-pass SGD of batch {self.batch}, width infinite (largest relative error)", measured=off.max(), at_most=0.06)
        seen, said = (t["narrow"].unlearned.isel(mode=slice(0, 10), time=slice(1, None)) for t in (measured, theory))
        z = (seen.mean("seed") - said) / (seen.std("seed", ddof=1) / np.sqrt(seen.sizes["seed"]))
        yield Claim("C1e", "mode by mode, what is not learned of the first ten is the theory's on average (mean square of the deviation in standard errors)",
                    measured=(z**2).mean(), at_most=2.0, reason=f"{NONE}; about 1 where theory is exact, but modes and times are not independent")

    def _bottlenecks(self):
        grid = np.geomspace(100, 1000, 7)
        for number, (a, b) in enumerate(EXPONENTS):
            name = f"a = {a:g}, b = {b:g}"
            in_time, in_width, in_samples = (float(e) for e in exponents_of(b, a)[:3])
            times = np.geomspace(1e2, 1e5, 13)
            errors = self._dynamics(a, b).flow(times).test
            fits = [power_law(times[i : i + 5], errors[i : i + 5]).exponent for i in (0, 4, 8)]
            yield Claim(f"C2.{number + 1}", f"{name}, time alone: t^-(a-1)/b (exponent farthest from it, of three decades)",
                        measured=-max(fits, key=lambda e: abs(e + in_time)), expected=in_time, tolerance=0.01)
            wide = power_law(grid, [self._dynamics(a, b, width=n).end()[0] for n in grid])
            yield Claim(f"C2.{number + 1}b", f"{name}, width alone: N^-min(a-1, b) (exponent, N = 100 to 1000)", measured=-wide.exponent,
                        expected=in_width, tolerance=0.06, reason=_interval(wide))
            few = power_law(grid, [self._dynamics(a, b, samples=p).end()[0] for p in grid])
            yield Claim(f"C2.{number + 1}c", f"{name}, data alone: P^-min(a-1, 2b) (exponent, P = 100 to 1000)", measured=-few.exponent,
                        expected=in_samples, tolerance=0.06, reason=_interval(few))
        a, b = EXPONENTS[-1]
        bias = power_law(grid, [self._dynamics(a, b, width=n).end()[2] for n in grid])
        yield Claim("C2d", "width: the exponent 2b that the paper is quoted with is the infinite ensemble's (easy task, exponent of its bias)",
                    measured=-bias.exponent, expected=min(a - 1, 2 * b), tolerance=0.1, reason=f"{NONE}; {_interval(bias)}")
        law = self._measured_law[1]
        for name, what, fit, true in (("C2e", "eigenvalues", law.spectrum, self.spectrum_exponent), ("C2f", "the target", law.target, self.target_exponent)):
            yield Claim(name, f"from a Gram matrix of {self.measured_samples} samples: the fitted exponent of {what} (distance from the truth)",
                        measured=abs(fit.exponent.value - true), at_most=0.15, reason=f"{NONE}; found {fit.exponent}")

    def _compute(self, measured, theory):
        law, late = self._law[0], self._law[1].isel(budget=slice(-7, None))
        found = {name: power_law(late.budget, late[name]) for name in ("width", "time", "test_error")}
        said = law.exponents
        yield Claim("C3", "compute C = N t, a = 1.5, b = 1.25: the best width grows as C^0.444 (exponent, C = 1e5 to 1e7)", measured=found["width"].exponent,
                    expected=said.best_width.value, tolerance=0.02, reason=_interval(found["width"]))
        yield Claim("C3b", "the best time as C^0.556", measured=found["time"].exponent, expected=said.best_time.value, tolerance=0.02, reason=_interval(found["time"]))
        yield Claim("C3c", "and the error falls as C^-0.222", measured=-found["test_error"].exponent, expected=said.best_error.value, tolerance=0.02, reason=_interval(found["test_error"]))
        yield Claim("C3d", "so that time grows faster than width (difference of the exponents)", measured=found["time"].exponent - found["width"].exponent, at_least=0.05, reason=NONE)
        seen, expected = (t["endless"].excess_risk.isel(time=slice(1, None)) for t in (measured, theory))
        yield Claim("C3e", f"simulated on all samples: errors at every time, widths {self.endless} (largest relative error)",
                    measured=np.abs(seen.mean("seed") / expected - 1).max(), at_most=0.06, reason=f"{NONE} but C1's")

    def _corrections(self):
        (a, b), widths = EXPONENTS[0], (30, 100, 300, 1000)
        ends = [self._dynamics(a, b).flow([1.0, 1e5]).test]
        above = np.array([self._dynamics(a, b, width=n).flow([1.0, 1e5]).test for n in widths]) - ends[0]
        early, late = (power_law(widths[1:], above[1:, i]) for i in (0, 1))
        yield Claim("C4", "what a finite width costs early (t = 1) falls as 1/N (exponent, N = 100 to 1000)", measured=-early.exponent, expected=1.0, tolerance=0.05, reason=f"{NONE}; {_interval(early)}")
        yield Claim("C4b", "and late (t = 1e5) as N^-min(a-1, b), here N^-0.5", measured=-late.exponent, expected=0.5, tolerance=0.06, reason=_interval(late))

    def _ensembles(self, measured, theory):
        small, large = min(self.endless), max(self.endless)
        seen = measured["endless"].sel(time=1e4, method="nearest")
        weight = np.arange(1.0, self.modes + 1) ** -self.target_exponent
        left = in_groups(seen.unlearned.sel(width=small), min(5, seen.sizes["seed"] // 3 or 1))
        pairs = (left.sum("seed") ** 2 - (left**2).sum("seed")) / (left.sizes["seed"] * (left.sizes["seed"] - 1))
        bias = (pairs * weight).sum("mode")
        yield Claim("C5", f"infinitely many models of width {small} averaged are worse than one of width {large} (their error over its, t = 1e4, simulated)",
                    measured=bias / seen.excess_risk.sel(width=large).mean("seed"), at_least=1.0, reason="a fair estimate: products of different models' errors")
        said = theory["endless"].sel(time=1e4, method="nearest")
        yield Claim("C5b", "as the theory has it (simulated ensemble error over theory's)", measured=bias / said.risk_of_mean.sel(width=small), expected=1.0, tolerance=0.1, reason=NONE)
        a, b, samples, widths = self.target_exponent, self.spectrum_exponent, 100, (15, 30, 60, 90, 150, 400, 1000)
        noisy = [self._dynamics(a, b, n, samples, self.label_variance**0.5).flow(np.geomspace(1, 1e5, 26)).test for n in widths]
        plain = np.array([self._dynamics(a, b, n).end()[0] for n in widths])
        steepest = lambda errors: float(np.max(np.asarray(errors)[1:] / np.asarray(errors)[:-1]))
        yield Claim("C5c", "with enough data wider is always better (largest ratio of an error to the next narrower model's, P infinite)", measured=steepest(plain), at_most=1.0)
        yield Claim("C5d", f"with {samples} noisy samples it is not, trained to t = 1e5 (the same)", measured=steepest([c[-1] for c in noisy]), at_least=1.05, reason=NONE)
        yield Claim("C5e", "but it is if training stops at the best time (the same)", measured=steepest([c.min() for c in noisy]), at_most=1.0)
        over = measured["noisy"].excess_risk.mean("seed")
        yield Claim("C5f", "noisy labels, simulated: stopping early pays (smallest error over the last)", measured=over.min() / over.isel(time=-1), at_most=0.7, reason=f"{NONE}; the entry's two errors have a ratio of 0.5")

    def _gap(self, seen, name):
        """Test less training error without label noise: what a model has of its own samples. Of simulations less its linear
        fit on the gap at the start, whose mean is 0 exactly and whose scatter hides the others (a control variate)."""
        noise = self.label_variance if name == "noisy" else 0.0
        gap = seen[name].excess_risk - 2 * seen[name].train_loss + noise
        if "seed" not in gap.dims:
            return gap
        start = gap.isel(time=0)
        slope = (gap * (start - start.mean())).mean("seed") / start.var("seed")
        return gap - slope * start

    def _gaps(self, measured, theory):
        start = (measured["noisy"].excess_risk - 2 * measured["noisy"].train_loss).isel(time=0) + self.label_variance
        yield Claim("C6", "test and training error agree at the start (mean gap over its standard error)", measured=abs(float(start.mean() / start.std(ddof=1))) * start.size**0.5, at_most=3.0)
        gaps = [self._gap(measured, name).transpose("time", "seed").mean("seed") for name in ("narrow", "wide", "noisy")]
        yield Claim("C6b", "their gap grows with time as data are reused (least rank correlation of three settings, simulated)",
                    measured=min(rank_correlation(gap.time[1:], gap[1:]) for gap in gaps), at_least=0.95,
                    reason=f"{NONE}; a first run gave 0.84 and failed: the scatter of the labels' variance hid the gap before t = 5. The control variate came after it")
        samples = (100, 300, 1000, 3000)
        courses = [self._dynamics(*EXPONENTS[0], samples=count).flow([1.0]) for count in samples]
        fit = power_law(samples, [float(course.test[0] - course.train[0]) for course in courses])
        yield Claim("C6c", "early (t = 1) it is of order 1/P (exponent, P = 100 to 3000)", measured=-fit.exponent, expected=1.0, tolerance=0.05, reason=f"{NONE}; {_interval(fit)}")

    def figures(self, measured, theory):
        yield Figure("time", "Left: test error against time for several widths, on all samples. Right: three settings with few samples; training "
                     "errors are dashed, open dots. Lines: theory; dots: means over draws.", lambda axes: self._draw_time(axes[0], measured, theory), grid=(1, 2))
        yield Figure("compute", "Left: test error against compute N t at a = 1.5, b = 1.25 for widths 10 to 10 000 (theory), the best that any width "
                     "reaches, and its power law. Right: the best width and time.", lambda axes: self._draw_compute(axes[0]), grid=(1, 2))
        yield Figure("gap", "Left: test less training error, without label noise, against time. Right: what is not learned yet of single modes, in the narrow setting.",
                     lambda axes: self._draw_gap(axes[0], measured, theory), grid=(1, 2))
        yield Figure("exponents", "Exponents of the test error in width (left) and data (right) between 100 and 1000, by theory, over the (a, b) plane. Right of the lines "
                     "a - 1 = b and a - 1 = 2b the eigenvalues decide.", lambda axes: self._draw_exponents(axes[0]), grid=(1, 2))
        yield Figure("measured-kernel", f"Eigenvalues and target power of a Gram matrix of {self.measured_samples} samples, their fitted power laws, and the laws' "
                     "intervals (right: test error of models of each width, and what the fitted law says).", lambda axes: self._draw_kernel(axes[0], measured), grid=(1, 2))

    def _draw_time(self, axes, measured, theory):
        for color, width in zip(shades(len(self.endless)), self.endless, strict=True):
            lines(axes[0], theory["endless"].excess_risk.sel(width=width).isel(time=slice(1, None)), color=color, label=f"N = {width}")
            dots(axes[0], measured["endless"].excess_risk.sel(width=width).isel(time=slice(1, None)), color=color)
        label(axes[0], "time", "test error", "All samples", xlog=True, ylog=True)
        key_of_overlay(axes[0])
        for color, name, width, samples in zip(COLORS, ("narrow", "wide", "noisy"), self.widths, self.samples, strict=False):
            said, seen = (t[name].isel(time=slice(1, None)) for t in (theory, measured))
            words = f"N = {width}, P = {samples}" + (", noisy" if name == "noisy" else "")
            lines(axes[1], said.excess_risk, color=color, label=words)
            dots(axes[1], seen.excess_risk, color=color)
            train = 2 * said.train_loss
            lines(axes[1], train.where(train > 1e-4), color=color, linestyle="--")
            train = 2 * seen.train_loss
            dots(axes[1], train.where(train.mean("seed") > 1e-4), color=color, markerfacecolor="white")
        label(axes[1], "time", "error", "Few samples", xlog=True, ylog=True)
        axes[1].set_ylim(1e-4, 3)
        axes[1].legend(loc="lower left")

    def _draw_compute(self, axes):
        law, best = self._law
        times, widths = np.geomspace(1, 1e5, 31), (10, 30, 100, 300, 1000, 3000, 10_000)
        for color, width in zip(shades(len(widths)), widths, strict=True):
            axes[0].plot(times * width, law.dynamics(width).flow(times).test, color=color, linewidth=1, label=f"{width:,}".replace(",", " "))
        axes[0].plot(best.budget, best.test_error, color="black", linewidth=2, label="best")
        anchor = best.test_error.values[-1] * (best.budget / best.budget.values[-1]) ** -law.exponents.best_error.value
        axes[0].plot(best.budget, 0.85 * anchor, "--", color=COLORS[1], label=f"$C^{{-{law.exponents.best_error.value:.3f}}}$")
        label(axes[0], "compute N t", "test error", "a = 1.5, b = 1.25", xlog=True, ylog=True)
        axes[0].set_ylim(0.05, 20)
        axes[0].legend(fontsize=7, ncols=4, loc="upper center", title="width", title_fontsize=8)
        for color, name, exponent in ((COLORS[0], "width", law.exponents.best_width), (COLORS[1], "time", law.exponents.best_time)):
            axes[1].plot(best.budget, best[name], "o", color=color, label=f"best {name}")
            line = best[name].values[-1] * (best.budget / best.budget.values[-1]) ** exponent.value
            axes[1].plot(best.budget, line, color=color, label=f"$C^{{{exponent.value:.3f}}}$")
        label(axes[1], "compute N t", "width, time", "The best split", xlog=True, ylog=True)
        axes[1].legend()

    def _draw_gap(self, axes, measured, theory):
        for color, name, words in zip(COLORS, ("narrow", "wide", "noisy"), ("under-parametrised", "over-parametrised", "noisy labels"), strict=False):
            lines(axes[0], self._gap(theory, name).isel(time=slice(1, None)), color=color, label=words)
            dots(axes[0], self._gap(measured, name).isel(time=slice(1, None)), color=color)
        label(axes[0], "time", "test - training error", "The gap", xlog=True)
        key_of_overlay(axes[0], loc="upper left")
        modes = [k for k in (1, 2, 4, 8, 16, 32) if k <= self.modes]
        for color, mode in zip(shades(len(modes)), modes, strict=True):
            lines(axes[1], theory["narrow"].unlearned.sel(mode=mode).isel(time=slice(1, None)), color=color, label=f"mode {mode}")
            dots(axes[1], measured["narrow"].unlearned.sel(mode=mode).isel(time=slice(1, None)), color=color)
        label(axes[1], "time", "share not learned", "Modes", xlog=True)
        axes[1].set_ylim(-0.05, 1.4)
        axes[1].legend(fontsize=7, loc="upper center", ncols=3)

    def _draw_exponents(self, axes):
        a, b = np.linspace(1.2, 5, 12), np.linspace(1.1, 2.5, 12)
        for axis, which, factor in ((axes[0], "width", 1), (axes[1], "samples", 2)):
            ends = lambda a, b, which=which: [LinearDynamics(*power_law_modes(b, a, 1e6, 12), **{which: n}).end()[0] for n in (100.0, 1000.0)]
            found = np.array([[float(np.subtract(*np.log10(ends(x, y)))) for x in a] for y in b])
            mesh = axis.contourf(a, b, found, levels=np.arange(0, 4.6, 0.25), cmap="viridis")
            axis.plot(1 + factor * b, b, "--", color="white")
            axis.set_xlim(a[0], a[-1])
            axis.grid(visible=False)
            label(axis, "target exponent a", "spectrum exponent b", f"Exponent in {'width' if which == 'width' else 'data'}")
            axis.figure.colorbar(mesh, ax=axis)

    def _draw_kernel(self, axes, measured):
        modes, law = self._measured_law
        k = np.arange(1, len(modes.power) + 1)
        for color, values, fit, words in ((COLORS[0], modes.eigenvalues, law.spectrum, "eigenvalues"), (COLORS[1], modes.power, law.target, "target power")):
            seen = k <= min(2 * fit.last, len(k))
            axes[0].plot(k[seen], values[seen], ".", markersize=2, color=color, alpha=0.6)
            inside = k[fit.first - 1 : fit.last]
            axes[0].plot(inside, fit.factor * inside**-fit.exponent.value, color=color, label=f"{words}: {fit.exponent.value:.2f} ± {(fit.exponent.high - fit.exponent.low) / 2:.2f}")
        label(axes[0], "mode", "eigenvalue, power", "Fitted power laws", xlog=True, ylog=True)
        axes[0].set_ylim(1e-7, 10)
        axes[0].legend(loc="upper right")
        times = measured["endless"].time.values[1:]
        said = law.losses(times.tolist(), list(self.endless))
        for color, width in zip(shades(len(self.endless)), self.endless, strict=True):
            lines(axes[1], said.test_error.sel(width=width).isel(samples=0), color=color, label=f"N = {width}")
            dots(axes[1], measured["endless"].excess_risk.sel(width=width).isel(time=slice(1, None)), color=color)
        label(axes[1], "time", "test error", "The measured law's prediction", xlog=True, ylog=True)
        key_of_overlay(axes[1])


def _interval(fit) -> str:
    return f"fitted slope {fit.exponent:.3f} ± {2 * fit.standard_error:.3f} (two standard errors of the line)"
