"""Instruments: pure functions of a snapshot, on a network inside `simulate` or on a user's own."""

from armillary.probes.agreement import Agreement as Agreement
from armillary.probes.agreement import TestFit as TestFit
from armillary.probes.clusters import ClusterCurvature as ClusterCurvature
from armillary.probes.conserved import ConservedQuantities as ConservedQuantities
from armillary.probes.conserved import SaddleCoordinates as SaddleCoordinates
from armillary.probes.conserved import Stationarity as Stationarity
from armillary.probes.curvature import CurvatureProbe as CurvatureProbe
from armillary.probes.curvature import DenseSpectrum as DenseSpectrum
from armillary.probes.curvature import ExtremeEigenvalues as ExtremeEigenvalues
from armillary.probes.curvature import GradientNoise as GradientNoise
from armillary.probes.curvature import Sharpness as Sharpness
from armillary.probes.curvature import SpectralDensity as SpectralDensity
from armillary.probes.curvature import Traces as Traces
from armillary.probes.diagonal import Coefficients as Coefficients
from armillary.probes.diagonal import KernelDistance as KernelDistance
from armillary.probes.diagonal import SolutionNorms as SolutionNorms
from armillary.probes.dropout import DropoutStability as DropoutStability
from armillary.probes.eigenvectors import EigenvectorLoss as EigenvectorLoss
from armillary.probes.error_parts import ErrorParts as ErrorParts
from armillary.probes.error_parts import WeightMoments as WeightMoments
from armillary.probes.hessian_noise import BatchCurvature as BatchCurvature
from armillary.probes.hessian_noise import BatchDensity as BatchDensity
from armillary.probes.hessian_noise import EigenvectorOverlap as EigenvectorOverlap
from armillary.probes.hessian_noise import HessianNoise as HessianNoise
from armillary.probes.layer_curvature import ChainRuleError as ChainRuleError
from armillary.probes.layer_curvature import LayerCurvature as LayerCurvature
from armillary.probes.layer_curvature import LayerHessian as LayerHessian
from armillary.probes.layer_kernels import LayerKernels as LayerKernels
from armillary.probes.linear_networks import ExcessLoss as ExcessLoss
from armillary.probes.linear_networks import GramOperator as GramOperator
from armillary.probes.linear_networks import ImbalanceSpectrum as ImbalanceSpectrum
from armillary.probes.linear_networks import MinimumNorm as MinimumNorm
from armillary.probes.linear_networks import SignalNorm as SignalNorm
from armillary.probes.linear_networks import SubproductSpectrum as SubproductSpectrum
from armillary.probes.losses import Accuracy as Accuracy
from armillary.probes.losses import Losses as Losses
from armillary.probes.losses import NetworkOutputs as NetworkOutputs
from armillary.probes.margins import BoundaryLinearity as BoundaryLinearity
from armillary.probes.margins import DataOverlap as DataOverlap
from armillary.probes.margins import Margins as Margins
from armillary.probes.matrix_recovery import FactorBalance as FactorBalance
from armillary.probes.matrix_recovery import MatrixRecovery as MatrixRecovery
from armillary.probes.matrix_recovery import MatrixSpectrum as MatrixSpectrum
from armillary.probes.matrix_recovery import PrincipalCosines as PrincipalCosines
from armillary.probes.matrix_recovery import Surplus as Surplus
from armillary.probes.modes import UnlearnedModes as UnlearnedModes
from armillary.probes.patches import PatchFeatures as PatchFeatures
from armillary.probes.paths import PathLoss as PathLoss
from armillary.probes.paths import SegmentLoss as SegmentLoss
from armillary.probes.preactivations import PreactivationChange as PreactivationChange
from armillary.probes.preactivations import Preactivations as Preactivations
from armillary.probes.pretraining import BestHead as BestHead
from armillary.probes.pretraining import ExcessRisk as ExcessRisk
from armillary.probes.pretraining import SubspaceError as SubspaceError
from armillary.probes.pretraining import TeacherAccuracy as TeacherAccuracy
from armillary.probes.probe import Probe as Probe
from armillary.probes.probe import probe as probe
from armillary.probes.recurrent import GradientNorm as GradientNorm
from armillary.probes.recurrent import StepRadii as StepRadii
from armillary.probes.recurrent import StepSensitivity as StepSensitivity
from armillary.probes.regression import FrozenSubspace as FrozenSubspace
from armillary.probes.regression import RegressionErrors as RegressionErrors
from armillary.probes.representation import RepresentationDrift as RepresentationDrift
from armillary.probes.robust_recovery import SignalResidual as SignalResidual
from armillary.probes.robust_recovery import SignRIP as SignRIP
from armillary.probes.robust_recovery import TeacherLoss as TeacherLoss
from armillary.probes.sensitivity import InputSensitivity as InputSensitivity
from armillary.probes.sensitivity import LabelSensitivity as LabelSensitivity
from armillary.probes.smoother import EffectiveRanks as EffectiveRanks
from armillary.probes.smoother import EnsembleErrors as EnsembleErrors
from armillary.probes.smoother import SmootherErrors as SmootherErrors
from armillary.probes.spectra import JacobianSpectrum as JacobianSpectrum
from armillary.probes.spectra import ModeStrength as ModeStrength
from armillary.probes.spectra import SingularValues as SingularValues
from armillary.probes.spectra import StableRank as StableRank
from armillary.probes.state_space import StateSpaceFactors as StateSpaceFactors
from armillary.probes.state_space import StateSpaceStatistics as StateSpaceStatistics
from armillary.probes.state_space import StateSpaceWeights as StateSpaceWeights
from armillary.probes.symmetry import RescalingSymmetry as RescalingSymmetry
from armillary.probes.tangent_kernel import EmpiricalTangentKernel as EmpiricalTangentKernel
from armillary.probes.tangent_kernel import KernelDrift as KernelDrift
from armillary.probes.tangent_kernel import KernelSpectrum as KernelSpectrum
from armillary.probes.tangent_kernel import KernelTargetAlignment as KernelTargetAlignment
from armillary.probes.tangent_kernel import LinearisationError as LinearisationError
from armillary.probes.weights import Balancedness as Balancedness
from armillary.probes.weights import DistanceFromInitialisation as DistanceFromInitialisation
from armillary.probes.weights import LearningRate as LearningRate
from armillary.probes.weights import StepsTaken as StepsTaken
from armillary.probes.weights import UpdateCosine as UpdateCosine
from armillary.probes.weights import WeightNorm as WeightNorm

__all__ = [
    "Accuracy",
    "Agreement",
    "Balancedness",
    "BatchCurvature",
    "BatchDensity",
    "BestHead",
    "BoundaryLinearity",
    "ChainRuleError",
    "ClusterCurvature",
    "Coefficients",
    "ConservedQuantities",
    "CurvatureProbe",
    "DataOverlap",
    "DenseSpectrum",
    "DistanceFromInitialisation",
    "DropoutStability",
    "EffectiveRanks",
    "EigenvectorLoss",
    "EigenvectorOverlap",
    "EmpiricalTangentKernel",
    "EnsembleErrors",
    "ErrorParts",
    "ExcessLoss",
    "ExcessRisk",
    "ExtremeEigenvalues",
    "FactorBalance",
    "FrozenSubspace",
    "GradientNoise",
    "GradientNorm",
    "GramOperator",
    "HessianNoise",
    "ImbalanceSpectrum",
    "InputSensitivity",
    "JacobianSpectrum",
    "KernelDistance",
    "KernelDrift",
    "KernelSpectrum",
    "KernelTargetAlignment",
    "LabelSensitivity",
    "LayerCurvature",
    "LayerHessian",
    "LayerKernels",
    "LearningRate",
    "LinearisationError",
    "Losses",
    "Margins",
    "MatrixRecovery",
    "MatrixSpectrum",
    "MinimumNorm",
    "ModeStrength",
    "NetworkOutputs",
    "PatchFeatures",
    "PathLoss",
    "PreactivationChange",
    "Preactivations",
    "PrincipalCosines",
    "Probe",
    "RegressionErrors",
    "RepresentationDrift",
    "RescalingSymmetry",
    "SaddleCoordinates",
    "SegmentLoss",
    "Sharpness",
    "SignRIP",
    "SignalNorm",
    "SignalResidual",
    "SingularValues",
    "SmootherErrors",
    "SolutionNorms",
    "SpectralDensity",
    "StableRank",
    "StateSpaceFactors",
    "StateSpaceStatistics",
    "StateSpaceWeights",
    "Stationarity",
    "StepRadii",
    "StepSensitivity",
    "StepsTaken",
    "SubproductSpectrum",
    "SubspaceError",
    "Surplus",
    "TeacherAccuracy",
    "TeacherLoss",
    "TestFit",
    "Traces",
    "UnlearnedModes",
    "UpdateCosine",
    "WeightMoments",
    "WeightNorm",
    "probe",
]  # fmt: skip
