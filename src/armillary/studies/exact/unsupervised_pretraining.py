"""Many unlabelled samples give a representation on which a few labelled ones suffice, if inputs tell about what labels depend on."""

from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import numpy as np
import xarray as xr

from armillary.clock import At, Evenly
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least
from armillary.measures import power_law
from armillary.models import DeepLinear, Gaussian
from armillary.models.encoder import EncoderHead
from armillary.models.model import matrices
from armillary.prediction import predict
from armillary.probes import Accuracy
from armillary.probes.pretraining import BestHead, ExcessRisk, SubspaceError, TeacherAccuracy
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, lines, shades
from armillary.rules import SGD, Descent
from armillary.rules.pretraining import (
    ContrastiveLikelihood,
    LeastSquares,
    LogisticRegression,
    MixtureEM,
    PrincipalFactors,
)
from armillary.rules.solved import Solved
from armillary.simulation import simulate
from armillary.stages import Stage, Stages
from armillary.study import Claim, Paper, Study
from armillary.tasks.latent import ContrastivePairs, FactorModel, GaussianMixture, LatentData
from armillary.theory.pretraining import (
    crossing,
    least_squares_excess,
    pretrained_excess,
    representation_error,
    residual_variance,
    typical_informativeness,
)
from armillary.trajectory import over_seeds

LOGISTIC_PENALTIES = (0.001, 0.01, 0.03, 0.1, 1.0)
STRENGTHS = (2.0, 1.0, 0.5, 0.25, 0.1)
"""Strengths of factors at which the informativeness is computed."""


@dataclass(frozen=True)
class HeadOnly:
    """Enters the second stage: the encoder is kept and frozen under a head of zeros, and labelled samples take over."""

    def __call__(self, old, state, new, key):
        encoder = matrices(state.network)[0]
        data = old.data
        data = LatentData(data.labelled, data.test, data.teacher, data.labelled, data.unlabelled)
        network = EncoderHead(encoder, 0 * encoder[:1, :1].repeat(len(encoder), 1))
        process = eqx.tree_at(lambda p: (p.initial, p.data), new, (network, data))
        return process, process.init(key)


@dataclass(frozen=True, kw_only=True)
class UnsupervisedPretraining(Study):
    """A latent variable model is fitted to m unlabelled samples by maximum likelihood; on its few features n labelled
    samples suffice. Its excess risk has a floor of order 1/m and a part of order 1/n that counts the features, not the
    inputs.

    It pays when labelled samples are scarce and unlabelled ones many: for factor models, mixtures, and pairs
    known only to be alike or not. It fails when labels depend on what is not latent, and when unlabelled samples are few.
    """

    paper: ClassVar = Paper(
        "On the Provable Advantage of Unsupervised Pretraining",
        authors="Jiawei Ge, Shange Tang, Jianqing Fan, Chi Jin", year=2023, arxiv="2303.01566",
    )  # fmt: skip
    seeds: ClassVar = {"smoke": 4, "desk": 8, "paper": 20}

    dimension: int = at_least(10, default=100, smoke=30, paper=1000)
    """Inputs of the factor model."""
    factors: int = at_least(1, default=5, smoke=3, paper=20)
    """Its factors."""
    labelled: tuple[int, ...] = at_least(2, default=(20, 50, 150, 500, 2000, 6000, 20_000), smoke=(50, 150, 2000))
    """Labelled samples n of the factor model; they should include 50 and 2000."""
    unlabelled: tuple[int, ...] = at_least(2, default=(200, 500, 1000, 2000, 5000, 50_000), smoke=(200, 5000))
    """Unlabelled samples m, the fewest first."""
    penalties: tuple[float, ...] = above(0.0, default=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), smoke=(0.01, 0.1, 1.0))
    """Ridge penalties from which the supervised learner gets the best on average: it knows the answer, pretraining does not."""
    draws: int = at_least(2, default=24, smoke=2)
    """Draws of the pretrained factor model; supervised learners, which scatter less, get half."""
    strength: float = above(0.0, default=2.0)
    """Singular values of the factors' loadings; the inputs' noise has standard deviation 1."""
    noise: float = above(0.0, default=0.5)
    """Standard deviation of the label noise."""
    clusters: int = at_least(2, default=6)
    """Clusters of the mixture."""
    mixture_unlabelled: tuple[int, ...] = at_least(20, default=(200, 1000, 5000), smoke=(1000,))
    """Unlabelled samples of the mixture."""
    mixture_draws: int = at_least(2, default=1536, smoke=24)
    """Draws of the mixture with 50 labels and 1000 unlabelled samples; others are drawn for each seed twice."""
    mixture_labelled: tuple[int, ...] = at_least(2, default=(20, 50, 200))
    """Labelled samples of the mixture; they should include 50."""
    pairs: tuple[int, ...] = at_least(20, default=(300, 1000, 3000, 10_000), smoke=(300, 1000), paper=(300, 1000, 3000, 10_000, 100_000))
    """Pairs known to be alike or not."""
    pairs_labelled: tuple[int, ...] = at_least(5, default=(40, 200))
    """Labelled samples beside the pairs."""
    pretraining_steps: int = at_least(100, default=200, smoke=200)
    """Steps of descent on the reconstruction of unlabelled inputs; the head then has twice as many."""

    def experiments(self):
        ridge = {"labelled": self.labelled, "penalty": (0.0, *self.penalties)}
        outside = self._factor(LeastSquares(), outside=1.0)
        mixture, pairs = self._mixture(MixtureEM(self.clusters)), self._pairs(ContrastiveLikelihood(3))
        return {
            "factors": Sweep(self._factor(PrincipalFactors(self.factors)), {"labelled": self.labelled, "unlabelled": self.unlabelled}),
            "factors supervised": Sweep(self._factor(LeastSquares()), ridge),
            "outside": Sweep(self._factor(PrincipalFactors(self.factors), outside=1.0), {"labelled": (20, 150, 2000), "unlabelled": (5000,)}),
            "outside supervised": Sweep(outside, {"labelled": (150, 2000), "penalty": (0.01, 0.1, 1.0)}),
            "mixture": Sweep(mixture, {"task.unlabelled": self.mixture_unlabelled, "labelled": self.mixture_labelled}),
            "mixture labels": Sweep(self._mixture(MixtureEM(self.clusters), 1000), {"labelled": (50,)}),
            "mixture supervised": Sweep(self._mixture(LogisticRegression()), {"labelled": self.mixture_labelled, "penalty": LOGISTIC_PENALTIES}),
            "pairs": Sweep(pairs, {"unlabelled": [float(m) for m in self.pairs], "labelled": self.pairs_labelled}),
            "pairs supervised": Sweep(self._pairs(LeastSquares()), {"labelled": self.pairs_labelled, "penalty": (0.0, *self.penalties)}),
            "descent": self._descent(),
        }  # fmt: skip

    def _factor(self, solver, outside: float = 0.0) -> Experiment:
        task = FactorModel(self.dimension, self.factors, self.strength, 150.0, 5000.0, self.noise, outside)
        return Experiment(task, DeepLinear(1), Solved(solver), [ExcessRisk()], precision="float64")

    def _mixture(self, solver, unlabelled: int = 200) -> Experiment:
        task = GaussianMixture(30, self.clusters, unlabelled, capacity=max(self.mixture_labelled))
        return Experiment(task, DeepLinear(1), Solved(solver), [Accuracy(), TeacherAccuracy()])

    def _pairs(self, solver) -> Experiment:
        count = max(self.pairs) if isinstance(solver, ContrastiveLikelihood) else 10
        task = ContrastivePairs(20, 3, float(count), count, noise=self.noise)
        probes = [ExcessRisk(), SubspaceError()] if isinstance(solver, ContrastiveLikelihood) else [ExcessRisk()]
        return Experiment(task, DeepLinear(1), Solved(solver), probes, precision="float64")

    def _descent(self) -> Stages:
        m, n = max(m for m in self.unlabelled if m <= 5000), 150.0
        task = FactorModel(self.dimension, self.factors, self.strength, n, float(m), self.noise, reconstruct=True)
        model = DeepLinear(2, self.factors, Gaussian(0.1))
        first = Experiment(task, model, Descent(SGD(0.05), self.pretraining_steps), [BestHead(), SubspaceError()],
                           At((0, *range(5, self.pretraining_steps, max(self.pretraining_steps // 40, 1)), self.pretraining_steps)), "float64")
        task = FactorModel(self.dimension, self.factors, self.strength, n, float(m), self.noise)
        second = Experiment(task, model, Descent(SGD(0.05), 2 * self.pretraining_steps), [ExcessRisk()], Evenly(41), "float64")
        return Stages([Stage(first), Stage(second, enter=HeadOnly())])

    def measure(self, name, what, seeds, key, progress):
        draws = {"factors": self.draws, "factors supervised": max(self.draws // 2, 2), "mixture": 2 * seeds, "mixture labels": self.mixture_draws}.get(name, seeds)
        return simulate(what, seeds=draws, key=key, progress=progress, memory=6e7 if name == "mixture supervised" else 3e8)

    def theory(self):
        said = {"factors": predict(self.experiments()["factors"])}
        kappa = [typical_informativeness(20, 3, b, 0.02) for b in STRENGTHS]
        labels = {"units": "1", "long_name": "Hellinger distance of (x, z) over that of x"}
        said["informativeness"] = xr.Dataset({"informativeness": ("strength", kappa, labels)}, coords={"strength": list(STRENGTHS)})
        return said

    @property
    def _variance(self) -> float:
        return residual_variance(self.noise, [self.strength] * self.factors, [self.factors**-0.5] * self.factors)

    def _floor(self, m):
        return representation_error(m, self.dimension, [self.strength] * self.factors, [self.factors**-0.5] * self.factors)

    def _pretrained(self, n, m):
        return pretrained_excess(n, self.factors, self._floor(m), self._variance)

    def _best(self, supervised, sign: float = 1.0) -> xr.DataArray:
        """Of all penalties the best on average over draws, for each number of labelled samples."""
        best = (sign * supervised.mean("seed")).idxmin("penalty")
        return supervised.sel(penalty=best).drop_vars("penalty")

    def claims(self, measured, theory):
        risk = measured["factors"].excess_risk.isel(time=0)
        supervised = measured["factors supervised"].excess_risk.isel(time=0)
        best, mean = self._best(supervised).mean("seed"), risk.mean("seed")
        grid = [n for n in self.labelled if 50 <= n <= 2000]
        checked = mean.sel(labelled=grid, unlabelled=[m for m in self.unlabelled if m >= 1000])
        ratio = checked / theory["factors"].excess_risk.isel(time=0).sel(labelled=grid, unlabelled=checked.unlabelled)
        yield Claim("C1", "factor model: the excess risk is a floor eps_m plus r parameters' share of n labels (ratio to it farthest from 1, m ≥ 1000)",
                    measured=self._farthest(ratio), between=(0.75, 1.3))
        few, most = self.unlabelled[0], self.unlabelled[-1]
        ratio = mean.sel(labelled=grid, unlabelled=few) / self._pretrained(np.array(grid), few)
        yield Claim("C1b", f"and still so at m = {few:g}, where eps_m is at the edge of its range (ratio farthest from 1)", measured=self._farthest(ratio),
                    between=(0.75, 1.3))
        middle = [m for m in self.unlabelled if m <= 5000]
        least = mean.sel(labelled=self.labelled[-1], unlabelled=middle) - least_squares_excess(self.labelled[-1], self.factors, self._variance)
        yield Claim("C1c", "the floor falls as 1/m (exponent)", measured=power_law(middle, least.values).exponent, expected=-1.0, tolerance=0.15,
                    reason="the entry gives no number; 0.15 was set beforehand: m = 200 has corrections of second order")
        rest = mean.sel(labelled=grid, unlabelled=most) - self._floor(most)
        yield Claim("C1d", "and what is above it as 1/n (exponent in n - r - 1)", measured=power_law(np.array(grid) - self.factors - 1, rest.values).exponent,
                    expected=-1.0, tolerance=0.1, reason="the entry gives no number; 0.1 was set beforehand")

        many = [m for m in self.unlabelled if m >= 1000]
        yield Claim("C2", "with few labels pretraining is far better than the best ridge regression (risk over its, n = 50, m ≥ 1000, the largest)",
                    measured=float((mean.sel(labelled=50, unlabelled=many) / best.sel(labelled=50)).max()), at_most=1 / 3)
        ratio = float(self._crossed(mean.sel(unlabelled=few), supervised.sel(penalty=0.0).mean("seed")) / crossing(few, self.dimension, self.factors, self.strength, self.noise))
        yield Claim("C2b", "it pays up to the predicted number of labels (where least squares catches up, over the prediction, at the least m)",
                    measured=ratio, expected=1.0, tolerance=0.3, reason="the entry gives no number; 0.3 was set beforehand: curves are read between a few n")
        end = mean.sel(labelled=self.labelled[-1], unlabelled=few) - best.sel(labelled=self.labelled[-1])
        yield Claim("C2c", "and loses nothing but the floor beyond (loss to ridge at the most labels, over eps_m)", measured=float(end / self._floor(few)),
                    at_most=1.3, reason="C1's tolerance")
        yield Claim("C6", "too few unlabelled samples hurt: the order reverses (risk over the best ridge's, n = 2000, least m)",
                    measured=float(mean.sel(labelled=2000, unlabelled=few) / best.sel(labelled=2000)), at_least=1.0)

        outside = measured["outside"].excess_risk.isel(time=0).sel(labelled=2000, unlabelled=5000)
        ridge = self._best(measured["outside supervised"].excess_risk.isel(time=0)).sel(labelled=2000)
        yield Claim("C5", "labels that depend on what is no factor are never learned from pretrained features (excess risk at n = 2000; 1 for no features)",
                    measured=outside, at_least=0.95, reason="the entry measures 1.004; 0.95 was set beforehand")
        yield Claim("C5b", "though ridge regression learns them", measured=ridge, at_most=0.05, reason="the entry measures .012; 0.05 was set beforehand")
        kappa = theory["informativeness"].informativeness
        weak = kappa.sel(strength=[b for b in STRENGTHS if b <= 0.5])
        yield Claim("C5c", "weak factors are less informative: kappa grows as one over their strength (exponent, strength ≤ 0.5)",
                    measured=power_law(weak.strength.values, weak.values).exponent, expected=-1.0, tolerance=0.15,
                    reason="the entry's table gives -.91 here; 0.15 was set beforehand")
        yield Claim("C5d", "and where there are none it is bounded by nothing but the size of the change (0.02)",
                    measured=typical_informativeness(20, 3, 0.0, 0.02), at_least=50.0, reason="the entry measures 67, of unstated norm; 50 was set beforehand")

        yield from self._mixture_claims(measured)
        yield from self._pair_claims(measured)
        course = measured["descent"]
        expected = float(self._pretrained(150, max(middle)))
        start, end = course.best_head_risk.isel(time=0), course.best_head_risk.sel(time=self.pretraining_steps)
        yield Claim("D1", "by gradient descent on reconstruction the features become as good as maximum likelihood's (risk under the best head over theory, n = 150)",
                    measured=end.mean() / expected, between=(0.75, 1.3), reason="ours, with C1's tolerance")
        yield Claim("D2", "and descent on the head gets there too (excess risk at the end over theory)", measured=course.excess_risk.isel(time=-1).mean() / expected,
                    between=(0.75, 1.3), reason="ours, with C1's tolerance")
        yield Claim("D3", "which random features do not (risk at the start over the end of pretraining)", measured=float(start.mean() / end.mean()), at_least=5.0,
                    reason="ours; 5 was set beforehand")

    def _mixture_claims(self, measured):
        error = 1 - measured["mixture"].test_accuracy.isel(time=0)
        logistic = 1 - self._best(measured["mixture supervised"].test_accuracy.isel(time=0), sign=-1.0)
        labels = 1 - measured["mixture labels"].test_accuracy.sel(labelled=50).isel(time=0)
        yield Claim("C3", "mixture: 50 labels on 1000 unlabelled samples are enough (test error)", measured=labels, at_most=0.02,
                    reason="a cluster whose few labels mislead costs a sixth, in a few percent of draws: many draws are needed")
        bayes = 1 - measured["mixture"].teacher_accuracy.isel(time=0)
        many = {"unlabelled": max(self.mixture_unlabelled), "labelled": max(self.mixture_labelled)}
        yield Claim("C3b", "with more, the error is Bayes's (over it, at the most samples of both kinds)",
                    measured=float(error.sel(many).mean() / bayes.sel(many).mean()), at_most=1.5, reason="the entry gives no number (1.02 in its table); 1.5 was set when the error was known but not Bayes's")
        yield Claim("C3d", "with which logistic regression is far off (test error)", measured=logistic.sel(labelled=50), at_least=0.09)

    def _pair_claims(self, measured):
        seen = measured["pairs"].isel(time=0)
        ridge = self._best(measured["pairs supervised"].excess_risk.isel(time=0)).mean("seed")
        few = min(self.pairs_labelled)
        error = seen.subspace_error.isel(labelled=0).mean("seed")
        low, high = sorted(self.pairs)[1], max(self.pairs)
        if high > low:
            yield Claim("C4", f"pairs: the subspace is found as 1/m (error at m = {low} over {high})",
                        measured=float(error.sel(unlabelled=low) / error.sel(unlabelled=high)), between=(0.6 * high / low, 1.6 * high / low))
        mean = seen.excess_risk.sel(labelled=few).mean("seed") / ridge.sel(labelled=few)
        for name, m in zip(("C4b", "C4c"), [m for m in self.pairs if m >= 3000], strict=False):
            yield Claim(f"{name}", f"{m} pairs beat the best ridge regression by far (risk over its, n = {few})", measured=float(mean.sel(unlabelled=m)), at_most=0.5)
        yield Claim("C4d", "but too few pairs hurt (risk over the best ridge's)", measured=float(mean.sel(unlabelled=min(self.pairs))), at_least=1.0)

    def _farthest(self, ratio) -> float:
        flat = np.asarray(ratio).ravel()
        return float(flat[int(np.argmax(np.abs(np.log(flat))))])

    def _crossed(self, pretrained, supervised) -> float:
        """Labelled samples at which the second curve falls below the first, between grid points straight in logarithms."""
        n = pretrained.labelled.values
        gap = np.log(supervised.sel(labelled=n).values / pretrained.values)
        after = [i for i in range(1, len(n)) if gap[i] <= 0 < gap[i - 1] and n[i] > self.dimension]
        if not after:
            return float("nan")
        share = gap[after[0] - 1] / (gap[after[0] - 1] - gap[after[0]])
        return float(np.exp(np.log(n[after[0] - 1]) + share * np.log(n[after[0]] / n[after[0] - 1])))

    def figures(self, measured, theory):
        yield Figure("factors", "Factor model: excess risk against labelled samples n. Dots: pretrained on m unlabelled samples, and least squares; lines: theory. "
                     "Dashed: the best ridge regression. The theory of m = 200 is outside its range and dotted.",
                     lambda axes: self._draw_factors(axes[0][0], measured, theory), size=(5.4, 3.6))
        yield Figure("map", "Where pretraining pays: log10 of its excess risk over the best ridge regression's. The line is where theory has it equal to least squares.",
                     lambda axes: self._draw_map(axes[0][0], measured), size=(5.0, 3.4))
        yield Figure("mixture-and-pairs", "Left: test error on the mixture against labelled samples. Right: contrastive pretraining's excess risk and subspace error "
                     "against pairs; dashed: the best ridge regression without pairs. Dotted: 1/m.", lambda axes: self._draw_others(axes[0], measured), grid=(1, 2))
        yield Figure("limits", "Left: informativeness of factors against their strength (dotted: 1/b). Right: excess risk while the encoder is trained on reconstruction "
                     "(under the best head) and then the head alone (steps after the line); dashed: theory.", lambda axes: self._draw_limits(axes[0], measured, theory), grid=(1, 2))

    def _draw_factors(self, axis, measured, theory):
        risk, said = measured["factors"].excess_risk.isel(time=0), theory["factors"].excess_risk.isel(time=0)
        supervised = measured["factors supervised"].excess_risk.isel(time=0)
        n = np.geomspace(self.factors + 4, max(self.labelled), 200)
        shown = [m for m in self.unlabelled if m in (200, 1000, 50_000)] or list(self.unlabelled)
        for color, m in zip(shades(len(shown)), shown, strict=True):
            within = bool(np.isfinite(said.sel(unlabelled=m)).any())
            axis.plot(n, self._pretrained(n, m), color=color, linestyle="-" if within else ":", label=f"m = {m:,}")
            dots(axis, risk.sel(unlabelled=m), "labelled", color=color)
        n = np.geomspace(self.dimension * 1.03, max(self.labelled), 200)
        axis.plot(n, least_squares_excess(n, self.dimension, self._variance), color=COLORS[1], label="least squares")
        dots(axis, supervised.sel(penalty=0.0), "labelled", color=COLORS[1])
        dots(axis, self._best(supervised), "labelled", color="0.3", linestyle="--", linewidth=1, label="best ridge")
        label(axis, "labelled samples n", "excess risk", f"factor model, d = {self.dimension}, r = {self.factors}", xlog=True, ylog=True)
        axis.set_ylim(1e-4, 5)
        key_of_overlay(axis, loc="lower left", ncols=2)

    def _draw_map(self, axis, measured):
        risk = measured["factors"].excess_risk.isel(time=0).mean("seed")
        ratio = np.log10(risk / self._best(measured["factors supervised"].excess_risk.isel(time=0)).mean("seed")).transpose("unlabelled", "labelled")
        size = float(np.abs(ratio).max())
        mesh = axis.pcolormesh(ratio.labelled, ratio.unlabelled, ratio, cmap="RdBu_r", vmin=-size, vmax=size, shading="nearest")
        axis.figure.colorbar(mesh, ax=axis, label="log10 ratio of risks")
        m = np.geomspace(min(self.unlabelled), max(self.unlabelled), 50)
        axis.plot(crossing(m, self.dimension, self.factors, self.strength, self.noise), m, color="0.0")
        label(axis, "labelled samples n", "unlabelled samples m", "pretrained over supervised", xlog=True, ylog=True)
        axis.set_xlim(min(self.labelled), max(self.labelled))
        axis.grid(False)

    def _draw_others(self, axes, measured):
        error = 1 - measured["mixture"].test_accuracy.isel(time=0)
        for color, m in zip(shades(len(self.mixture_unlabelled)), self.mixture_unlabelled, strict=True):
            dots(axes[0], error.sel(unlabelled=m), "labelled", color=color, linestyle="-", linewidth=1, label=f"m = {m:,}")
        logistic = 1 - self._best(measured["mixture supervised"].test_accuracy.isel(time=0), sign=-1.0)
        dots(axes[0], logistic, "labelled", color="0.3", linestyle="--", linewidth=1, label="logistic")
        label(axes[0], "labelled samples n", "test error", f"mixture of {self.clusters}", xlog=True, ylog=True)
        axes[0].set_xticks(self.mixture_labelled, [str(n) for n in self.mixture_labelled])
        axes[0].xaxis.minorticks_off()
        axes[0].axhline(float(1 - measured["mixture"].teacher_accuracy.mean()), color="0.5", linewidth=0.8, label="Bayes")
        axes[0].legend(fontsize=7)
        seen = measured["pairs"].isel(time=0)
        ridge = self._best(measured["pairs supervised"].excess_risk.isel(time=0))
        for color, n in zip(COLORS, self.pairs_labelled, strict=False):
            dots(axes[1], seen.excess_risk.sel(labelled=n), "unlabelled", color=color, linestyle="-", linewidth=1, label=f"risk, n = {n}")
            axes[1].axhline(float(over_seeds(ridge.sel(labelled=n))[0]), color=color, linestyle="--", linewidth=1)
        dots(axes[1], seen.subspace_error.isel(labelled=0), "unlabelled", color=COLORS[2], linestyle="-", linewidth=1, label="subspace error")
        m = np.array([min(self.pairs), max(self.pairs)], float)
        axes[1].plot(m, float(seen.subspace_error.isel(labelled=0, unlabelled=-1).mean()) * m[-1] / m, ":", color=COLORS[2], linewidth=1)
        label(axes[1], "pairs m", "excess risk, subspace error", "contrastive pairs", xlog=True, ylog=True)
        axes[1].legend(fontsize=7, loc="lower left")

    def _draw_limits(self, axes, measured, theory):
        kappa = theory["informativeness"].informativeness
        lines(axes[0], kappa, "strength", color=COLORS[0])
        b = np.array([min(STRENGTHS), 1.0])
        axes[0].plot(b, 1 / b, ":", color="0.3")
        label(axes[0], "strength b of the factors", "informativeness κ", "d = 20, r = 3", xlog=True, ylog=True)
        course = measured["descent"]
        dots(axes[1], course.best_head_risk.sel(time=slice(None, self.pretraining_steps)), every=2, color=COLORS[0], label="best head")
        dots(axes[1], course.excess_risk.sel(time=slice(self.pretraining_steps + 1, None)), every=2, color=COLORS[1], label="head by descent")
        axes[1].axvline(self.pretraining_steps, color="0.5", linewidth=0.8)
        axes[1].axhline(float(self._pretrained(150, max(m for m in self.unlabelled if m <= 5000))), color="0.3", linestyle="--", linewidth=1)
        label(axes[1], "step", "excess risk", "pretraining, then the head", ylog=True)
        axes[1].legend()
