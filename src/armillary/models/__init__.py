"""Networks and the recipes that draw them. Any equinox module is welcome beside these."""

from armillary.models.activations import ACTIVATIONS as ACTIVATIONS
from armillary.models.activations import Centred as Centred
from armillary.models.activations import Hermite as Hermite
from armillary.models.activations import Polynomial as Polynomial
from armillary.models.activations import Rectified as Rectified
from armillary.models.activations import activation as activation
from armillary.models.committee import Committee as Committee
from armillary.models.committee import CommitteeNetwork as CommitteeNetwork
from armillary.models.connectivity import AnyOf as AnyOf
from armillary.models.connectivity import CellTypes as CellTypes
from armillary.models.connectivity import Dale as Dale
from armillary.models.connectivity import GivenConnectivity as GivenConnectivity
from armillary.models.connectivity import NearestNeighbours as NearestNeighbours
from armillary.models.connectivity import PowerLawSpectrum as PowerLawSpectrum
from armillary.models.connectivity import RankCut as RankCut
from armillary.models.connectivity import Shuffled as Shuffled
from armillary.models.connectivity import Sparse as Sparse
from armillary.models.connectivity import read_connectivity as read_connectivity
from armillary.models.convolutional import Convolution as Convolution
from armillary.models.convolutional import ConvolutionalNet as ConvolutionalNet
from armillary.models.convolutional import ConvolutionalNetwork as ConvolutionalNetwork
from armillary.models.curvature_control import CurvatureControlled as CurvatureControlled
from armillary.models.curvature_control import scale_changes as scale_changes
from armillary.models.curvature_control import with_curvature as with_curvature
from armillary.models.deep_linear import DeepLinear as DeepLinear
from armillary.models.deep_linear import LinearChain as LinearChain
from armillary.models.diagonal import DiagonalLinear as DiagonalLinear
from armillary.models.diagonal import DiagonalNetwork as DiagonalNetwork
from armillary.models.encoder import ClusterClassifier as ClusterClassifier
from armillary.models.encoder import EncoderHead as EncoderHead
from armillary.models.ensemble import Ensemble as Ensemble
from armillary.models.ensemble import EnsembleNetwork as EnsembleNetwork
from armillary.models.factorised import AsymmetricFactors as AsymmetricFactors
from armillary.models.factorised import AsymmetricProduct as AsymmetricProduct
from armillary.models.factorised import SymmetricFactors as SymmetricFactors
from armillary.models.factorised import SymmetricProduct as SymmetricProduct
from armillary.models.factorised import rebalanced as rebalanced
from armillary.models.features import FeatureNetwork as FeatureNetwork
from armillary.models.features import FeaturesKernel as FeaturesKernel
from armillary.models.features import RandomFeatures as RandomFeatures
from armillary.models.frozen import Frozen as Frozen
from armillary.models.frozen import frozen as frozen
from armillary.models.frozen import thawed as thawed
from armillary.models.initialisation import Decoupled as Decoupled
from armillary.models.initialisation import Gaussian as Gaussian
from armillary.models.initialisation import GreedyAutoencoder as GreedyAutoencoder
from armillary.models.initialisation import Orthogonal as Orthogonal
from armillary.models.initialisation import haar_orthogonal as haar_orthogonal
from armillary.models.layers import dense_layers as dense_layers
from armillary.models.layers import dropped as dropped
from armillary.models.layers import hidden_widths as hidden_widths
from armillary.models.layers import with_layers as with_layers
from armillary.models.local_stability import RadiusDescent as RadiusDescent
from armillary.models.local_stability import Rescale as Rescale
from armillary.models.local_stability import Stabilised as Stabilised
from armillary.models.local_stability import spectral_radius as spectral_radius
from armillary.models.local_stability import step_radii as step_radii
from armillary.models.macroscopic import Macroscopic as Macroscopic
from armillary.models.macroscopic import MacroscopicNetwork as MacroscopicNetwork
from armillary.models.mean_readout import MeanReadout as MeanReadout
from armillary.models.mean_readout import MeanReadoutNetwork as MeanReadoutNetwork
from armillary.models.mlp import MLP as MLP
from armillary.models.mlp import MLPNetwork as MLPNetwork
from armillary.models.model import Dense as Dense
from armillary.models.model import Model as Model
from armillary.models.model import end_to_end as end_to_end
from armillary.models.model import learning_rate_scales as learning_rate_scales
from armillary.models.model import matrices as matrices
from armillary.models.model import parameters as parameters
from armillary.models.normalised_chain import NormalisedChain as NormalisedChain
from armillary.models.normalised_chain import NormalisedLinear as NormalisedLinear
from armillary.models.parametrisation import PARAMETRISATIONS as PARAMETRISATIONS
from armillary.models.parametrisation import Scales as Scales
from armillary.models.parametrisation import scales as scales
from armillary.models.patch_network import PatchModel as PatchModel
from armillary.models.patch_network import PatchNetwork as PatchNetwork
from armillary.models.projection import ProjectedNetwork as ProjectedNetwork
from armillary.models.projection import RandomProjection as RandomProjection
from armillary.models.radial_kernel import RadialKernel as RadialKernel
from armillary.models.radial_kernel import distance_kernel as distance_kernel
from armillary.models.recurrent import Cell as Cell
from armillary.models.recurrent import GatedCell as GatedCell
from armillary.models.recurrent import OneStep as OneStep
from armillary.models.recurrent import Recurrent as Recurrent
from armillary.models.recurrent import RecurrentNetwork as RecurrentNetwork
from armillary.models.scaled_output import ScaledNetwork as ScaledNetwork
from armillary.models.scaled_output import ScaledOutput as ScaledOutput
from armillary.models.state_space import EqualEntries as EqualEntries
from armillary.models.state_space import Poles as Poles
from armillary.models.state_space import StateSpace as StateSpace
from armillary.models.state_space import StateSpaceChain as StateSpaceChain
from armillary.models.state_space import StateSpaceLayer as StateSpaceLayer
from armillary.models.state_space import StateSpaceStack as StateSpaceStack
from armillary.models.tangent_kernel import FiniteWidth as FiniteWidth
from armillary.models.tangent_kernel import FiniteWidthKernel as FiniteWidthKernel
from armillary.models.tangent_kernel import Kernel as Kernel
from armillary.models.tangent_kernel import LinearKernel as LinearKernel
from armillary.models.tangent_kernel import TangentKernel as TangentKernel
from armillary.models.tangent_kernel import arc_cosine_features as arc_cosine_features
from armillary.models.tangent_kernel import arc_cosine_tangent as arc_cosine_tangent
from armillary.models.two_layer_linear import NullOrthogonal as NullOrthogonal
from armillary.models.two_layer_linear import OfRank as OfRank
from armillary.models.two_layer_linear import Opposed as Opposed
from armillary.models.two_layer_linear import Prepared as Prepared
from armillary.models.two_layer_linear import TwoLayerLinear as TwoLayerLinear
from armillary.models.two_layer_linear import WidthScaled as WidthScaled
from armillary.models.variance_law import VarianceLawMLP as VarianceLawMLP
from armillary.models.variance_law import weight_variance as weight_variance

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "PARAMETRISATIONS",
    "AnyOf",
    "AsymmetricFactors",
    "AsymmetricProduct",
    "Cell",
    "CellTypes",
    "Centred",
    "ClusterClassifier",
    "Committee",
    "CommitteeNetwork",
    "Convolution",
    "ConvolutionalNet",
    "ConvolutionalNetwork",
    "CurvatureControlled",
    "Dale",
    "Decoupled",
    "DeepLinear",
    "Dense",
    "DiagonalLinear",
    "DiagonalNetwork",
    "EncoderHead",
    "Ensemble",
    "EnsembleNetwork",
    "EqualEntries",
    "FeatureNetwork",
    "FeaturesKernel",
    "FiniteWidth",
    "FiniteWidthKernel",
    "Frozen",
    "GatedCell",
    "Gaussian",
    "GivenConnectivity",
    "GreedyAutoencoder",
    "Hermite",
    "Kernel",
    "LinearChain",
    "LinearKernel",
    "MLPNetwork",
    "Macroscopic",
    "MacroscopicNetwork",
    "MeanReadout",
    "MeanReadoutNetwork",
    "Model",
    "NearestNeighbours",
    "NormalisedChain",
    "NormalisedLinear",
    "NullOrthogonal",
    "OfRank",
    "OneStep",
    "Opposed",
    "Orthogonal",
    "PatchModel",
    "PatchNetwork",
    "Poles",
    "Polynomial",
    "PowerLawSpectrum",
    "Prepared",
    "ProjectedNetwork",
    "RadialKernel",
    "RadiusDescent",
    "RandomFeatures",
    "RandomProjection",
    "RankCut",
    "Rectified",
    "Recurrent",
    "RecurrentNetwork",
    "Rescale",
    "ScaledNetwork",
    "ScaledOutput",
    "Scales",
    "Shuffled",
    "Sparse",
    "Stabilised",
    "StateSpace",
    "StateSpaceChain",
    "StateSpaceLayer",
    "StateSpaceStack",
    "SymmetricFactors",
    "SymmetricProduct",
    "TangentKernel",
    "TwoLayerLinear",
    "VarianceLawMLP",
    "WidthScaled",
    "activation",
    "arc_cosine_features",
    "arc_cosine_tangent",
    "dense_layers",
    "distance_kernel",
    "dropped",
    "end_to_end",
    "frozen",
    "haar_orthogonal",
    "hidden_widths",
    "learning_rate_scales",
    "matrices",
    "parameters",
    "read_connectivity",
    "rebalanced",
    "scale_changes",
    "scales",
    "spectral_radius",
    "step_radii",
    "thawed",
    "weight_variance",
    "with_curvature",
    "with_layers",
]  # fmt: skip
