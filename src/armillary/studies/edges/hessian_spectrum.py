"""The Hessian of a trained network is a bulk at zero, which grows with the weights, and outliers, which the data count."""

from dataclasses import dataclass, replace
from typing import ClassVar

import equinox as eqx
import numpy as np

from armillary.clock import At, Evenly
from armillary.curvature import Quadrature
from armillary.curvature.spectrum import gap_after
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least
from armillary.models import MLP
from armillary.once import once
from armillary.prediction import predict
from armillary.probes import Losses
from armillary.probes.clusters import ClusterCurvature
from armillary.probes.curvature import DenseSpectrum, SpectralDensity
from armillary.probes.paths import SegmentLoss
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, lines, shades
from armillary.rules import SGD, Descent, Loss, MiniBatch
from armillary.settings import floats
from armillary.stages import Stage, Stages
from armillary.study import Claim, Paper, Predictions, Study
from armillary.tasks import Digits
from armillary.tasks.clusters import GaussianClusters
from armillary.theory.hessian_rank import cluster_outliers, parameter_count

SMEAR = 0.02
"""Width of the smeared density in units of the largest eigenvalue."""
PLAIN, GAUSS_NEWTON = DenseSpectrum(), DenseSpectrum(matrix="gauss_newton")


def start_anew(old, state, new, key):
    """The next stage starts from a fresh network, and remembers where the last one ended as its `initial`."""
    process = eqx.tree_at(lambda p: p.initial, new, state.network)
    return process, new.init(key)


@dataclass(frozen=True, kw_only=True)
class HessianSpectrum(Study):
    """Where a network has learned its data, the Hessian is the Gauss-Newton matrix, whose rank the samples bound: most
    eigenvalues are near 0. On data in clusters a few stand out, one for each cluster and output.

    Wider networks add to the bulk; more clusters add outliers. What large batches find and what small batches find
    from there lie in one flat region.
    """

    paper: ClassVar = Paper(
        "Empirical Analysis of the Hessian of Over-Parametrized Neural Networks",
        authors="Levent Sagun, Utku Evci, V. Ugur Guney, Yann Dauphin, Leon Bottou", year=2017, arxiv="1706.04454",
    )  # fmt: skip
    seeds: ClassVar = {"smoke": 1, "desk": 3, "paper": 8}

    dimension: int = at_least(6, default=12, paper=30)
    """Inputs of the cluster task."""
    clusters: tuple[int, ...] = at_least(2, default=(2, 3, 5), smoke=(3,))
    """Clusters, each with an output of its own."""
    widths: tuple[int, ...] = at_least(2, default=(8, 16, 32), smoke=(8,), paper=(8, 16, 32, 64))
    """Hidden units of the tanh network."""
    single: tuple[int, ...] = at_least(2, default=(2, 3, 5), smoke=(2,))
    """Clusters told apart by one output, +1 and -1 in turn."""
    samples: int = at_least(50, default=300, smoke=100, paper=1000)
    """Training samples of the cluster task."""
    noise: float = above(0.0, default=0.5)
    """Standard deviation of each input within a cluster."""
    radii: tuple[float, ...] = above(0.0, default=(1.5, 3.0, 4.5))
    """Distances of the centres from the origin; the middle one is everywhere else's."""
    learning_rate: float = above(0.0, default=0.1)
    """Step size of full-batch gradient descent."""
    steps: int = at_least(1000, default=1500, smoke=1000)
    """Its steps."""
    lanczos_draws: int = at_least(2, default=40, smoke=4)
    """Random vectors of the density, with 80 Lanczos steps each."""
    digits: int = at_least(200, default=1200, smoke=600, paper=1500)
    """Training images of the path experiment."""
    large_batch: int = at_least(16, default=600, smoke=16)
    """Images in its large batches; small ones have 16."""
    path_steps: int = at_least(10, default=2000, smoke=10, paper=10_000)
    """Steps of each of its stages."""

    def experiments(self):
        wide = {"width": self.widths}
        grid = {f"{q} clusters": Sweep(self._clusters(q, probes=[PLAIN, GAUSS_NEWTON, ClusterCurvature()]), wide) for q in self.clusters}
        one = {f"{q} clusters, one output": self._clusters(q, probes=[PLAIN], targets="sign") for q in self.single}
        density = self._clusters(3, probes=[PLAIN, SpectralDensity(steps=80, draws=self.lanczos_draws)], width=max(self.widths))
        return {
            **grid, **one, "kernel width": Sweep(self._kernel(), {"width": sorted({min(self.widths), max(self.widths)})}),
            "4 clusters, two outputs": self._clusters(4, probes=[PLAIN], classes=2),
            "separation": Sweep(self._clusters(3, probes=[PLAIN]), {"radius": self.radii}), "density": density, "cross-entropy": self._softmax(), "path": self._path(),
        }  # fmt: skip

    @property
    def _radius(self) -> float:
        return self.radii[len(self.radii) // 2]

    @property
    def _width(self) -> int:
        return self.widths[len(self.widths) // 2]

    def _clusters(self, clusters: int, probes: list, width: int | None = None, **options) -> Experiment:
        task = GaussianClusters(clusters, self.dimension, self.samples, self._radius, self.noise, **options)
        rule = Descent(SGD(self.learning_rate), steps=self.steps)
        return Experiment(task, MLP(width or self._width, 2, "tanh"), rule, [*probes, Losses()], At((0, self.steps)), precision="float64")

    def _kernel(self) -> Experiment:
        """The parametrisation in which the outputs' gradients do not grow with the width; its rate is as many times larger."""
        like = self._clusters(3, [PLAIN])
        return replace(like, model=MLP(self._width, 2, "tanh", parametrisation="ntk"), rule=replace(like.rule, optimiser=SGD(15 * self.learning_rate)))

    def _softmax(self) -> Experiment:
        """Cross-entropy, looked at often enough to be read before confidence takes the curvature away."""
        like = self._clusters(3, [GAUSS_NEWTON], targets="class")
        return replace(like, rule=replace(like.rule, loss=Loss("cross_entropy"), steps=100), observe=Evenly(11))

    def _path(self) -> Stages:
        """Large batches, then small ones from where they end, then small ones from another start."""
        def stage(batch: int) -> Experiment:
            rule = Descent(SGD(self.learning_rate), self.path_steps, Loss("cross_entropy"), MiniBatch(batch, replace=True))
            return Experiment(Digits(self.digits), MLP(32, 2), rule, [Losses(), SegmentLoss(41)], Evenly(11))

        return Stages([stage(self.large_batch), stage(16), Stage(stage(16), enter=start_anew)])

    def measure(self, name, what, seeds, key, progress):
        return super().measure(name, what, 1 if name == "density" else seeds, key, progress)

    def theory(self):
        experiments = self.experiments()
        return Predictions({name: predict(experiments[name]) for name in (f"{q} clusters" for q in self.clusters)})

    def claims(self, measured, theory):
        cells = {q: measured[f"{q} clusters"] for q in self.clusters}
        ends = {q: seen.isel(time=-1) for q, seen in cells.items()}
        starts = {q: seen.isel(time=0) for q, seen in cells.items()}
        q = 3 if 3 in cells else self.clusters[-1]
        near = lambda seen: (np.abs(seen.hessian_spectrum) < 0.05 * seen.hessian_spectrum.max("parameter")).sum("parameter") / seen.hessian_spectrum.notnull().sum("parameter")
        most = max(self.widths)
        yield Claim("C1", f"{q} clusters, width {most}: before training most eigenvalues lie near 0 (share within 5 % of the largest)",
                    measured=near(starts[q]).sel(width=most), at_least=0.8, reason="the entry gives no number; 0.8 was set before the first run. The start's spectrum has large negative eigenvalues, so perhaps the residual's part; not tested")
        yield Claim("C1b", "and after it more of them (share after minus share before)",
                    measured=near(ends[q]).sel(width=most) - near(starts[q]).sel(width=most), at_least=0.0)
        share = [float((seen.hessian_outliers.mean("seed") / seen.hessian_spectrum.notnull().sum("parameter").isel(seed=0)).max()) for seen in ends.values()]
        yield Claim("C1c", "the eigenvalues above the largest gap are few (largest share of all, over clusters and widths)", measured=max(share),
                    at_most=0.2, reason="the entry gives no number; 25 of 149 weights are expected at the most")
        for q in self.clusters:
            wide = [self._gap(seen, q).sel(width=most) for seen in (starts[q], ends[q])]
            yield Claim(f"C1d.{q}", f"{q} clusters, width {most}: training opens the gap below the outliers (its ratio after over before)",
                        measured=wide[1] / wide[0], at_least=1.0)

        for q in self.clusters:
            count = ends[q].hessian_outliers
            said = theory[f"{q} clusters"].hessian_outliers.isel(time=-1)
            yield Claim(f"C2.{q}", f"{q} clusters: the number of outliers is {self._expected(q)} at every width (share of runs in which it is exactly)",
                        measured=float((count == said).mean()), at_least=1.0,
                        reason="" if q < 5 else "one seed of width 8 has 22: its gap after 25 is 1.3, and 1.4 after four times the steps, with 21")
            total = ends[q].hessian_spectrum.isel(parameter=slice(self._expected(q))).sum("parameter").mean("seed")
            yield Claim(f"C2b.{q}", f"{q} clusters: nor does their size follow the width (largest sum of outliers over smallest)",
                        measured=float(total.max() / total.min()), at_most=2.0,
                        reason="in the standard parametrisation the outputs' gradients have a part for each hidden unit, and grow with the width: see C2d")
            zero = ends[q].hessian_zero_fraction
            yield Claim(f"C2c.{q}", f"{q} clusters: what grows is the bulk at 0 (share of |λ| < 0.001 λ₁ at the widest minus that at the narrowest)",
                        measured=zero.sel(width=most) - zero.sel(width=min(self.widths)), at_least=0.1,
                        reason="" if q > 2 else "at 2 clusters nearly 80 % of the narrowest network's eigenvalues are near 0 already")
        total = measured["kernel width"].isel(time=-1).hessian_spectrum.isel(parameter=slice(9)).sum("parameter").mean("seed")
        yield Claim("C2d", "3 clusters, kernel parametrisation: the outliers' size does not follow the width (largest sum over smallest)", measured=float(total.max() / total.min()), at_most=2.0,
                    reason="an addition, made when C2b had failed and a trial had given 1.1. The rate differs too (15 times)")
        for q in self.single:
            count = measured[f"{q} clusters, one output"].hessian_outliers.isel(time=-1)
            yield Claim(f"C3.{q}", f"{q} clusters and one output: {q} outliers (share of seeds in which it is exactly)", measured=float((count == q).mean()), at_least=1.0)
        count = measured["4 clusters, two outputs"].hessian_outliers.isel(time=-1)
        yield Claim("C3b", "4 clusters in two classes: 8 outliers, clusters times outputs, not classes squared (share of seeds)", measured=float((count == 8).mean()), at_least=1.0,
                    reason="an addition: it tells the product from the number of classes and from its square. One seed of three has 6: its gap after 8 is 1.9, after 6 it is 2.2")
        yield Claim("C3c", "cross-entropy, last look at a loss above 0.1: 3 clusters times (3 - 1) outliers of the Gauss-Newton matrix (share of seeds)",
                    measured=float((self._confident(measured["cross-entropy"]).gauss_newton_outliers == cluster_outliers(3, 3, softmax=True)).mean()), at_least=1.0,
                    reason="the entry's remark on the softmax; it gives no number")

        seen = measured["separation"].isel(time=-1)
        total = seen.hessian_spectrum.isel(parameter=slice(9)).sum("parameter")
        yield Claim("C4", f"less separable data have other outliers (their sum at radius {max(self.radii):g} over that at {min(self.radii):g})",
                    measured=total.sel(radius=max(self.radii)) / total.sel(radius=min(self.radii)), at_least=1.5, reason="the entry gives no number; set before the first run")
        bulk = (np.abs(seen.hessian_spectrum) < self._absolute(seen)).mean("parameter")
        yield Claim("C4b", "but the same bulk (share below one absolute threshold, 0.001 λ₁ of the middle radius: largest difference between radii)",
                    measured=bulk.max("radius") - bulk.min("radius"), at_most=0.1, reason="the entry gives no number; set before the first run. All of the bulk is larger for less separable data, which are also "
                    "fitted less well (loss 0.03 against 0.001); the two were not told apart")

        for q in self.clusters:
            top = slice(self._expected(q))
            gap = np.abs(ends[q].gauss_newton_spectrum.isel(parameter=top) / ends[q].hessian_spectrum.isel(parameter=top) - 1).max("parameter")
            yield Claim(f"C5.{q}", f"{q} clusters: the top of the spectrum is that of the outputs' gradients, the Gauss-Newton matrix (largest relative error)",
                        measured=gap, at_most=0.05)
            said = ends[q].cluster_eigenvalues
            gap = np.abs(said.values / ends[q].hessian_spectrum.isel(parameter=slice(said.sizes["eigenvalue"])).values - 1)
            yield Claim(f"C5b.{q}", f"{q} clusters: and one mean gradient for each cluster and output gives it (mean relative error of the outliers)",
                        measured=gap.mean(axis=-1), at_most=0.25, reason="the samples' spread in their clusters is left out; set before the first run")

        yield from self._path_claims(measured["path"])
        yield from self._density_claims(measured["density"].isel(time=-1, seed=0))

    def _path_claims(self, seen):
        at = lambda stage: seen.isel(time=stage * 10)
        yield Claim("C6", f"what batches of 16 find from where batches of {self.large_batch} ended is joined to it (training loss's rise on the straight line)",
                    measured=at(2).segment_barrier, at_most=0.02)
        yield Claim("C6b", "and the line stays below the loss of the large batches (its maximum over that)", measured=at(2).segment_loss.max("path") / at(1).train_loss, at_most=1.01,
                    reason="the maximum counts the end itself; 1 % above it is ours")
        yield Claim("C6c", "on the test images too (rise of their loss)", measured=at(2).segment_test_barrier, at_most=0.02, reason="the entry's number for the training loss")
        yield Claim("C6d", "to what another start ends in the straight line does have a barrier (rise of the training loss)", measured=at(3).segment_barrier, at_least=0.02)

    def _density_claims(self, seen):
        values = seen.hessian_spectrum.values
        nodes, weights = seen.hessian_nodes.values, seen.hessian_node_weights.values
        yield Claim("L1", "Lanczos finds the largest eigenvalue (relative error, first random vector)", measured=abs(nodes[0].max() / values[0] - 1), at_most=1e-3, reason="the entry gives no number")
        at, dense, lanczos = self._densities(seen)
        apart = np.abs(lanczos.mean(axis=0) - dense).sum() * (at[1] - at[0]) / 2
        yield Claim("L2", f"and its density is the dense one (total variation between the two, smeared by {SMEAR:g} λ₁)", measured=apart, at_most=0.1, reason="the entry gives no number; set before the first run")
        edge = np.sqrt(values[8] * values[9])
        counted = (weights * (nodes > edge)).sum(axis=-1) * len(values)
        yield Claim("L3", "its weight above the gap counts the outliers, 9 (one count for each random vector)", measured=counted, expected=9.0, tolerance=2.0,
                    reason=f"random vectors scatter by sqrt(18), which {self.lanczos_draws} of them bring to {np.sqrt(18 / self.lanczos_draws):.1f}")

    def _expected(self, clusters: int) -> int:
        return cluster_outliers(clusters, clusters)

    def _parameters(self, clusters: int, width: int) -> int:
        return parameter_count(MLP(width, 2), self.dimension, clusters)

    def _gap(self, seen, clusters: int):
        return seen.hessian_rank * 0 + np.asarray(once(gap_after, floats(seen.hessian_spectrum.transpose(..., "parameter").values), self._expected(clusters)))

    def _absolute(self, seen) -> float:
        return 1e-3 * float(seen.hessian_spectrum.sel(radius=self._radius).max("parameter").mean())

    def _confident(self, seen):
        """Each seed at its last look at a loss above 0.1."""
        return seen.isel(time=(seen.train_loss > 0.1).sum("time") - 1)

    def _densities(self, seen):
        """Positions, the dense density and each random vector's, smeared, in units of the largest eigenvalue."""
        values = seen.hessian_spectrum.values
        at = np.linspace(-0.15, 1.15, 1301)
        points = Quadrature(seen.hessian_nodes.values / values[0], seen.hessian_node_weights.values)
        exact = Quadrature(values[None] / values[0], np.full((1, len(values)), 1 / len(values)))
        return at, exact.density(at, SMEAR)[0], points.density(at, SMEAR)

    def figures(self, measured, theory):
        yield Figure("scree", f"The largest eigenvalues of the trained network's Hessian, the first seed's. Left: {self._shown} clusters at several widths; right: several "
                     f"numbers of clusters at width {self._width}. Dots are measured; lines are what one mean gradient for each cluster and output gives, and end where clusters times outputs is reached.",
                     lambda axes: self._draw_scree(axes[0], measured), grid=(1, 2))
        yield Figure("counts", "Left: the number of outliers, counted at the largest gap, and clusters times outputs; widths lie side by side. Right: the share of eigenvalues "
                     "with |λ| < 0.001 λ₁ against the number of weights, before training (open) and after.", lambda axes: self._draw_counts(axes[0], measured, theory), grid=(1, 2))
        yield Figure("density", f"Left: the density of all {self._parameters(3, max(self.widths))} eigenvalues, smeared by {SMEAR:g} λ₁: dense, and by {self.lanczos_draws} Lanczos runs (a standard "
                     "deviation between random vectors is shaded; their mean has a sixth of it). Right: the bulk alone, before and after training.", lambda axes: self._draw_density(axes[0], measured), grid=(1, 2))
        yield Figure("separation", "Eigenvalues for centres at several distances from the origin, in clusters of the same spread. Left: the outliers and the gap below them; right: sizes of all, in order.",
                     lambda axes: self._draw_separation(axes[0], measured), grid=(1, 2))
        yield Figure("path", f"Digits. Left: the training loss while batches have {self.large_batch} images, then 16, then 16 from a new start. Right: the loss on the straight line from where "
                     "large batches ended to where small ones went from there, and from there to where another start ended (mean and standard error over seeds).",
                     lambda axes: self._draw_path(axes[0], measured["path"]), grid=(1, 2))

    @property
    def _shown(self) -> int:
        return 3 if 3 in self.clusters else self.clusters[-1]

    def _draw_scree(self, axes, measured):
        panels = ([(f"width {w}", measured[f"{self._shown} clusters"].sel(width=w)) for w in self.widths],
                  [(f"{q} clusters", measured[f"{q} clusters"].sel(width=self._width)) for q in self.clusters])
        for axis, runs, title in zip(axes, panels, (f"{self._shown} clusters", f"width {self._width}"), strict=True):
            for color, (words, seen) in zip(shades(len(runs)), runs, strict=True):
                end = seen.isel(time=-1, seed=0)
                axis.plot(end.parameter[:40], end.hessian_spectrum[:40], "o", color=color, label=words)
                lines(axis, end.cluster_eigenvalues, "eigenvalue", color=color)
            label(axis, "rank of the eigenvalue", "eigenvalue", title, ylog=True)
            axis.set_ylim(2e-3, None)
            key_of_overlay(axis, loc="upper right")

    def _draw_counts(self, axes, measured, theory):
        runs = [(q, q, f"{q} clusters") for q in self.clusters] + [(q, 1, f"{q} clusters, one output") for q in self.single] + [(4, 2, "4 clusters, two outputs")]
        most = max(q * k for q, k, _ in runs)
        axes[0].plot([1.5, 1.3 * most], [1.5, 1.3 * most], color="0.3")
        for q, k, name in runs:
            count = measured[name].hessian_outliers.isel(time=-1)
            color = COLORS[0] if k == q else COLORS[1] if k == 1 else COLORS[2]
            beside = np.geomspace(0.95, 1.05, len(self.widths)) if "width" in count.dims else [1.0]
            for shift, seen in zip(beside, count.transpose(..., "seed").values.reshape(len(beside), -1), strict=True):
                axes[0].plot(np.full(seen.size, q * k * shift), seen, "o", color=color, alpha=0.7)
        for color, words in zip(COLORS, ("an output for each", "one output", "two outputs"), strict=False):
            axes[0].plot([], [], "o", color=color, label=words)
        label(axes[0], "clusters × outputs", "outliers counted", "after training", xlog=True, ylog=True)
        ticks = sorted({q * k for q, k, _ in runs} - {8})  # too near to 9 to be written
        for axis in (axes[0].xaxis, axes[0].yaxis):
            axis.set_ticks(ticks, [str(t) for t in ticks])
            axis.set_minor_locator(_none())
        axes[0].legend(loc="upper left")
        for color, q in zip(shades(len(self.clusters)), self.clusters, strict=True):
            weights = [self._parameters(q, w) for w in self.widths]
            zero = measured[f"{q} clusters"].hessian_zero_fraction.assign_coords(width=weights)
            dots(axes[1], zero.isel(time=-1), "width", color=color, label=f"{q} clusters", linestyle="-", linewidth=1)
            dots(axes[1], zero.isel(time=0), "width", color=color, linestyle=":", linewidth=1, markerfacecolor="white")
        label(axes[1], "weights", "share of |λ| < 0.001 λ₁", "bulk at 0", xlog=True)
        axes[1].set_ylim(0, 1.15)
        axes[1].legend(loc="upper center", ncols=3, handlelength=1, columnspacing=1)

    def _draw_density(self, axes, measured):
        seen = measured["density"].isel(seed=0)
        at, dense, lanczos = self._densities(seen.isel(time=-1))
        mean, spread = lanczos.mean(axis=0), lanczos.std(axis=0)
        axes[0].fill_between(at, np.maximum(mean - spread, 1e-6), mean + spread, color=COLORS[1], alpha=0.25, linewidth=0)
        axes[0].plot(at, dense, color=COLORS[0], label="dense")
        axes[0].plot(at, mean, "--", color=COLORS[1], label="Lanczos")
        label(axes[0], "λ / λ₁", "density", "after training", ylog=True)
        axes[0].set_ylim(1e-3, 1e2)
        axes[0].legend()
        for color, time, words in ((COLORS[4], 0, "before"), (COLORS[0], -1, "after")):
            values = seen.hessian_spectrum.isel(time=time)
            axes[1].hist(values / values.max(), bins=np.linspace(-0.03, 0.1, 66), color=color, histtype="step", linewidth=1.3, label=f"{words} training")
        label(axes[1], "λ / λ₁", "eigenvalues", "bulk", ylog=True)
        axes[1].legend()

    def _draw_separation(self, axes, measured):
        seen = measured["separation"].isel(time=-1, seed=0)
        for color, radius in zip(shades(len(self.radii)), self.radii, strict=True):
            values = seen.hessian_spectrum.sel(radius=radius)
            axes[0].plot(values.parameter[:40], values[:40], "o", color=color, label=f"radius {radius:g}")
            axes[1].plot(values.parameter, np.sort(np.abs(values))[::-1], color=color, label=f"radius {radius:g}")
        axes[0].axvline(9.5, color="0.3", linewidth=1)
        label(axes[0], "rank of the eigenvalue", "eigenvalue", "outliers, 3 clusters", ylog=True)
        label(axes[1], "rank of the size", "|eigenvalue|", "all", ylog=True)
        axes[1].set_ylim(1e-7, None)
        for axis in axes:
            axis.legend()

    def _draw_path(self, axes, seen):
        for color, stage, words in zip(COLORS, (1, 2, 3), (f"batches of {self.large_batch}", "of 16 from there", "of 16, new start"), strict=False):
            dots(axes[0], seen.train_loss.isel(time=slice((stage - 1) * 10 + (stage > 1), stage * 10 + 1)), color=color, label=words, linestyle="-", linewidth=1)
        label(axes[0], "step", "training loss", "stages", ylog=True)
        axes[0].legend()
        share = np.linspace(0, 1, seen.sizes["path"])
        for color, stage, words in ((COLORS[1], 2, "large to small batches"), (COLORS[2], 3, "to another start")):
            for name, style in (("segment_loss", "-"), ("segment_test_loss", ":")):
                loss = seen[name].isel(time=stage * 10).assign_coords(path=share)
                dots(axes[1], loss, "path", every=2, color=color, linestyle=style, linewidth=1, label=f"{words}, {'training' if style == '-' else 'test'}")
        label(axes[1], "position on the line", "loss", "straight lines", ylog=True)
        axes[1].set_ylim(2e-4, None)
        axes[1].legend(fontsize=7, loc="lower center")


def _none():
    from matplotlib.ticker import NullLocator

    return NullLocator()
