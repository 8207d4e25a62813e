"""How a network learns: descent in steps, or gradient flow."""

from armillary.rules.curvature_rate import CurvatureRate as CurvatureRate
from armillary.rules.curvature_rate import curvature_by_samples as curvature_by_samples
from armillary.rules.curvature_rate import scale_by_curvature as scale_by_curvature
from armillary.rules.descent import Descent as Descent
from armillary.rules.disturbed_flow import Constant as Constant
from armillary.rules.disturbed_flow import DisturbedFlow as DisturbedFlow
from armillary.rules.disturbed_flow import Opposing as Opposing
from armillary.rules.disturbed_flow import Sinusoidal as Sinusoidal
from armillary.rules.disturbed_flow import Trapping as Trapping
from armillary.rules.feeds import FullBatch as FullBatch
from armillary.rules.feeds import MiniBatch as MiniBatch
from armillary.rules.feeds import Online as Online
from armillary.rules.flow import GradientFlow as GradientFlow
from armillary.rules.flow import LinearFlow as LinearFlow
from armillary.rules.independent import Independently as Independently
from armillary.rules.lanczos_rate import LanczosRate as LanczosRate
from armillary.rules.lanczos_rate import heavy_ball as heavy_ball
from armillary.rules.lanczos_rate import scale_by_lanczos as scale_by_lanczos
from armillary.rules.local_stability import LocalStability as LocalStability
from armillary.rules.loss import LOSSES as LOSSES
from armillary.rules.loss import Loss as Loss
from armillary.rules.optimisers import SGD as SGD
from armillary.rules.optimisers import Adam as Adam
from armillary.rules.optimisers import Optax as Optax
from armillary.rules.pretraining import ContrastiveLikelihood as ContrastiveLikelihood
from armillary.rules.pretraining import LeastSquares as LeastSquares
from armillary.rules.pretraining import LinearClassifier as LinearClassifier
from armillary.rules.pretraining import LogisticRegression as LogisticRegression
from armillary.rules.pretraining import MixtureEM as MixtureEM
from armillary.rules.pretraining import PrincipalFactors as PrincipalFactors
from armillary.rules.schedules import Cosine as Cosine
from armillary.rules.schedules import Geometric as Geometric
from armillary.rules.schedules import WarmUp as WarmUp
from armillary.rules.solved import Solved as Solved
from armillary.rules.solved import Solver as Solver
from armillary.rules.solvers import KernelRidge as KernelRidge
from armillary.rules.solvers import KernelSmoother as KernelSmoother
from armillary.rules.to_loss import DescentToLoss as DescentToLoss
from armillary.rules.votes import BayesClassifier as BayesClassifier
from armillary.rules.votes import BayesNetwork as BayesNetwork
from armillary.rules.votes import KernelVote as KernelVote
from armillary.rules.votes import Voters as Voters

__all__ = [
    "LOSSES",
    "SGD",
    "Adam",
    "BayesClassifier",
    "BayesNetwork",
    "Constant",
    "ContrastiveLikelihood",
    "Cosine",
    "CurvatureRate",
    "Descent",
    "DescentToLoss",
    "DisturbedFlow",
    "FullBatch",
    "Geometric",
    "GradientFlow",
    "Independently",
    "KernelRidge",
    "KernelSmoother",
    "KernelVote",
    "LanczosRate",
    "LeastSquares",
    "LinearClassifier",
    "LinearFlow",
    "LocalStability",
    "LogisticRegression",
    "Loss",
    "MiniBatch",
    "MixtureEM",
    "Online",
    "Opposing",
    "Optax",
    "PrincipalFactors",
    "Sinusoidal",
    "Solved",
    "Solver",
    "Trapping",
    "Voters",
    "WarmUp",
    "curvature_by_samples",
    "heavy_ball",
    "scale_by_curvature",
    "scale_by_lanczos",
]  # fmt: skip
