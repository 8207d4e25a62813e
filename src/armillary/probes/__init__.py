"""Instruments: pure functions of a snapshot, on a network inside `simulate` or on a user's own."""

from armillary.probes.conserved import ConservedQuantities as ConservedQuantities
from armillary.probes.conserved import SaddleCoordinates as SaddleCoordinates
from armillary.probes.conserved import Stationarity as Stationarity
from armillary.probes.diagonal import Coefficients as Coefficients
from armillary.probes.diagonal import KernelDistance as KernelDistance
from armillary.probes.diagonal import SolutionNorms as SolutionNorms
from armillary.probes.linear_networks import ExcessLoss as ExcessLoss
from armillary.probes.linear_networks import GramOperator as GramOperator
from armillary.probes.linear_networks import ImbalanceSpectrum as ImbalanceSpectrum
from armillary.probes.linear_networks import MinimumNorm as MinimumNorm
from armillary.probes.linear_networks import SignalNorm as SignalNorm
from armillary.probes.linear_networks import SubproductSpectrum as SubproductSpectrum
from armillary.probes.losses import Accuracy as Accuracy
from armillary.probes.losses import Losses as Losses
from armillary.probes.matrix_recovery import FactorBalance as FactorBalance
from armillary.probes.matrix_recovery import MatrixRecovery as MatrixRecovery
from armillary.probes.matrix_recovery import MatrixSpectrum as MatrixSpectrum
from armillary.probes.matrix_recovery import PrincipalCosines as PrincipalCosines
from armillary.probes.matrix_recovery import Surplus as Surplus
from armillary.probes.patches import PatchFeatures as PatchFeatures
from armillary.probes.probe import Probe as Probe
from armillary.probes.probe import probe as probe
from armillary.probes.regression import FrozenSubspace as FrozenSubspace
from armillary.probes.regression import RegressionErrors as RegressionErrors
from armillary.probes.spectra import JacobianSpectrum as JacobianSpectrum
from armillary.probes.spectra import ModeStrength as ModeStrength
from armillary.probes.spectra import SingularValues as SingularValues
from armillary.probes.weights import Balancedness as Balancedness
from armillary.probes.weights import DistanceFromInitialisation as DistanceFromInitialisation
from armillary.probes.weights import UpdateCosine as UpdateCosine
from armillary.probes.weights import WeightNorm as WeightNorm

__all__ = [
    "Accuracy",
    "Balancedness",
    "Coefficients",
    "ConservedQuantities",
    "DistanceFromInitialisation",
    "ExcessLoss",
    "FactorBalance",
    "FrozenSubspace",
    "GramOperator",
    "ImbalanceSpectrum",
    "JacobianSpectrum",
    "KernelDistance",
    "Losses",
    "MatrixRecovery",
    "MatrixSpectrum",
    "MinimumNorm",
    "ModeStrength",
    "PatchFeatures",
    "PrincipalCosines",
    "Probe",
    "RegressionErrors",
    "SaddleCoordinates",
    "SignalNorm",
    "SingularValues",
    "SolutionNorms",
    "Stationarity",
    "SubproductSpectrum",
    "Surplus",
    "UpdateCosine",
    "WeightNorm",
    "probe",
]  # fmt: skip
