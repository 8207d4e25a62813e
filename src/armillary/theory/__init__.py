"""Theories: closed forms and equations of learning, each with the assumptions under which it holds."""

from armillary.theory import kernels as kernels
from armillary.theory.batch_rates import largest_rates as largest_rates
from armillary.theory.benign import NoisyCovariateRegression as NoisyCovariateRegression
from armillary.theory.benign import benign_variance as benign_variance
from armillary.theory.benign import effective_ranks as effective_ranks
from armillary.theory.benign import leading_variance as leading_variance
from armillary.theory.benign import spiked_spectrum as spiked_spectrum
from armillary.theory.catapult import SolvableCatapult as SolvableCatapult
from armillary.theory.catapult import arcsine_density as arcsine_density
from armillary.theory.catapult import catapult_phase as catapult_phase
from armillary.theory.catapult import final_sharpness_bound as final_sharpness_bound
from armillary.theory.catapult import scheduled_course as scheduled_course
from armillary.theory.catapult import scheduled_map as scheduled_map
from armillary.theory.catapult import scheduled_shrinkage as scheduled_shrinkage
from armillary.theory.connectivity_rank import RankedEnd as RankedEnd
from armillary.theory.connectivity_rank import RankedStart as RankedStart
from armillary.theory.connectivity_rank import integrated_end as integrated_end
from armillary.theory.connectivity_rank import largest_alignment as largest_alignment
from armillary.theory.connectivity_rank import ranked_course as ranked_course
from armillary.theory.connectivity_rank import ranked_end as ranked_end
from armillary.theory.connectivity_rank import target_share as target_share
from armillary.theory.deep_linear import DeepLinearModes as DeepLinearModes
from armillary.theory.deep_linear import depth_strength as depth_strength
from armillary.theory.deep_linear import depth_time as depth_time
from armillary.theory.deep_linear import infinitely_deep_time as infinitely_deep_time
from armillary.theory.deep_linear import layer_strengths as layer_strengths
from armillary.theory.deep_linear import mode_sigmoid as mode_sigmoid
from armillary.theory.deep_linear import mode_time as mode_time
from armillary.theory.deep_linear import unbalanced_mode as unbalanced_mode
from armillary.theory.deterministic_equivalents import Beside as Beside
from armillary.theory.deterministic_equivalents import FeatureKernel as FeatureKernel
from armillary.theory.deterministic_equivalents import RidgeErrors as RidgeErrors
from armillary.theory.deterministic_equivalents import Spectrum as Spectrum
from armillary.theory.deterministic_equivalents import effective_ridge as effective_ridge
from armillary.theory.deterministic_equivalents import feature_errors as feature_errors
from armillary.theory.deterministic_equivalents import linear_errors as linear_errors
from armillary.theory.dropout import bound_shape as bound_shape
from armillary.theory.dropout import bound_slope as bound_slope
from armillary.theory.dropout import loss_rise as loss_rise
from armillary.theory.dropout import sampled_variance as sampled_variance
from armillary.theory.hessian_rank import ClusterOutliers as ClusterOutliers
from armillary.theory.hessian_rank import cluster_outliers as cluster_outliers
from armillary.theory.hessian_rank import gram_spectrum as gram_spectrum
from armillary.theory.hessian_rank import parameter_count as parameter_count
from armillary.theory.hessian_rank import rank_bound as rank_bound
from armillary.theory.implicit_bias import DiagonalMirrorFlow as DiagonalMirrorFlow
from armillary.theory.implicit_bias import least_penalty as least_penalty
from armillary.theory.implicit_bias import minimum_l1 as minimum_l1
from armillary.theory.implicit_bias import minimum_l2 as minimum_l2
from armillary.theory.implicit_bias import mirror_flow as mirror_flow
from armillary.theory.implicit_bias import penalty as penalty
from armillary.theory.input_sensitivity import KernelSensitivity as KernelSensitivity
from armillary.theory.input_sensitivity import SphereKernel as SphereKernel
from armillary.theory.input_sensitivity import kernel_sensitivity as kernel_sensitivity
from armillary.theory.input_sensitivity import sphere_kernel as sphere_kernel
from armillary.theory.input_sensitivity import universal_bound as universal_bound
from armillary.theory.input_to_state import DisturbedScalarFlow as DisturbedScalarFlow
from armillary.theory.input_to_state import Equilibrium as Equilibrium
from armillary.theory.input_to_state import critical_amplitude as critical_amplitude
from armillary.theory.input_to_state import equilibria as equilibria
from armillary.theory.input_to_state import error_bound as error_bound
from armillary.theory.input_to_state import saddle_flow as saddle_flow
from armillary.theory.jacobi import FreeJacobi as FreeJacobi
from armillary.theory.kernels import learning_curve as learning_curve
from armillary.theory.kernels import trained_ensemble as trained_ensemble
from armillary.theory.layer_curvature import LayerCurvatureAtStart as LayerCurvatureAtStart
from armillary.theory.layer_curvature import activation_shares as activation_shares
from armillary.theory.layer_curvature import equal_width_level as equal_width_level
from armillary.theory.layer_curvature import layer_traces as layer_traces
from armillary.theory.linear_convergence import OpposedFlow as OpposedFlow
from armillary.theory.linear_convergence import OrthogonalContraction as OrthogonalContraction
from armillary.theory.linear_convergence import SignalWalk as SignalWalk
from armillary.theory.linear_convergence import WideTwoLayerFlow as WideTwoLayerFlow
from armillary.theory.linear_convergence import contraction_bound as contraction_bound
from armillary.theory.linear_convergence import log_norm_law as log_norm_law
from armillary.theory.linear_convergence import needed_width as needed_width
from armillary.theory.linear_convergence import opposed_mode as opposed_mode
from armillary.theory.linear_convergence import wide_contraction as wide_contraction
from armillary.theory.linear_convergence import wide_null_part as wide_null_part
from armillary.theory.linear_dynamics import LinearDynamics as LinearDynamics
from armillary.theory.linear_regression import HighDimensionalRegression as HighDimensionalRegression
from armillary.theory.linear_regression import best_ridge_error as best_ridge_error
from armillary.theory.linear_regression import best_stopping as best_stopping
from armillary.theory.linear_regression import final_error as final_error
from armillary.theory.linear_regression import regression_curve as regression_curve
from armillary.theory.linear_regression import spectral_errors as spectral_errors
from armillary.theory.macroscopic import MacroscopicLaziness as MacroscopicLaziness
from armillary.theory.macroscopic import Motion as Motion
from armillary.theory.macroscopic import layer_shares as layer_shares
from armillary.theory.macroscopic import lazy_motion as lazy_motion
from armillary.theory.macroscopic import learning_speed as learning_speed
from armillary.theory.macroscopic import macroscopic_motion as macroscopic_motion
from armillary.theory.macroscopic import motion_exponent as motion_exponent
from armillary.theory.matrix_sensing import SymmetricSensing as SymmetricSensing
from armillary.theory.matrix_sensing import asymmetric_decay as asymmetric_decay
from armillary.theory.matrix_sensing import direction as direction
from armillary.theory.matrix_sensing import rebalanced_decay as rebalanced_decay
from armillary.theory.matrix_sensing import signal_decay as signal_decay
from armillary.theory.matrix_sensing import surplus_eigenvalue as surplus_eigenvalue
from armillary.theory.matrix_sensing import surplus_error as surplus_error
from armillary.theory.matrix_sensing import typical_start as typical_start
from armillary.theory.max_margin import MarginDirection as MarginDirection
from armillary.theory.max_margin import OneStepCollapse as OneStepCollapse
from armillary.theory.max_margin import first_step_gradient as first_step_gradient
from armillary.theory.max_margin import first_step_stable_rank as first_step_stable_rank
from armillary.theory.max_margin import margin_direction as margin_direction
from armillary.theory.max_margin import random_stable_rank as random_stable_rank
from armillary.theory.mean_field import chi as chi
from armillary.theory.mean_field import correlation_map as correlation_map
from armillary.theory.mean_field import correlation_slope as correlation_slope
from armillary.theory.mean_field import critical_bias_variance as critical_bias_variance
from armillary.theory.mean_field import critical_line as critical_line
from armillary.theory.mean_field import critical_weight_variance as critical_weight_variance
from armillary.theory.mean_field import fixed_correlation as fixed_correlation
from armillary.theory.mean_field import fixed_length as fixed_length
from armillary.theory.mean_field import length_map as length_map
from armillary.theory.mean_field import length_slope as length_slope
from armillary.theory.mean_field import propagated as propagated
from armillary.theory.mean_readout import MeanReadoutDescent as MeanReadoutDescent
from armillary.theory.mean_readout import moment_descent as moment_descent
from armillary.theory.mean_readout import start_alignment as start_alignment
from armillary.theory.oscillation import critical_learning_rate as critical_learning_rate
from armillary.theory.oscillation import final_weak_share as final_weak_share
from armillary.theory.oscillation import oscillating_growth as oscillating_growth
from armillary.theory.path_counts import StackedPaths as StackedPaths
from armillary.theory.path_counts import critical_depth_radius as critical_depth_radius
from armillary.theory.path_counts import endless_gradient as endless_gradient
from armillary.theory.path_counts import largest_delay as largest_delay
from armillary.theory.path_counts import mean_square_path_sum as mean_square_path_sum
from armillary.theory.path_counts import path_count as path_count
from armillary.theory.path_counts import path_sum as path_sum
from armillary.theory.path_counts import state_path_count as state_path_count
from armillary.theory.path_counts import total_gradient as total_gradient
from armillary.theory.phase import Phase as Phase
from armillary.theory.phase import phase as phase
from armillary.theory.power_law_modes import fit_modes as fit_modes
from armillary.theory.power_law_modes import power_law_modes as power_law_modes
from armillary.theory.pretraining import FactorRegression as FactorRegression
from armillary.theory.pretraining import crossing as crossing
from armillary.theory.pretraining import informativeness as informativeness
from armillary.theory.pretraining import least_squares_excess as least_squares_excess
from armillary.theory.pretraining import pretrained_excess as pretrained_excess
from armillary.theory.pretraining import representation_error as representation_error
from armillary.theory.pretraining import residual_variance as residual_variance
from armillary.theory.pretraining import typical_informativeness as typical_informativeness
from armillary.theory.projected_regression import ProjectedRegression as ProjectedRegression
from armillary.theory.projected_regression import online_errors as online_errors
from armillary.theory.quadratic import HighDimensionalQuadratic as HighDimensionalQuadratic
from armillary.theory.quadratic import QuadraticFlow as QuadraticFlow
from armillary.theory.quadratic import high_dimensional_flow as high_dimensional_flow
from armillary.theory.quadratic import orthonormal_flow as orthonormal_flow
from armillary.theory.quadratic import riccati_flow as riccati_flow
from armillary.theory.quadratic import stationary_risk as stationary_risk
from armillary.theory.random_features import ActivationConstants as ActivationConstants
from armillary.theory.random_features import TwoLayerRidge as TwoLayerRidge
from armillary.theory.random_features import activation_constants as activation_constants
from armillary.theory.random_features import random_feature_errors as random_feature_errors
from armillary.theory.random_features import two_layer_errors as two_layer_errors
from armillary.theory.random_features import two_layer_kernel as two_layer_kernel
from armillary.theory.random_matrix import MarchenkoPastur as MarchenkoPastur
from armillary.theory.random_matrix import Semicircle as Semicircle
from armillary.theory.rectified import angles as angles
from armillary.theory.rectified import correlations as correlations
from armillary.theory.rectified import deep_angle as deep_angle
from armillary.theory.rectified import deep_condition_number as deep_condition_number
from armillary.theory.rectified import deep_kernel as deep_kernel
from armillary.theory.rectified import gain as gain
from armillary.theory.rectified import kappa as kappa
from armillary.theory.rectified import layer_correlation as layer_correlation
from armillary.theory.rectified import layer_slope as layer_slope
from armillary.theory.rectified import share as share
from armillary.theory.rectified import tangent_kernel as tangent_kernel
from armillary.theory.robust_recovery import RobustRecovery as RobustRecovery
from armillary.theory.robust_recovery import expected_descent as expected_descent
from armillary.theory.robust_recovery import expected_flow as expected_flow
from armillary.theory.robust_recovery import learning_time as learning_time
from armillary.theory.robust_recovery import statistical_error as statistical_error
from armillary.theory.scaling_law import ScalingLaw as ScalingLaw
from armillary.theory.scaling_law import exponents_of as exponents_of
from armillary.theory.scaling_law import scaling_law as scaling_law
from armillary.theory.spiked import NoisyDescent as NoisyDescent
from armillary.theory.spiked import SpikedWigner as SpikedWigner
from armillary.theory.spiked import coupled_limit as coupled_limit
from armillary.theory.spiked import covariance_overlap as covariance_overlap
from armillary.theory.spiked import crossover_batch as crossover_batch
from armillary.theory.spiked import effective_batch as effective_batch
from armillary.theory.spiked import mean_square_limit as mean_square_limit
from armillary.theory.spiked import second_moments as second_moments
from armillary.theory.spiked import spiked_covariance as spiked_covariance
from armillary.theory.spiked import spiked_wigner as spiked_wigner
from armillary.theory.spiked import wigner_overlap as wigner_overlap
from armillary.theory.state_space import LeadingMode as LeadingMode
from armillary.theory.state_space import Statistics as Statistics
from armillary.theory.state_space import copies_time as copies_time
from armillary.theory.state_space import copies_weight as copies_weight
from armillary.theory.state_space import factor_flow as factor_flow
from armillary.theory.state_space import leading_mode as leading_mode
from armillary.theory.state_space import spectral_statistics as spectral_statistics
from armillary.theory.state_space import statistics as statistics
from armillary.theory.state_space import weight_flow as weight_flow
from armillary.theory.state_space_training import StateSpaceFlow as StateSpaceFlow
from armillary.theory.state_space_training import StateSpaceModes as StateSpaceModes
from armillary.theory.state_space_training import StateSpaceStackFlow as StateSpaceStackFlow
from armillary.theory.theory import THEORIES as THEORIES
from armillary.theory.theory import Check as Check
from armillary.theory.theory import Theory as Theory
from armillary.theory.theory import theory as theory
from armillary.theory.wide_deep import WideDeepLimit as WideDeepLimit
from armillary.theory.wide_deep import shape_distance as shape_distance
from armillary.theory.wide_network import WideNetwork as WideNetwork

__all__ = [
    "THEORIES",
    "ActivationConstants",
    "Beside",
    "Check",
    "ClusterOutliers",
    "DeepLinearModes",
    "DiagonalMirrorFlow",
    "DisturbedScalarFlow",
    "Equilibrium",
    "FactorRegression",
    "FeatureKernel",
    "FreeJacobi",
    "HighDimensionalQuadratic",
    "HighDimensionalRegression",
    "KernelSensitivity",
    "LayerCurvatureAtStart",
    "LeadingMode",
    "LinearDynamics",
    "MacroscopicLaziness",
    "MarchenkoPastur",
    "MarginDirection",
    "MeanReadoutDescent",
    "Motion",
    "NoisyCovariateRegression",
    "NoisyDescent",
    "OneStepCollapse",
    "OpposedFlow",
    "OrthogonalContraction",
    "Phase",
    "ProjectedRegression",
    "QuadraticFlow",
    "RankedEnd",
    "RankedStart",
    "RidgeErrors",
    "RobustRecovery",
    "ScalingLaw",
    "Semicircle",
    "SignalWalk",
    "SolvableCatapult",
    "Spectrum",
    "SphereKernel",
    "SpikedWigner",
    "StackedPaths",
    "StateSpaceFlow",
    "StateSpaceModes",
    "StateSpaceStackFlow",
    "Statistics",
    "SymmetricSensing",
    "Theory",
    "TwoLayerRidge",
    "WideDeepLimit",
    "WideNetwork",
    "WideTwoLayerFlow",
    "activation_constants",
    "activation_shares",
    "angles",
    "arcsine_density",
    "asymmetric_decay",
    "benign_variance",
    "best_ridge_error",
    "best_stopping",
    "bound_shape",
    "bound_slope",
    "catapult_phase",
    "chi",
    "cluster_outliers",
    "contraction_bound",
    "copies_time",
    "copies_weight",
    "correlation_map",
    "correlation_slope",
    "correlations",
    "coupled_limit",
    "covariance_overlap",
    "critical_amplitude",
    "critical_bias_variance",
    "critical_depth_radius",
    "critical_learning_rate",
    "critical_line",
    "critical_weight_variance",
    "crossing",
    "crossover_batch",
    "deep_angle",
    "deep_condition_number",
    "deep_kernel",
    "depth_strength",
    "depth_time",
    "direction",
    "effective_batch",
    "effective_ranks",
    "effective_ridge",
    "endless_gradient",
    "equal_width_level",
    "equilibria",
    "error_bound",
    "expected_descent",
    "expected_flow",
    "exponents_of",
    "factor_flow",
    "feature_errors",
    "final_error",
    "final_sharpness_bound",
    "final_weak_share",
    "first_step_gradient",
    "first_step_stable_rank",
    "fit_modes",
    "fixed_correlation",
    "fixed_length",
    "gain",
    "gram_spectrum",
    "high_dimensional_flow",
    "infinitely_deep_time",
    "informativeness",
    "integrated_end",
    "kappa",
    "kernel_sensitivity",
    "largest_alignment",
    "largest_delay",
    "largest_rates",
    "layer_correlation",
    "layer_shares",
    "layer_slope",
    "layer_strengths",
    "layer_traces",
    "lazy_motion",
    "leading_mode",
    "leading_variance",
    "learning_curve",
    "learning_speed",
    "learning_time",
    "least_penalty",
    "least_squares_excess",
    "length_map",
    "length_slope",
    "linear_errors",
    "log_norm_law",
    "loss_rise",
    "macroscopic_motion",
    "margin_direction",
    "mean_square_limit",
    "mean_square_path_sum",
    "minimum_l1",
    "minimum_l2",
    "mirror_flow",
    "mode_sigmoid",
    "mode_time",
    "moment_descent",
    "motion_exponent",
    "needed_width",
    "online_errors",
    "opposed_mode",
    "orthonormal_flow",
    "oscillating_growth",
    "parameter_count",
    "path_count",
    "path_sum",
    "penalty",
    "phase",
    "power_law_modes",
    "pretrained_excess",
    "propagated",
    "random_feature_errors",
    "random_stable_rank",
    "rank_bound",
    "ranked_course",
    "ranked_end",
    "rebalanced_decay",
    "regression_curve",
    "representation_error",
    "residual_variance",
    "riccati_flow",
    "saddle_flow",
    "sampled_variance",
    "scaling_law",
    "scheduled_course",
    "scheduled_map",
    "scheduled_shrinkage",
    "second_moments",
    "shape_distance",
    "share",
    "signal_decay",
    "spectral_errors",
    "spectral_statistics",
    "sphere_kernel",
    "spiked_covariance",
    "spiked_spectrum",
    "spiked_wigner",
    "start_alignment",
    "state_path_count",
    "stationary_risk",
    "statistical_error",
    "statistics",
    "surplus_eigenvalue",
    "surplus_error",
    "tangent_kernel",
    "target_share",
    "theory",
    "total_gradient",
    "trained_ensemble",
    "two_layer_errors",
    "two_layer_kernel",
    "typical_informativeness",
    "typical_start",
    "unbalanced_mode",
    "universal_bound",
    "weight_flow",
    "wide_contraction",
    "wide_null_part",
    "wigner_overlap",
]  # fmt: skip
