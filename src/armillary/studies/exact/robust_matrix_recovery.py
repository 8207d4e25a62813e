"""The sub-gradient method from a tiny start recovers a low-rank matrix through gross outliers, whatever the search rank."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import xarray as xr

from armillary.clock import At
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least, between
from armillary.measures import crossing_time, power_law
from armillary.models.factorised import SymmetricFactors
from armillary.probes.matrix_recovery import MatrixRecovery
from armillary.probes.robust_recovery import SignalResidual, SignRIP, TeacherLoss
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, lines, shades
from armillary.rules import SGD, Descent, Loss
from armillary.rules.schedules import Geometric
from armillary.simulation import simulate
from armillary.study import Claim, Paper, Study
from armillary.tasks.sensing import MatrixSensing
from armillary.theory.robust_recovery import statistical_error

ABSOLUTE = Loss("absolute_error")

SUCCESS = 0.01
"""Frobenius error below which the matrix counts as recovered."""


@dataclass(frozen=True, kw_only=True)
class RobustMatrixRecovery(Study):
    """A positive semi-definite matrix of low rank is sought through measurements of which a share is grossly wrong, by
    the sub-gradient method on the mean absolute error of U Uᵀ, with more columns in U than the rank.

    From a small start the signal grows exponentially while what lies beside it hardly moves: the error that is left is a
    power of the initial scale, and the number of measurements that suffice does not depend on the number of columns. The
    truth need not be a minimum of the loss: larger starts end at smaller losses and wrong matrices.

    The learning rate is twice the papers' η₀, because the symmetric network halves it.
    """

    paper: ClassVar = Paper(
        "Global Convergence of Sub-gradient Method for Robust Matrix Recovery: Small Initialization, Noisy Measurements, and Over-parameterization",
        authors="Jianhao Ma, Salar Fattahi", year=2022, arxiv="2202.08788",
    )  # fmt: skip
    seeds: ClassVar = {"smoke": 2, "desk": 8, "paper": 16}

    dimension: int = at_least(4, default=20, smoke=12, paper=50)
    """Rows and columns of the matrix."""
    eigenvalues: tuple[float, ...] = above(0.0, default=(1.0, 0.7), paper=(1.0, 0.85, 0.7))
    """Its non-zero eigenvalues, the largest first."""
    outliers: float = between(0.0, 1.0, default=0.1)
    """Share of grossly wrong measurements."""
    outlier_size: float = above(0.0, default=10.0)
    """Standard deviation of what is added to them."""
    sizes: tuple[float, ...] = above(0.0, default=(1.0, 100.0, 10_000.0), smoke=(1.0, 10.0, 100.0, 10_000.0))
    """Other sizes of outliers, which should not matter."""
    learning_rate: float = above(0.0, default=0.2, smoke=0.4)
    """First learning rate, 2 η₀."""
    ratio: float = between(0.0, 1.0, default=0.9965, smoke=0.986)
    """Ratio of successive learning rates."""
    steps: int = at_least(100, default=3000, smoke=750)
    """Steps on all measurements."""
    scales: tuple[float, ...] = above(0.0, default=(0.7, 0.1, 1e-2, 1e-4, 1e-6, 1e-9), smoke=(0.7, 0.1, 1e-2, 1e-3))
    """Initial scales α, from large to small."""
    few: int = at_least(10, default=160, paper=600)
    """Measurements, fewer than the free numbers of a symmetric matrix of full rank."""
    many: int = at_least(10, default=300, smoke=160, paper=1500)
    """Measurements that are more than those."""
    draws: int = at_least(1, default=16, smoke=1)
    """Draws of so few measurements for each seed of the others, since they differ by factors in what they leave."""
    phase: tuple[int, ...] = at_least(10, default=(60, 80, 100, 120, 150), smoke=(60,))
    """Numbers of measurements of the map of success."""
    widths: tuple[int, ...] = at_least(1, default=(2, 5, 20), smoke=(2, 5, 12), paper=(3, 12, 50))
    """Numbers of columns of the map of success; the last is the dimension, the first the rank."""
    noise: float = above(0.0, default=0.1)
    """Standard deviation of dense Gaussian noise, where there are no outliers."""
    noisy: int = at_least(10, default=400, smoke=160, paper=2000)
    """Measurements with dense noise."""
    noisy_scales: tuple[float, float] = above(0.0, default=(1e-6, 0.5), smoke=(1e-3, 0.5))
    """A small and a large start with dense noise."""

    def experiments(self):
        task, columns = self._task(self.few), {"width": (self._rank, self._most)}
        corrupted = {"outlier_size": self.sizes}
        dense = MatrixSensing(self.dimension, self.eigenvalues, self.noisy, noise=self.noise)
        wrong = Loss("squared_error")
        return {
            "few": Sweep(self._experiment(task), {"scale": self.scales}),
            "exact": Sweep(self._experiment(task, width=self._rank), {"scale": self.scales}),
            "many": Sweep(self._experiment(self._task(self.many), precision="float64"), {"scale": self.scales}),
            "sizes": Sweep(self._experiment(self._task(self.many), scale=min(self.scales)), corrupted),
            "squared": self._experiment(task, scale=1e-6, loss=wrong),
            "dense": Sweep(self._experiment(dense), {**columns, "scale": self.noisy_scales}),
            "phase": Sweep(self._mapped(), {"measurements": self.phase, "model.width": self.widths}),
        }

    def measure(self, name, what, seeds, key, progress):
        return simulate(what, seeds=self.draws * seeds if name == "few" else seeds, key=key, progress=progress)

    @property
    def _rank(self) -> int:
        return len(self.eigenvalues)

    @property
    def _most(self) -> int:
        """The largest search rank: the dimension."""
        return self.dimension

    @property
    def _norm(self) -> float:
        return float(np.linalg.norm(self.eigenvalues))

    def _task(self, measurements: int) -> MatrixSensing:
        return MatrixSensing(self.dimension, self.eigenvalues, measurements, outliers=self.outliers, outlier_size=self.outlier_size)

    def _model(self, scale: float, width: int | None = None) -> SymmetricFactors:
        return SymmetricFactors(width or self._most, scale=scale, orthonormal=True, capacity=self._most)

    def _rule(self, loss: Loss) -> Descent:
        return Descent(SGD(self.learning_rate, schedule=Geometric(self.ratio)), steps=self.steps, loss=loss)

    def _experiment(self, task: MatrixSensing, scale: float = 0.01, width: int | None = None, loss: Loss = ABSOLUTE, precision: Literal["float32", "float64"] = "float32") -> Experiment:
        early, late = np.linspace(0, self.steps / 5, 51), np.linspace(self.steps / 5, self.steps, 21)
        probes = [MatrixRecovery(), TeacherLoss(), *([SignalResidual()] if precision == "float64" else [])]
        times = At(tuple(sorted({*early.astype(int).tolist(), *late.astype(int).tolist()})))
        return Experiment(task, self._model(scale, width), self._rule(loss), probes, times, precision)

    def _mapped(self) -> Experiment:
        probes = [MatrixRecovery(), SignRIP(rank=2 * self._rank)]
        return Experiment(self._task(self.few), self._model(min(self.scales)), self._rule(ABSOLUTE), probes, At((0, self.steps)))

    def claims(self, measured, theory):
        few, exact, many = (self._error(measured[name]) for name in ("few", "exact", "many"))
        smallest, largest = min(self.scales), max(self.scales)
        full = few.isel(time=-1)
        yield Claim("C1", f"{self.few} measurements, {self.outliers:.0%} of them outliers, search rank {self._most}: recovered (error at α = {smallest:g})",
                    measured=full.sel(scale=smallest), at_most=1e-3)
        yield Claim("C1b", f"whatever the outliers' size, {min(self.sizes):g} to {max(self.sizes):g} ({self.many} measurements; the worst error)",
                    measured=self._error(measured["sizes"]).isel(time=-1).max(), at_most=1e-3)
        late = exact.sel(scale=smallest, time=slice(self.steps * 2 / 3, None))
        rates = [np.polyfit(late.time.values, np.log(one), 1)[0] for one in late.transpose("seed", "time").values]
        yield Claim("C1c", "convergence is geometric: without surplus the error falls as the steps do (rate over log ρ)",
                    measured=np.array(rates) / np.log(self.ratio), expected=1.0, tolerance=0.05, reason="the entry gives no number")
        seen, said = (self._learning_times(error) for error in (many, self._error(theory["many"])))
        yield Claim("C1d", f"the sum of steps until the error has halved is affine in log(1/α) (slope over the expected flow's, {self.many} measurements)",
                    measured=self._slopes(seen) / self._slopes(said), expected=1.0, tolerance=0.15,
                    reason="the entry gives no number; the expected flow is that of infinitely many measurements")

        tested = sorted((s for s in self.scales if s <= 0.1), reverse=True)
        typical = self._typical(full).sel(scale=tested)
        yield Claim("C2", f"a smaller start leaves a smaller error (smallest ratio of errors at neighbouring α ≤ {tested[0]:g}, geometric means over seeds)",
                    measured=np.min(typical.values[:-1] / typical.values[1:]), at_least=2.0)
        yield Claim("C2b", f"as a power of α (exponent at {self.few} measurements)", measured=[power_law(tested, one).exponent for one in full.sel(scale=tested).transpose("seed", "scale").values],
                    expected=1 / 3, tolerance=0.1, reason="what the entry measured in one draw; draws and numbers of measurements differ")
        grown = [self._growth(measured["many"].sel(scale=scale)) for scale in self.scales if scale <= 0.01]
        yield Claim("C2d", f"because surplus columns hardly grow while the signal does (log growth of the residual over the signal's, {self.many} measurements, the largest mean over seeds)",
                    measured=max(grown), at_most=0.5, reason="the entry gives no number; where it is 1 a small start gains nothing. At so few measurements the sub-gradient strays by as much as its size")
        yield Claim("C2c", f"without surplus columns it does not matter (largest error over α ≤ {tested[0]:g})",
                    measured=exact.isel(time=-1).sel(scale=tested).max(), at_most=1e-4, reason="the entry gives no number")

        success = self._success(measured["phase"])
        needed = [self._threshold(success.sel(width=width)) for width in self.widths]
        yield Claim("C3", f"the measurements that suffice do not depend on the search rank, {self.widths[0]} to {self.widths[-1]} (most over fewest, for success in half of the draws)",
                    measured=max(needed) / min(needed), at_most=1.25,
                    reason="the entry gives no number; without any surplus there is no residual to hold down, and fewer measurements do")
        yield Claim("C3a", f"among searches with surplus columns, {self.widths[1]} to {self.widths[-1]} (most over fewest)",
                    measured=max(needed[1:]) / min(needed[1:]), at_most=1.25)
        enough = [m for m in self.phase if m < self.dimension * (self.dimension + 1) / 2]
        yield Claim("C3b", f"and are fewer than the {self.dimension * (self.dimension + 1) // 2} free numbers of the search (successes with {max(enough)}, search rank {self._most})",
                    measured=success.sel(measurements=max(enough), width=self._most), at_least=0.75, reason="the entry gives no number")
        sampled = measured["phase"].sign_rip.isel(time=0, width=0)
        falls = [power_law(self.phase, one).exponent for one in sampled.transpose("seed", "measurements").values]
        yield Claim("C3c", "because the sub-gradient's direction settles with the measurements (exponent of the sampled Sign-RIP constant)",
                    measured=falls, expected=-0.5, tolerance=0.1, reason="the rate of a mean; the entry gives no number")

        excess = measured["few"].excess_train_loss.isel(time=-1)
        yield Claim("C4", f"the truth is no global minimum: from α = {largest:g} the loss ends below the truth's (difference of the losses)",
                    measured=excess.sel(scale=largest), at_most=0.0)
        yield Claim("C4a", "in every draw (the largest difference)", measured=excess.sel(scale=largest).max(), at_most=0.0,
                    reason="from some draws the method comes near the truth even from there")
        yield Claim("C4b", f"at a wrong matrix (error from α = {largest:g}, over the norm)",
                    measured=full.sel(scale=largest) / self._norm, at_least=0.5, reason="the entry gives no number")
        yield Claim("C4c", f"and a small start avoids it (loss at α = {smallest:g} from the truth's, over that from α = {largest:g}, means of the sizes)",
                    measured=np.abs(excess.sel(scale=smallest)).mean() / np.abs(excess.sel(scale=largest)).mean(), at_most=0.1, reason="the entry gives no number")

        yield Claim("C5", "the squared error fails on the same data (smallest final error over the matrix's norm)",
                    measured=self._error(measured["squared"]).isel(time=-1).min() / self._norm, at_least=1.0)
        dense = self._error(measured["dense"]).isel(time=-1)
        small, large = min(self.noisy_scales), max(self.noisy_scales)
        rate = float(statistical_error(self.noise, self.dimension, self._rank, self.noisy))
        exact, full = dense.sel(width=self._rank, scale=small), dense.sel(width=self._most, scale=small)
        yield Claim("C5b", "dense Gaussian noise: surplus columns cost little from a small start (error over that without)",
                    measured=full / exact, at_most=1.5)
        yield Claim("C5c", "the error is the statistical one, ν √((π/2) (d r - r (r - 1)/2)/m) (root mean square over it)",
                    measured=np.sqrt((exact**2).mean()) / rate, expected=1.0, tolerance=0.2, reason="asymptotic: a tenth of the measurements are fitted")
        yield Claim("C5d", f"but not from a large one (error from α = {large:g} over that from {small:g}, search rank {self._most})",
                    measured=dense.sel(width=self._most, scale=large) / full, at_least=1.5)

    def _error(self, seen) -> xr.DataArray:
        return np.sqrt(seen.squared_error)

    def _typical(self, error) -> xr.DataArray:
        """The geometric mean over seeds: errors differ by factors."""
        return np.exp(np.log(error).mean("seed"))

    def _learning_times(self, error) -> xr.DataArray:
        """Sum of the steps until the error is half the matrix's norm."""
        step = crossing_time(np.log(error), np.log(self._norm / 2), falling=True)
        return self.learning_rate * (1 - self.ratio**step) / (1 - self.ratio)

    def _slopes(self, times):
        """Growth of these times with log(1/α), over the starts that are small."""
        small = [s for s in self.scales if s <= 0.01]
        values = times.sel(scale=small).transpose("scale", ...).values
        return np.polyfit(np.log(1 / np.array(small)), values, 1)[0]

    def _growth(self, seen) -> float:
        """Log growth of the residual over the signal's until the signal is within a tenth of its end."""
        learned = (seen.signal > 0.9 * np.sqrt(min(self.eigenvalues))).argmax("time")
        grown = [np.log(seen[name].isel(time=learned) / seen[name].isel(time=0)) for name in ("residual", "signal")]
        return float((grown[0] / grown[1]).mean("seed"))

    def _success(self, seen) -> xr.DataArray:
        """Whether each draw was recovered."""
        return (self._error(seen).isel(time=-1) < SUCCESS).astype(float)

    def _threshold(self, success) -> float:
        """Measurements at which half of the draws are recovered, linear between the numbers tried."""
        share = np.maximum.accumulate(success.mean("seed").values)
        return float(np.interp(0.5, share, success.measurements.values)) if share[-1] >= 0.5 else np.inf

    def figures(self, measured, theory):
        yield Figure("error", f"Error from several initial scales α, search rank {self._most} for rank {self._rank}, {self.outliers:.0%} outliers. Dots: geometric means "
                     "over seeds. Lines: the expected sub-gradient method, that of infinitely many measurements.",
                     lambda axes: self._draw_error(axes[0], measured, theory), grid=(1, 2))
        yield Figure("scale", f"Left: final error against the initial scale. Right: final training loss above that of the truth ({self.few} measurements, search rank "
                     f"{self._most}); below 0 the truth is beaten.", lambda axes: self._draw_scale(axes[0], measured), grid=(1, 2))
        yield Figure("success", f"Left: share of draws recovered to {SUCCESS:g} from α = {min(self.scales):g}. Right: sampled Sign-RIP constant (errors of rank {2 * self._rank}) against the "
                     "number of measurements, and the power -1/2.", lambda axes: self._draw_success(axes[0], measured), grid=(1, 2))
        yield Figure("noise", "Left: smallest singular value of the signal, largest of the residual on columns without signal and on those with (one seed); expected ones as lines. Right: dense Gaussian noise; the "
                     "dotted line is the statistical error.", lambda axes: self._draw_noise(axes[0], measured, theory), grid=(1, 2))

    def _draw_error(self, axes, measured, theory):
        for axis, name, count in ((axes[0], "many", self.many), (axes[1], "few", self.few)):
            for color, scale in zip(shades(len(self.scales)), self.scales, strict=True):
                dots(axis, self._typical(self._error(measured[name]).sel(scale=scale)), color=color, label=f"α = {scale:g}", markersize=2.5)
                if name in theory:  # until steps overshoot the error and it jumps from step to step
                    said = self._error(theory[name]).sel(scale=scale)
                    lines(axis, said.where((said > 0.1).cumprod("time") == 1), color=color)
            label(axis, "step", "error", f"{count} measurements", ylog=True)
        axes[0].set(xlim=(-5, self.steps / 5), ylim=(3e-3, 4))
        key_of_overlay(axes[0], loc="lower left", fontsize=7, ncols=2)
        axes[1].set_ylim(1e-5, 4)

    def _draw_scale(self, axes, measured):
        few, many, exact = (self._error(measured[name]).isel(time=-1) for name in ("few", "many", "exact"))
        cases = ((few, f"m = {self.few}, search rank {self._most}"), (many, f"m = {self.many}, search rank {self._most}"),
                 (exact, f"m = {self.few}, search rank {self._rank}"))
        for color, (error, words) in zip(COLORS, cases, strict=False):
            for seed in range(error.sizes["seed"]):
                axes[0].plot(error.scale, error.isel(seed=seed), ".", color=color, alpha=0.35, markersize=3)
            axes[0].plot(error.scale, self._typical(error), "o-", color=color, label=words, linewidth=1)
        label(axes[0], "initial scale α", "final error", xlog=True, ylog=True)
        axes[0].set_ylim(1e-6, 2e2)
        axes[0].legend(loc="upper left", fontsize=7)
        excess = measured["few"].excess_train_loss.isel(time=-1)
        axes[1].axhline(0, color="0.3", linewidth=1)
        dots(axes[1], excess, "scale", color=COLORS[0])
        label(axes[1], "initial scale α", "final loss - loss of the truth", xlog=True)

    def _draw_success(self, axes, measured):
        share = self._success(measured["phase"]).mean("seed").transpose("width", "measurements")
        image = axes[0].imshow(share.values, origin="lower", aspect="auto", cmap="viridis", vmin=0, vmax=1)
        axes[0].set_xticks(range(len(self.phase)), [str(m) for m in self.phase])
        axes[0].set_yticks(range(len(self.widths)), [str(w) for w in self.widths])
        axes[0].grid(visible=False)
        axes[0].figure.colorbar(image, ax=axes[0], label="share recovered")
        label(axes[0], "measurements", "search rank", "success")
        constant = measured["phase"].sign_rip.isel(time=0, width=0)
        dots(axes[1], constant, "measurements", color=COLORS[0])
        m = np.array(self.phase, float)
        axes[1].plot(m, float(constant.mean("seed")[0]) * (m / m[0]) ** -0.5, ":", color="0.3", label="m to the power -1/2")
        label(axes[1], "measurements m", "Sign-RIP constant, sampled", xlog=True, ylog=True)
        axes[1].set_xticks(m, [str(k) for k in self.phase])
        ticks = np.arange(0.2, 4, 0.2)
        ticks = ticks[(ticks > 0.9 * float(constant.min())) & (ticks < 1.1 * float(constant.max()))]
        axes[1].set_yticks(ticks, [f"{t:.1f}" for t in ticks])
        axes[1].minorticks_off()
        axes[1].legend()

    def _draw_noise(self, axes, measured, theory):
        scale = sorted(self.scales)[1]
        for color, name, words in ((COLORS[0], "signal", "signal"), (COLORS[1], "residual", "residual"), (COLORS[2], "leak", "beside the signal")):
            dots(axes[0], measured["many"][name].sel(scale=scale).isel(seed=0), color=color, label=words, markersize=2.5)
            if "many" in theory and name in theory["many"]:
                lines(axes[0], theory["many"][name].sel(scale=scale), color=color)
        label(axes[0], "step", "singular value of the factor", f"{self.many} measurements, α = {scale:g}", ylog=True)
        key_of_overlay(axes[0], loc="lower right", fontsize=7, ncols=2)
        axes[0].set(xlim=(-5, self.steps / 5), ylim=(scale**1.5, 5))
        dense = self._error(measured["dense"])
        for color, (width, start) in zip(COLORS, [(w, s) for s in self.noisy_scales for w in (self._rank, self._most)], strict=False):
            dots(axes[1], self._typical(dense.sel(width=width, scale=start)), every=3, color=color, label=f"search rank {width}, α = {start:g}", markersize=2.5)
        axes[1].axhline(float(statistical_error(self.noise, self.dimension, self._rank, self.noisy)), linestyle=":", color="0.3")
        label(axes[1], "step", "error", f"{self.noisy} measurements, noise {self.noise:g}", ylog=True)
        axes[1].set_yticks([0.03, 0.1, 0.3, 1.0], ["0.03", "0.1", "0.3", "1"])
        axes[1].minorticks_off()
        axes[1].set_xlim(-5, self.steps / 5)
        axes[1].legend(fontsize=7)
