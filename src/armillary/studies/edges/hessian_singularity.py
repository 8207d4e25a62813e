"""The Hessian of a small network is singular: a bulk at zero says how many weights are too many, its edges come from the data."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from armillary.clock import At
from armillary.curvature.spectrum import gap_after, zero_fraction
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least
from armillary.models import MLP
from armillary.once import once
from armillary.probes import Losses
from armillary.probes.curvature import DenseSpectrum
from armillary.probes.eigenvectors import EigenvectorLoss
from armillary.probes.symmetry import RescalingSymmetry
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, shades
from armillary.rules import SGD, Descent, Loss
from armillary.settings import floats
from armillary.study import Claim, Paper, Study
from armillary.tasks import Digits
from armillary.tasks.clusters import GaussianClusters
from armillary.tasks.shuffled import ShuffledLabels, ShuffledPixels
from armillary.theory.hessian_rank import cluster_outliers, parameter_count, rank_bound

STATIONARY = 1e-6
"""Norm of the gradient below which a point counts as critical."""

PLAIN = DenseSpectrum()


@dataclass(frozen=True, kw_only=True)
class HessianSingularity(Study):
    """Before and after training the spectrum of the Hessian piles up at 0 and has edges away from it. Training sharpens the
    pile, more weights at the same data raise it, and its floor is the number of weights beyond samples times outputs.

    The edges follow the data: they are clusters times outputs, whatever the width. Each ReLU unit's rescaling is one exact
    null direction at critical points.
    """

    paper: ClassVar = Paper("Eigenvalues of the Hessian in Deep Learning: Singularity and Beyond",
                            authors="Levent Sagun, Leon Bottou, Yann LeCun", year=2016, arxiv="1611.07476")  # fmt: skip
    seeds: ClassVar = {"smoke": 1, "desk": 3, "paper": 8}

    dimension: int = at_least(6, default=12, paper=30)
    """Inputs of the cluster task."""
    clusters: tuple[int, ...] = at_least(2, default=(2, 3, 5), smoke=(3,))
    """Clusters, each with an output of its own."""
    widths: tuple[int, ...] = at_least(2, default=(8, 16, 32), smoke=(8,), paper=(8, 16, 32, 64))
    """Hidden units."""
    samples: int = at_least(50, default=300, smoke=100, paper=1000)
    """Training samples of the cluster task."""
    noise: float = above(0.0, default=0.5)
    """Standard deviation of each input within a cluster."""
    radius: float = above(0.0, default=3.0)
    """Distance of the centres from the origin."""
    narrow: float = above(0.0, default=1.5)
    """The same for data that are less well separated."""
    repeats: int = at_least(1, default=3, smoke=1)
    """How many times as many seeds the cheaper experiments have whose claims scatter."""
    learning_rate: float = above(0.0, default=0.1)
    """Step size of full-batch gradient descent on the clusters."""
    steps: int = at_least(1000, default=1500, smoke=1000)
    """Its steps."""
    few: int = at_least(10, default=30)
    """Samples of two clusters where the weights are to be many times the samples times outputs."""
    few_widths: tuple[int, ...] = at_least(1, default=(1, 4, 16, 40), smoke=(8,))
    """Hidden units there."""
    digits: int = at_least(200, default=1000, smoke=200)
    """Digit images, pooled to 4 x 4."""
    digits_loss: float = above(0.0, default=0.35)
    """Cross-entropy on them at which the spectrum is read."""
    digits_steps: int = at_least(200, default=1000, smoke=400)
    """Steps there, of size 0.5."""
    digits_looks: int = at_least(2, default=11, smoke=2)
    """How often the spectrum is looked at on the way there."""
    critical_samples: int = at_least(20, default=60)
    """Samples of three clusters on which a ReLU network of 4 units is brought to a critical point."""
    critical_steps: int = at_least(200, default=100_000, smoke=500)
    """Steps with momentum 0.95 that bring it there."""
    critical_seeds: int = at_least(4, default=16, smoke=4)
    """How many of them are tried."""

    def experiments(self):
        wide = {"width": self.widths}
        looks = (0, self.steps // 100, self.steps // 10, self.steps)
        tanh = {f"{q} clusters": Sweep(self._clusters(GaussianClusters(q, **self._data), self._middle, looks), wide) for q in self.clusters}
        shown = GaussianClusters(3, **self._data)
        relu = replace(self._clusters(shown, self._middle), model=MLP(self._middle, 2, "relu"))
        few = GaussianClusters(2, **{**self._data, "samples": self.few})
        both = [PLAIN, DenseSpectrum(matrix="gauss_newton", cutoff=1e-10), Losses()]
        return {
            **tanh, "relu": Sweep(relu, wide),
            "labels": self._clusters(ShuffledLabels(shown), self._middle),
            "pixels": self._clusters(ShuffledPixels(shown), self._middle),
            "narrow": self._clusters(replace(shown, radius=self.narrow), self._middle),
            "few samples": Sweep(replace(self._clusters(few, 1), probes=both, observe=At((0, self.steps))), {"width": self.few_widths}),
            "digits": self._digits(), "critical": self._critical(),
            "moved": replace(self._clusters(shown, self._middle), probes=[EigenvectorLoss(epsilon=0.01)]),
        }  # fmt: skip

    @property
    def _data(self) -> dict[str, Any]:
        return {"dimension": self.dimension, "samples": self.samples, "radius": self.radius, "noise": self.noise}

    @property
    def _middle(self) -> int:
        return self.widths[len(self.widths) // 2]

    def _clusters(self, task, width: int, looks: tuple[int, ...] = ()) -> Experiment:
        rule = Descent(SGD(self.learning_rate), steps=self.steps)
        return Experiment(task, MLP(width, 2, "tanh"), rule, [PLAIN, Losses()], At(looks or (self.steps,)), precision="float64")

    def _digits(self) -> Experiment:
        looks = tuple(int(t) for t in np.linspace(0, self.digits_steps, self.digits_looks))
        rule = Descent(SGD(0.5), steps=self.digits_steps, loss=Loss("cross_entropy"))
        task = Digits(self.digits, pooled=2, standardise=False)
        return Experiment(task, MLP(16, 2, "tanh"), rule, [PLAIN, Losses()], At(looks), precision="float64")

    def _critical(self) -> Experiment:
        task = GaussianClusters(3, **{**self._data, "samples": self.critical_samples})
        rule = Descent(SGD(0.02, momentum=0.95), steps=self.critical_steps)
        probes = [RescalingSymmetry(), PLAIN, Losses()]
        return Experiment(task, MLP(4, 2, "relu"), rule, probes, At((0, 100, self.critical_steps)), precision="float64")

    def measure(self, name, what, seeds, key, progress):
        more = {"3 clusters": 2, "relu": 2, "labels": self.repeats, "pixels": self.repeats}.get(name, 1)
        count = {"critical": self.critical_seeds, "digits": 1}.get(name, seeds * min(more, self.repeats))
        return super().measure(name, what, count, key, progress)

    def claims(self, measured, theory):
        cells = {q: measured[f"{q} clusters"] for q in self.clusters}
        ends = {q: seen.isel(time=-1) for q, seen in cells.items()}
        end = ends[3]
        for width in self.widths:
            yield Claim(f"C1.{width}", f"3 clusters, width {width}: after training most eigenvalues are near 0 (share of |λ| < 0.001 λ₁)",
                        measured=end.hessian_zero_fraction.sel(width=width), at_least=0.6)
        lowest = {q: (-seen.hessian_spectrum.min("parameter") / seen.hessian_spectrum.max("parameter")) for q, seen in ends.items()}
        yield Claim("C1b", "negative eigenvalues remain but are tiny (largest |λ_min|/λ₁ over clusters, widths and seeds)",
                    measured=max(float(low.max()) for low in lowest.values()), at_most=0.01)
        yield Claim("C1c", "they are there (smallest |λ_min|/λ₁)", measured=min(float(low.min()) for low in lowest.values()), at_least=1e-8, reason="above float64's rounding")
        yield Claim("C1d", "the positive ones above are few and well separated (smallest ratio of the 9th eigenvalue to the 10th, 3 clusters)",
                    measured=self._gap(end, 9).min(), at_least=2.0, reason="the entry gives no number; 2 was written down when a prototype had shown 3.9")
        yield from self._digit_claims(measured["digits"].isel(seed=0))

        for name, seen in (*((f"{q}", ends[q]) for q in self.clusters), ("relu", measured["relu"].isel(time=-1))):
            rises = seen.hessian_zero_fraction.diff("width").reduce(np.min, "width", initial=np.inf)
            words = "3 clusters, ReLU" if name == "relu" else f"{name} clusters"
            yield Claim(f"C2.{name}", f"{words}: the share near 0 rises with every width (smallest step)", measured=rises, at_least=0.0)
        few = measured["few samples"].isel(time=-1)
        excess = max(int(few.gauss_newton_rank.sel(width=w).max()) - rank_bound(self.few, 2, self._parameters(w, 2)) for w in self.few_widths)
        yield Claim("C2b", f"{self.few} samples, weights from 0.3 to 10 times samples times outputs: the Gauss-Newton matrix's rank is at most samples times outputs (largest excess)",
                    measured=excess, at_most=0)
        floor = np.array([1 - rank_bound(self.few, 2, self._parameters(w, 2)) / self._parameters(w, 2) for w in self.few_widths])
        zero = few.hessian_zero_fraction.transpose(..., "width")
        yield Claim("C2c", "and so the Hessian's share near 0 is at least 1 - samples times outputs over weights (smallest difference over widths)",
                    measured=(zero - floor).min("width"), at_least=0.0, reason="after training the residual's part is below 0.001 λ₁")

        for q in self.clusters:
            yield Claim(f"C3.{q}", f"{q} clusters: {cluster_outliers(q, q)} eigenvalues at the edge at every width (share of runs in which it is exactly)",
                        measured=float((ends[q].hessian_outliers == cluster_outliers(q, q)).mean()), at_least=1.0,
                        reason="" if q < 5 else "one seed of width 8 has 22, also after four times the steps; its gap after 25 is 1.3")
        labels, pixels = (self._gap(measured[name].isel(time=-1), 9) for name in ("labels", "pixels"))
        yield Claim("C3b", "shuffled pixels have no clusters, and the edge is gone (9th eigenvalue over the 10th)", measured=pixels, at_most=1.5, reason="the entry gives no number; set before the first run")
        yield Claim("C3c", "shuffled labels leave the clusters, and the edge stays (9th eigenvalue over the 10th)", measured=labels, at_least=2.0, reason="the entry gives no number; set before the first run")
        low = lambda name: float((-measured[name].isel(time=-1).hessian_spectrum.min("parameter") / measured[name].isel(time=-1).hessian_spectrum.max("parameter")).mean())
        yield Claim("C3d", "but what cannot be learned stays in the Hessian's residual part (|λ_min|/λ₁ over that of true labels)",
                    measured=low("labels") / float(lowest[3].sel(width=self._middle).mean()), at_least=3.0, reason="an addition; set before the first run. Perhaps because wrong labels average out within their cluster, "
                    "whose mean the network can fit; this was not tested")
        narrow, wide = (seen.isel(time=-1).hessian_spectrum.isel(parameter=slice(9)).sum("parameter").mean("seed") for seen in (measured["narrow"], cells[3].sel(width=self._middle)))
        yield Claim("C3e", f"a narrower separation changes the edge's size (sum of the 9 at radius {self.radius:g} over that at {self.narrow:g}, means over seeds)",
                    measured=float(wide / narrow), at_least=1.25, reason="the entry gives no number; set after hessian-spectrum had shown 1.97 between radii 1.5 and 4.5")

        for q in self.clusters:
            zero = cells[q].hessian_zero_fraction
            yield Claim(f"C4.{q}", f"{q} clusters: training sharpens the bulk at 0 (share after minus share before, mean over widths)",
                        measured=(zero.isel(time=-1) - zero.isel(time=0)).mean("width"), at_least=0.2)
            wide = cells[q].isel(time=[0, -1], width=slice(-1, None)).hessian_spectrum.dropna("parameter").transpose(..., "parameter").values
            absolute = np.asarray(zero_fraction(wide, 1e-3 * wide[..., 1, :].max(), relative=False)).reshape(-1, 2)
            yield Claim(f"C4b.{q}", f"{q} clusters, widest: by an absolute threshold too, 0.001 of the trained λ₁ (share after minus share before)",
                        measured=absolute[:, 1] - absolute[:, 0], at_least=0.2, reason="the entry's number for the relative one")
            start = cells[q].isel(time=0).hessian_spectrum
            near = (np.abs(start) < 0.05 * start.max("parameter")).sum("parameter") / start.notnull().sum("parameter")
            yield Claim(f"C4c.{q}", f"{q} clusters: it is there before training (share within 5 % of λ₁, mean over widths)", measured=near.mean("width"), at_least=0.5,
                        reason="the entry gives no number; written after hessian-spectrum had shown 0.73 for 3 clusters at the widest")
        yield from self._exact_claims(measured["critical"], measured["moved"].isel(time=-1))

    def _digit_claims(self, course):
        seen = course.isel(time=int((course.train_loss > self.digits_loss).sum()))
        values = seen.hessian_spectrum
        yield Claim("C1e", f"digits of 4 x 4 pixels, cross-entropy at {self.digits_loss:g}: most eigenvalues are near 0 (share of |λ| < 0.001 λ₁)",
                    measured=seen.hessian_zero_fraction, at_least=0.6, reason="the entry's number for clusters")
        yield Claim("C1f", "and the negative ones are small (|λ_min|/λ₁)", measured=float(-values.min() / values.max()), at_most=0.05, reason="the entry gives no number; its prototype has 0.03")

    def _exact_claims(self, critical, moved):
        there = critical.isel(time=-1)
        stationary = there.gradient_norm < STATIONARY
        living = there.live.where(stationary) > 0
        yield Claim("S1", "ReLU: critical points are found (seeds whose gradient is below 1e-6 at a loss above 0.001, with live units)",
                    measured=int((stationary & (there.train_loss > 1e-3) & living.any("unit")).sum()), at_least=3, reason="a number of ours, set when prototypes on other data had found 2 to 3 in 4")
        curvature = (there.rescaling_curvature / there.hessian_spectrum.max("parameter")).where(living)
        yield Claim("S2", "and each live unit's rescaling (w_in, b, -w_out) is null there (largest |H v|/|v| over λ₁)", measured=float(curvature.max()), at_most=1e-3)
        early = critical.sel(time=100)
        curvature = (early.rescaling_curvature / early.hessian_spectrum.max("parameter")).where(early.live > 0)
        yield Claim("S3", "away from critical points it is not (largest |H v|/|v| over λ₁ of a live unit at step 100, each seed's)", measured=curvature.max("unit"), at_least=1e-3)
        mismatch = (critical.rescaling_mismatch / critical.hessian_spectrum.max("parameter")).where(critical.live > 0)
        yield Claim("S4", "there H v is minus the unit's gradient with its outgoing part's sign changed (largest difference over λ₁, all looks)", measured=float(mismatch.max()), at_most=1e-10,
                    reason="exact, derived here: rounding only")
        null = np.abs(moved.null_loss_change)
        top = moved.eigenvector_loss_change.isel(parameter=0)
        yield Claim("P1", "a step along the top eigenvector changes the loss far more than one of the same length near the null space (log10 of the ratio)", measured=np.log10(top / null),
                    at_least=2.0, reason="the entry gives no number; set before the first run")
        said = moved.eigenvector_curvature * moved.step_size**2 / 2
        off = (moved.eigenvector_loss_change / said).isel(parameter=slice(9))
        yield Claim("P2", "along each outlier it is λ/2 times the squared step (ratio, mean over the 9)", measured=off.mean("parameter"), expected=1.0, tolerance=0.1, reason="a fourth order is left")

    def _gap(self, seen, count: int):
        return np.asarray(once(gap_after, floats(seen.hessian_spectrum.transpose(..., "parameter").values), count))

    def _parameters(self, width: int, outputs: int) -> int:
        return parameter_count(MLP(width, 2), self.dimension, outputs)

    def figures(self, measured, theory):
        yield Figure("spectra", f"All eigenvalues in order before and after training, 3 clusters, width {self._middle}, on an axis that is linear within ±0.001 (left), and the "
                     "share of |λ| < 0.001 λ₁ on the way (right; widths from light to dark).", lambda axes: self._draw_spectra(axes[0], measured), grid=(1, 2))
        yield Figure("singular", f"Left: share of |λ| < 0.001 λ₁ against weights over samples times outputs, for {self.few} samples of two clusters; the line is the Gauss-Newton matrix's "
                     "null space. Right: the same for the cluster task, before (open) and after training.", lambda axes: self._draw_singular(axes[0], measured), grid=(1, 2))
        yield Figure("edges", f"Left: the largest eigenvalues, 3 clusters, width {self._middle}, for true and shuffled labels and for shuffled pixels. Right: what a step of 1 % of the weights' "
                     "norm along each eigenvector changes; the line is λ/2 times the squared step.", lambda axes: self._draw_edges(axes[0], measured), grid=(1, 2))
        yield Figure("symmetry", "ReLU units' rescaling directions v at the start, after 100 steps and near critical points: |H v|/|v| against the unit's gradient over |v|; the line is equality.",
                     lambda axes: self._draw_symmetry(axes[0][0], measured["critical"]), size=(4.6, 3.4))

    def _draw_spectra(self, axes, measured):
        seen = measured["3 clusters"].sel(width=self._middle).isel(seed=0)
        for color, time, words in ((COLORS[4], 0, "before training"), (COLORS[0], -1, "after")):
            values = seen.hessian_spectrum.isel(time=time).dropna("parameter")
            axes[0].plot(values.parameter, values, "o", color=color, markersize=2.5, label=words)
        axes[0].set_yscale("symlog", linthresh=1e-3)
        axes[0].set(xlabel="rank of the eigenvalue", ylabel="eigenvalue", title="spectrum")
        axes[0].legend()
        for color, q in zip(COLORS, self.clusters, strict=False):
            for alpha, width in zip(np.linspace(0.35, 1, len(self.widths)), self.widths, strict=True):
                zero = measured[f"{q} clusters"].hessian_zero_fraction.sel(width=width)
                words = f"{q} clusters" if width == max(self.widths) else None
                dots(axes[1], zero.assign_coords(time=np.maximum(zero.time, 3)), color=color, alpha=alpha, linestyle="-", linewidth=1, label=words)
        label(axes[1], "step (the start at 3)", "share of |λ| < 0.001 λ₁", "on the way", xlog=True)
        axes[1].set_ylim(0, 1.2)
        axes[1].legend(loc="upper center", ncols=3, handlelength=1, columnspacing=1)

    def _draw_singular(self, axes, measured):
        few = measured["few samples"].hessian_zero_fraction
        ratio = [self._parameters(w, 2) / (2 * self.few) for w in self.few_widths]
        fine = np.geomspace(min(ratio), max(ratio), 200)
        axes[0].plot(fine, np.maximum(0, 1 - 1 / fine), color="0.3")
        dots(axes[0], few.isel(time=-1).assign_coords(width=ratio), "width", color=COLORS[0], label="after training")
        dots(axes[0], few.isel(time=0).assign_coords(width=ratio), "width", color=COLORS[4], markerfacecolor="white", label="before")
        label(axes[0], "weights / (samples × outputs)", "share of |λ| < 0.001 λ₁", f"{self.few} samples", xlog=True)
        key_of_overlay(axes[0], loc="upper left")
        for color, q in zip(shades(len(self.clusters)), self.clusters, strict=True):
            ratio = [self._parameters(w, q) / (q * self.samples) for w in self.widths]
            zero = measured[f"{q} clusters"].hessian_zero_fraction.assign_coords(width=ratio)
            dots(axes[1], zero.isel(time=-1), "width", color=color, linestyle="-", linewidth=1, label=f"{q} clusters")
            dots(axes[1], zero.isel(time=0), "width", color=color, linestyle=":", linewidth=1, markerfacecolor="white")
        label(axes[1], "weights / (samples × outputs)", "share of |λ| < 0.001 λ₁", f"{self.samples} samples")
        axes[1].legend(loc="upper center", ncols=3, handlelength=1, columnspacing=1)
        for axis in axes:
            axis.set_ylim(0, 1.2)

    def _draw_edges(self, axes, measured):
        runs = [(measured["3 clusters"].sel(width=self._middle), "true"), (measured["labels"], "shuffled labels"), (measured["pixels"], "shuffled pixels")]
        for color, (seen, words) in zip(COLORS, runs, strict=False):
            values = seen.hessian_spectrum.isel(time=-1, seed=0)[:30]
            axes[0].plot(values.parameter, values, "o", color=color, label=words)
        axes[0].axvline(9.5, color="0.3", linewidth=1)
        label(axes[0], "rank of the eigenvalue", "eigenvalue", "edges", ylog=True)
        axes[0].legend()
        moved = measured["moved"].isel(time=-1, seed=0)
        values = moved.eigenvector_curvature
        fine = np.geomspace(1e-5, float(values.max()), 50)
        axes[1].plot(fine, fine * float(moved.step_size) ** 2 / 2, color="0.3")
        for color, sign, words in ((COLORS[0], 1, "λ > 0"), (COLORS[1], -1, "λ < 0")):
            shown = sign * values > 1e-5
            axes[1].plot(np.abs(values[shown]), np.abs(moved.eigenvector_loss_change[shown]), "o", color=color, markersize=2.5, label=words)
        axes[1].axhline(float(np.abs(moved.null_loss_change)), color=COLORS[2], linestyle=":", label="near null space")
        label(axes[1], "|λ|", "|change of the loss|", "a step of 1 %", xlog=True, ylog=True)
        key_of_overlay(axes[1], loc="upper left")

    def _draw_symmetry(self, axis, seen):
        floor = 1e-18
        for color, time, words in zip(COLORS, (0, 1, 2), ("start", "step 100", "end"), strict=False):
            now = seen.isel(time=time)
            living = (now.live > 0).values
            axis.plot(np.maximum(now.rescaling_gradient.values[living], floor), np.maximum(now.rescaling_curvature.values[living], floor), "o", color=color, label=words)
        ends = np.array([floor, 10.0])
        axis.plot(ends, ends, color="0.3", linewidth=1)
        label(axis, "the unit's gradient / |v|", "|H v| / |v|", "rescaling of live ReLU units", xlog=True, ylog=True)
        key_of_overlay(axis, loc="upper left")
