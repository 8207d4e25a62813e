"""In matrix sensing, surplus columns slow gradient descent to a power law, unless two unequal factors share the matrix."""

from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import numpy as np
import xarray as xr

from armillary.clock import At, Clock, Evenly
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least
from armillary.measures import power_law
from armillary.models.factorised import AsymmetricFactors, SymmetricFactors, rebalanced
from armillary.probes.matrix_recovery import FactorBalance, MatrixRecovery, Surplus
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, lines, shades
from armillary.rules import SGD, Descent
from armillary.stages import Stage, Stages
from armillary.study import Claim, Paper, Study
from armillary.tasks.sensing import MatrixSensing
from armillary.theory.matrix_sensing import asymmetric_decay, direction, rebalanced_decay, signal_decay, surplus_error

FLOOR = 1e-24
"""Squared errors below which rounding is near; rates are read off above it."""

CLOSE = 0.3
"""Norm of the error from which the modified step may be taken."""


@dataclass(frozen=True)
class Rebalance:
    """Enters the next stage by the modified step: the left factor's columns become orthonormal times `size`."""

    size: float
    width: int

    def __call__(self, old, state, new, key):
        network = rebalanced(state.network, self.size, self.width)
        # The same matrix goes on being sensed: a stage draws its own data otherwise.
        process = eqx.tree_at(lambda p: (p.initial, p.data), new, (network, old.data))
        return process, process.init(key)


@dataclass(frozen=True, kw_only=True)
class MatrixSensingStudy(Study):
    """A low-rank matrix is recovered from linear measurements by gradient descent on factors. With the symmetric
    factorisation X Xᵀ and more columns than the rank, the squared error falls only as 1/T²; with exactly the rank,
    exponentially.

    Two factors F Gᵀ of unequal scale are exponentially fast whatever the number of columns, at a rate proportional to the
    squared initial scale: their imbalance is conserved and drives the surplus out. One step that rebalances them makes the
    rate independent of the scale.
    """

    paper: ClassVar = Paper(
        "How Over-Parameterization Slows Down Gradient Descent in Matrix Sensing: The Curses of Symmetry and Initialization",
        authors="Nuoya Xiong, Lijun Ding, Simon S. Du", year=2023, arxiv="2310.01769",
    )  # fmt: skip
    seeds: ClassVar = {"smoke": 2, "desk": 4, "paper": 8}

    dimension: int = at_least(4, default=20, smoke=12, paper=50)
    """Rows and columns of the matrix."""
    singular_values: tuple[float, ...] = above(0.0, default=(1.0, 0.7), paper=(1.0, 0.85, 0.7))
    """Its singular values, the largest first; their number is the rank."""
    surplus: tuple[int, ...] = at_least(0, default=(0, 1, 2))
    """Columns beyond the rank."""
    scale: float = above(0.0, default=0.1)
    """Initial scale of the symmetric factor, and of the asymmetric ones where both are compared."""
    starts: tuple[float, ...] = above(0.0, default=(0.01, 0.03, 0.1, 0.3))
    """Initial scales of the symmetric factor over which the power law is checked."""
    scales: tuple[float, ...] = above(0.0, default=(0.05, 0.1, 0.3, 0.5))
    """Initial scales of the asymmetric factors; rates are compared between the last two."""
    learning_rate: float = above(0.0, default=0.1)
    """Step size."""
    steps: int = at_least(4000, default=20_000, smoke=6000)
    """Steps on all measurements."""
    measurements: int = at_least(10, default=1000, smoke=500, paper=5000)
    """Gaussian measurement matrices."""
    measured_steps: int = at_least(1000, default=4000, smoke=2000)
    """Steps on those."""
    large: int = at_least(4, default=500, smoke=24)
    """Rows and columns of a large matrix, sensed by rank-one measurements."""
    large_rank: int = at_least(1, default=10, smoke=2)
    """Its rank; singular values fall in equal steps from 1 to above a half."""
    large_measurements: int = at_least(10, default=20_000, smoke=600, paper=40_000)
    """Those measurements."""
    rebalanced_size: float = above(0.0, default=1.0)
    """Size β of the left factor after the modified step."""
    rebalanced_at: int = at_least(10, default=100)
    """Step at which it is taken."""

    def experiments(self):
        columns = {"model.width": [self._rank + extra for extra in self.surplus]}
        many = {"model.width": [self._rank, self._most], "scale": self.scales}
        return {
            "symmetric measured": Sweep(self._experiment(self._symmetric(), self.measured_steps, self.measurements), columns),
            "large": self._large_experiment(),
            "asymmetric measured": Sweep(self._experiment(self._asymmetric(), self.measured_steps, self.measurements), {"scale": self.scales[-2:]}),
            "symmetric": Sweep(self._experiment(self._symmetric(), self.steps), columns),
            "starts": Sweep(self._experiment(self._symmetric(), self.steps), {"scale": self.starts}),
            "asymmetric": Sweep(self._experiment(self._asymmetric(), self.steps), many),
            **{f"modified {scale:g}": self._modified(scale) for scale in self._compared},
        }

    @property
    def _rank(self) -> int:
        return len(self.singular_values)

    @property
    def _most(self) -> int:
        """Columns of the most over-parametrised factors."""
        return self._rank + max(self.surplus)

    @property
    def _compared(self) -> tuple[float, float]:
        """The scales between which the modified step should make no difference."""
        return min(self.scales), max(self.scales)

    def _symmetric(self) -> SymmetricFactors:
        return SymmetricFactors(self._most, scale=self.scale, capacity=self._most)

    def _asymmetric(self) -> AsymmetricFactors:
        return AsymmetricFactors(self._most, scale=self.scale, capacity=self._most)

    def _experiment(self, model, steps: int, measurements: int | None = None, observe: Clock | None = None) -> Experiment:
        task = MatrixSensing(self.dimension, self.singular_values, measurements)
        often = {0, *range(10, 200, 10), 1000, *np.geomspace(200, steps, 40).astype(int).tolist(), *range(0, steps + 1, steps // 50)}
        probes = [MatrixRecovery(), Surplus() if isinstance(model, SymmetricFactors) else FactorBalance()]
        rule = Descent(SGD(self.learning_rate), steps=steps)
        return Experiment(task, model, rule, probes, observe or At(tuple(sorted(often))), precision="float64")

    def _large_experiment(self) -> Experiment:
        values = tuple(np.linspace(1.0, 0.5, self.large_rank, endpoint=False).tolist())
        task = MatrixSensing(self.large, values, self.large_measurements, rank_one=True)
        model = SymmetricFactors(self.large_rank, scale=self.scale)
        return Experiment(task, model, Descent(SGD(self.learning_rate), steps=400), [MatrixRecovery()], Evenly(21))

    def measure(self, name, what, seeds, key, progress):
        return super().measure(name, what, 1 if name == "large" else seeds, key, progress)

    def _modified(self, scale: float) -> Stages:
        model = AsymmetricFactors(self._most, scale=scale)
        before = self._experiment(model, self.rebalanced_at, observe=Evenly(11))
        after = self._experiment(model, 1000 - self.rebalanced_at, observe=At((0, *range(20, 1000 - self.rebalanced_at, 20), 1000 - self.rebalanced_at)))
        return Stages([Stage(before), Stage(after, enter=Rebalance(self.rebalanced_size, self._most))])

    def claims(self, measured, theory):
        symmetric, asymmetric = measured["symmetric"].squared_error, measured["asymmetric"].squared_error
        exact = symmetric.sel(width=self._rank)
        yield Claim("C1", "X Xᵀ with as many columns as the rank: the error falls exponentially (squared error at step 1000)",
                    measured=exact.sel(time=1000).max(), at_most=1e-20)
        yield Claim("C1b", "at the rate -2 log(1 - η σ) of the smallest singular value (per step)",
                    measured=self._rates(exact), expected=float(signal_decay(self.learning_rate, min(self.singular_values))), tolerance=0.05, relative=True,
                    reason="the entry's (1 - 2 η σ) holds along the matrix's own directions; what couples them to the rest is slower")
        yield Claim("C1c", "and so from Gaussian measurements (squared error at step 1000)",
                    measured=measured["symmetric measured"].squared_error.sel(width=self._rank, time=1000).max(), at_most=1e-20)
        error = measured["large"].squared_error.isel(seed=0)
        yield Claim("C1d", f"and at n = {self.large}, rank {self.large_rank}, from {self.large_measurements} rank-one measurements (squared error at step 400 over the start's)",
                    measured=error[-1] / error[0], at_most=1e-5, reason="an addition; set after one draw in plain JAX had ended at 1e-7")
        late = error.sel(time=slice(200, None))
        yield Claim("C1e", "exponentially there too (R² of the logarithm's line over the second half)",
                    measured=np.corrcoef(late.time, np.log(late))[0, 1] ** 2, at_least=0.98)

        for name, which in (("C2", "symmetric"), ("C2.measured", "symmetric measured")):
            seen = measured[which].squared_error
            seen = seen.sel(width=[w for w in seen.width.values.tolist() if w > self._rank])
            law = surplus_error(seen.time.values[-1], self.learning_rate, 1.0) * (seen.width - self._rank)
            ratio = seen.isel(time=-1) / law
            farthest = ratio.values.ravel()[int(np.argmax(np.abs(np.log(ratio.values))))]
            where = "all measurements" if which == "symmetric" else f"{self.measurements} Gaussian measurements"
            yield Claim(f"{name}", f"X Xᵀ with surplus columns, {where}: the error ends near (k - r)/(2 η T)² (ratio farthest from 1)",
                        measured=farthest, between=(0.5, 2.0))
        late = symmetric.sel(time=slice(self.steps // 2, None), width=[w for w in symmetric.width.values.tolist() if w > self._rank])
        slopes = [power_law(late.time.values, one).exponent for one in late.stack(run=("width", "seed")).transpose("run", "time").values]
        yield Claim("C2b", "so that it falls as the power -2 of the number of steps (exponent, second half)", measured=slopes,
                    expected=-2.0, tolerance=0.15, reason="the surplus's start still counts: 1/z₀ beside 2 η T")
        starts = measured["starts"].squared_error.sel(time=slice(self.steps // 2, None))
        slopes = [power_law(starts.time.values, one).exponent for one in starts.stack(run=("scale", "seed")).transpose("run", "time").values]
        yield Claim("C2c", f"and no faster from any small start, α = {min(self.starts):g} to {max(self.starts):g} (steepest exponent)",
                    measured=min(slopes), at_least=-2.05, reason="a lower bound: smaller starts are still on their plateau; 0.05 is for the fit")
        yield Claim("C2d", "surplus eigenvalues follow z ← z (1 - η z)² (largest relative error at the end, from step 1000)",
                    measured=self._recursion(measured["symmetric"]), at_most=0.01)

        yield Claim("C3", "F Gᵀ with as many columns as the rank: exponential (largest squared error at step 1000, any scale)",
                    measured=asymmetric.sel(width=self._rank, time=1000).max(), at_most=1e-20)
        most = asymmetric.sel(width=self._most)
        rates = self._rates(most)
        small, large = self.scales[-2:]
        yield Claim("C4", f"F Gᵀ with surplus columns: the rate grows as the squared scale (rate at {small:g} over that at {large:g})",
                    measured=rates.sel(scale=small).mean() / rates.sel(scale=large).mean(), expected=(small / large) ** 2, tolerance=0.15, relative=True)
        yield Claim("C4b", "over all scales (exponent of the rate in the scale)",
                    measured=power_law(self.scales, rates.mean("seed").values).exponent, expected=2.0, tolerance=0.15)
        smallest = measured["asymmetric"].smallest_left.sel(width=self._most).isel(time=-1)
        yield Claim("C4c", "it is the one that the smallest eigenvalue of FᵀF gives, -2 log(1 - η λ) (rate over it)",
                    measured=(rates / self._decay(smallest)).mean("scale"), expected=1.0, tolerance=0.05)
        balance = measured["asymmetric"].imbalance.sel(width=self._most)
        yield Claim("C4d", "because the imbalance FᵀF - GᵀG is nearly conserved (largest relative change)",
                    measured=np.abs(balance / balance.isel(time=0) - 1).max(), at_most=0.1,
                    reason="conserved by gradient flow; steps of 0.1 change it in second order")
        rates = self._rates(measured["asymmetric measured"].squared_error)
        yield Claim("C4e", f"and so from Gaussian measurements (rate at {small:g} over that at {large:g})",
                    measured=rates.sel(scale=small).mean() / rates.sel(scale=large).mean(), expected=(small / large) ** 2, tolerance=0.15, relative=True)

        both = [e.sel(width=self._most).isel(time=-1) for e in (asymmetric.sel(scale=self.scale, method="nearest"), symmetric)]
        yield Claim("C5", "on the same symmetric problem F Gᵀ is exponentially faster than X Xᵀ (squared error at the end over X Xᵀ's)",
                    measured=both[0].mean("seed") / both[1].mean("seed"), at_most=1e-3,
                    reason="the entry gives no number; a power law's error changes by a factor 4 when the steps double")

        modified = {scale: measured[f"modified {scale:g}"].squared_error for scale in self._compared}
        before = [seen.sel(time=self.rebalanced_at).max() for seen in modified.values()]
        yield Claim("C6", f"the modified step: error at step 1000 from the scales {self._compared[0]:g} and {self._compared[1]:g} (the larger)",
                    measured=max(float(seen.sel(time=1000).max()) for seen in modified.values()), at_most=1e-12)
        rates = [self._rates(seen.sel(time=slice(self.rebalanced_at, None))) for seen in modified.values()]
        yield Claim("C6b", "its rate does not depend on the scale (rate from the smaller scale over that from the larger)",
                    measured=rates[0] / rates[1], expected=1.0, tolerance=0.15, reason="the entry's tolerance for ratios of rates")
        rates = np.concatenate([r.values for r in rates])
        yield Claim("C6c", "but is -2 log(1 - η β²)", measured=rates,
                    expected=float(asymmetric_decay(self.learning_rate, self.rebalanced_size**2)), tolerance=0.05, relative=True,
                    reason="the surplus shrinks at that rate, but what the left factor holds beside the signal sees the right one only")
        yield Claim("C6d", "the slower of that and -2 log(1 - η σ²/β²) of the smallest singular value", measured=rates,
                    expected=float(rebalanced_decay(self.learning_rate, self.rebalanced_size, min(self.singular_values))), tolerance=0.05, relative=True)
        yield Claim("C6e", "the modified step was taken close to the matrix (largest error norm just before)",
                    measured=np.sqrt(np.max(before)), at_most=CLOSE)

    def _decay(self, smallest) -> xr.DataArray:
        return xr.apply_ufunc(lambda z: asymmetric_decay(self.learning_rate, z), smallest)

    def _rates(self, error) -> xr.DataArray:
        """Exponential rates per step of squared errors: slopes of their logarithms over the later half of the steps before
        rounding is reached."""
        def rate(values):
            until = len(values) if (values > FLOOR).all() else int(np.argmax(values <= FLOOR))
            later = slice(int(np.searchsorted(error.time.values, (error.time.values[0] + error.time.values[until - 1]) / 2)), until)
            return -np.polyfit(error.time.values[later], np.log(values[later]), 1)[0] if until - later.start > 1 else np.nan

        return xr.apply_ufunc(rate, error, input_core_dims=[["time"]], vectorize=True)

    def _typical(self, error) -> xr.DataArray:
        """The geometric mean over seeds: starts differ by factors."""
        return np.exp(np.log(error.where(error > FLOOR)).mean("seed"))

    def _recursion(self, seen) -> float:
        """Largest relative error of the surplus at the end, from what it was at step 1000."""
        errors = []
        for width in seen.width.values.tolist():
            for seed in range(seen.sizes["seed"] if width > self._rank else 0):
                run = seen.sel(width=width).isel(seed=seed)
                begin = run.surplus_values.sel(time=1000).values[: width - self._rank]
                end = direction(int(run.time[-1]) - 1000, self.learning_rate, 0.0, begin)[-1]
                errors.append(abs(float((end**2).sum() / run.surplus_error.isel(time=-1)) - 1))
        return max(errors)

    def figures(self, measured, theory):
        yield Figure("symmetric", "Squared error of X Xᵀ with k columns for a matrix of rank r, on all measurements (left) and on "
                     "Gaussian ones (right). Lines follow each direction of a typical start by its recursion; dotted: (k - r)/(2 η t)². "
                     "Dots are geometric means over seeds.", lambda axes: self._draw_symmetric(axes[0], measured, theory), grid=(1, 2))
        yield Figure("asymmetric", f"Squared error of F Gᵀ with k = {self._most} columns from several initial scales α. Left: on all "
                     "measurements, one start; dashed lines have the slope that the smallest eigenvalue of FᵀF gives. Right: the first "
                     f"steps, without and with (thick) the modified step at step {self.rebalanced_at}; dashed: the rate that β and the smallest singular value give.",
                     lambda axes: self._draw_asymmetric(axes[0], measured), grid=(1, 2))
        yield Figure("rate", "Left: rate of F Gᵀ against its initial scale, and the power 2. Right: X Xᵀ and F Gᵀ on the same problem "
                     "from the same scale (geometric means over seeds).", lambda axes: self._draw_rates(axes[0], measured), grid=(1, 2))

    def _draw_symmetric(self, axes, measured, theory):
        said = theory["symmetric"].squared_error
        for axis, name, title in ((axes[0], "symmetric", "all measurements"), (axes[1], "symmetric measured", f"{self.measurements} measurements")):
            seen = measured[name].squared_error.isel(time=slice(1, None))
            for color, width in zip(COLORS, seen.width.values.tolist(), strict=False):
                lines(axis, said.sel(width=width, time=slice(1, seen.time[-1])), color=color, label=f"k = {width}")
                dots(axis, self._typical(seen.sel(width=width)), every=3, color=color)
                late = np.array([300.0, float(seen.time[-1])])
                if width > self._rank:
                    axis.plot(late, surplus_error(late, self.learning_rate, width - self._rank), ":", color=color, linewidth=1)
            label(axis, "step", "squared error", f"{title}, r = {self._rank}, α = {self.scale:g}", xlog=True, ylog=True)
            axis.set_ylim(1e-12, 10)
        key_of_overlay(axes[0], loc="lower left")

    def _draw_asymmetric(self, axes, measured):
        most = measured["asymmetric"].sel(width=self._most).isel(seed=0)
        for color, scale in zip(shades(len(self.scales)), self.scales, strict=True):
            error = most.squared_error.sel(scale=scale)
            error = error.where(error > FLOOR)
            for axis in axes:
                axis.plot(error.time, error, color=color, label=f"α = {scale:g}")
            last = int(np.nonzero(np.isfinite(error.values))[0][-1])
            end, slope = error.isel(time=last), float(asymmetric_decay(self.learning_rate, most.smallest_left.sel(scale=scale).isel(time=-1)))
            back = np.linspace(0.4, 1, 2) * float(end.time)
            axes[0].plot(back, 0.2 * float(end) * np.exp(-slope * (back - float(end.time))), "--", color=color, linewidth=1)
        for scale in self._compared:
            error = measured[f"modified {scale:g}"].squared_error.isel(seed=0)
            color = shades(len(self.scales))[self.scales.index(scale)]
            axes[1].plot(error.time, error.where(error > FLOOR), color=color, linewidth=3)
        time = np.array([0.0, 400.0])
        decay = float(rebalanced_decay(self.learning_rate, self.rebalanced_size, min(self.singular_values)))
        axes[1].plot(self.rebalanced_at + time, 1e-5 * np.exp(-decay * time), "--", color="0.3", linewidth=1)
        label(axes[0], "step", "squared error", "F Gᵀ", ylog=True)
        label(axes[1], "step", "squared error", f"modified step, β = {self.rebalanced_size:g}", ylog=True)
        axes[1].set_xlim(0, 1000)
        for axis in axes:
            axis.set_ylim(FLOOR, 10)
        axes[0].legend(loc="upper right")

    def _draw_rates(self, axes, measured):
        seen = measured["asymmetric"].sel(width=self._most)
        scales = np.array(self.scales)
        rates = self._rates(seen.squared_error)
        said = self._decay(seen.smallest_left.isel(time=-1)).mean("seed")
        lines(axes[0], said, "scale", color=COLORS[0], label="-2 log(1 - η λ)")
        dots(axes[0], rates, "scale", color=COLORS[0])
        axes[0].plot(scales, float(rates.mean("seed")[-1]) / 3 * (scales / scales[-1]) ** 2, ":", color="0.3", label="α²")
        label(axes[0], "initial scale α", "rate per step", f"k = {self._most}", xlog=True, ylog=True)
        axes[0].set_xticks(scales, [f"{s:g}" for s in scales])
        axes[0].xaxis.minorticks_off()
        key_of_overlay(axes[0], loc="upper left")
        both = ((seen.squared_error.sel(scale=self.scale, method="nearest"), "F Gᵀ"), (measured["symmetric"].squared_error.sel(width=self._most), "X Xᵀ"))
        for color, (error, words) in zip(COLORS[1:], both, strict=False):
            dots(axes[1], self._typical(error), every=4, color=color, label=words, linestyle="-", linewidth=1)
        label(axes[1], "step", "squared error", f"α = {self.scale:g}, k = {self._most}", ylog=True)
        axes[1].legend()
