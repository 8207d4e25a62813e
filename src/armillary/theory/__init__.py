"""Theories: closed forms and equations of learning, each with the assumptions under which it holds."""

from armillary.theory.deep_linear import DeepLinearModes as DeepLinearModes
from armillary.theory.deep_linear import depth_strength as depth_strength
from armillary.theory.deep_linear import depth_time as depth_time
from armillary.theory.deep_linear import infinitely_deep_time as infinitely_deep_time
from armillary.theory.deep_linear import layer_strengths as layer_strengths
from armillary.theory.deep_linear import mode_sigmoid as mode_sigmoid
from armillary.theory.deep_linear import mode_time as mode_time
from armillary.theory.deep_linear import unbalanced_mode as unbalanced_mode
from armillary.theory.linear_regression import HighDimensionalRegression as HighDimensionalRegression
from armillary.theory.linear_regression import best_ridge_error as best_ridge_error
from armillary.theory.linear_regression import best_stopping as best_stopping
from armillary.theory.linear_regression import final_error as final_error
from armillary.theory.linear_regression import learning_curve as learning_curve
from armillary.theory.linear_regression import spectral_errors as spectral_errors
from armillary.theory.oscillation import critical_learning_rate as critical_learning_rate
from armillary.theory.oscillation import final_weak_share as final_weak_share
from armillary.theory.oscillation import oscillating_growth as oscillating_growth
from armillary.theory.random_matrix import MarchenkoPastur as MarchenkoPastur
from armillary.theory.theory import THEORIES as THEORIES
from armillary.theory.theory import Check as Check
from armillary.theory.theory import Theory as Theory
from armillary.theory.theory import theory as theory

__all__ = [
    "THEORIES",
    "Check",
    "DeepLinearModes",
    "HighDimensionalRegression",
    "MarchenkoPastur",
    "Theory",
    "best_ridge_error",
    "best_stopping",
    "critical_learning_rate",
    "depth_strength",
    "depth_time",
    "final_error",
    "final_weak_share",
    "infinitely_deep_time",
    "layer_strengths",
    "learning_curve",
    "mode_sigmoid",
    "mode_time",
    "oscillating_growth",
    "spectral_errors",
    "theory",
    "unbalanced_mode",
]  # fmt: skip
