"""Infinitely wide networks: their covariance at the start (NNGP) and their tangent kernel, layer by layer."""

from armillary.theory.kernels.by_layer import layer_kernels as layer_kernels
from armillary.theory.kernels.depth import DeepKernel as DeepKernel
from armillary.theory.kernels.depth import logarithms as logarithms
from armillary.theory.kernels.dual import CLOSED as CLOSED
from armillary.theory.kernels.dual import Dual as Dual
from armillary.theory.kernels.dual import dual as dual
from armillary.theory.kernels.gram import Gram as Gram
from armillary.theory.kernels.gram import Kernel as Kernel
from armillary.theory.kernels.iterative import iterative_regression as iterative_regression
from armillary.theory.kernels.layers import Activation as Activation
from armillary.theory.kernels.layers import AveragePool as AveragePool
from armillary.theory.kernels.layers import Convolution as Convolution
from armillary.theory.kernels.layers import Dense as Dense
from armillary.theory.kernels.layers import Flatten as Flatten
from armillary.theory.kernels.layers import GlobalAveragePool as GlobalAveragePool
from armillary.theory.kernels.layers import Layer as Layer
from armillary.theory.kernels.layers import LayerNorm as LayerNorm
from armillary.theory.kernels.layers import Serial as Serial
from armillary.theory.kernels.layers import Sum as Sum
from armillary.theory.kernels.linearised import lazy_course as lazy_course
from armillary.theory.kernels.linearised import lazy_outputs as lazy_outputs
from armillary.theory.kernels.linearised import linearised_training as linearised_training
from armillary.theory.kernels.machine import InfiniteWidth as InfiniteWidth
from armillary.theory.kernels.machine import InfiniteWidthKernel as InfiniteWidthKernel
from armillary.theory.kernels.of_model import kernel as kernel
from armillary.theory.kernels.of_model import layers_of_model as layers_of_model
from armillary.theory.kernels.regression import kernel_modes as kernel_modes
from armillary.theory.kernels.regression import learning_curve as learning_curve
from armillary.theory.kernels.regression import predicted_error as predicted_error
from armillary.theory.kernels.regression import ridge_regression as ridge_regression
from armillary.theory.kernels.series import series_error as series_error
from armillary.theory.kernels.taxonomy import Taxonomy as Taxonomy
from armillary.theory.kernels.taxonomy import koenigs as koenigs
from armillary.theory.kernels.taxonomy import koenigs_kernel as koenigs_kernel
from armillary.theory.kernels.taxonomy import limit_kernel as limit_kernel
from armillary.theory.kernels.taxonomy import log_koenigs as log_koenigs
from armillary.theory.kernels.taxonomy import optimal_activation as optimal_activation
from armillary.theory.kernels.taxonomy import singular_order as singular_order
from armillary.theory.kernels.taxonomy import taxonomy as taxonomy
from armillary.theory.kernels.training import largest_stable_rate as largest_stable_rate
from armillary.theory.kernels.training import relaxation as relaxation
from armillary.theory.kernels.training import softmax_training as softmax_training
from armillary.theory.kernels.training import trained_ensemble as trained_ensemble

__all__ = [
    "CLOSED", "Activation", "AveragePool", "Convolution", "DeepKernel", "Dense", "Dual", "Flatten",
    "GlobalAveragePool", "Gram", "InfiniteWidth", "InfiniteWidthKernel", "Kernel", "Layer", "LayerNorm", "Serial",
    "Sum", "Taxonomy", "dual", "iterative_regression", "kernel", "kernel_modes", "koenigs", "koenigs_kernel",
    "largest_stable_rate", "layer_kernels", "layers_of_model", "lazy_course", "lazy_outputs", "learning_curve", "limit_kernel",
    "linearised_training", "log_koenigs", "logarithms", "optimal_activation", "predicted_error", "relaxation",
    "ridge_regression", "series_error", "singular_order", "softmax_training", "taxonomy", "trained_ensemble",
]  # fmt: skip
