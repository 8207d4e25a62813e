"""What is learned: tasks draw data and know their population statistics where they have any."""

from armillary.tasks.classification import GaussianClasses as GaussianClasses
from armillary.tasks.classification import RandomLift as RandomLift
from armillary.tasks.clusters import GaussianClusters as GaussianClusters
from armillary.tasks.clusters import nearest_centre as nearest_centre
from armillary.tasks.covariate_noise import CovariateNoise as CovariateNoise
from armillary.tasks.covariate_noise import SignalTeacher as SignalTeacher
from armillary.tasks.covariate_noise import WideCovariateNoise as WideCovariateNoise
from armillary.tasks.data import Data as Data
from armillary.tasks.data import Population as Population
from armillary.tasks.data import Samples as Samples
from armillary.tasks.data import Task as Task
from armillary.tasks.data import problem_key as problem_key
from armillary.tasks.digits import Digits as Digits
from armillary.tasks.eigenfeatures import Eigenfeatures as Eigenfeatures
from armillary.tasks.files import ImageFiles as ImageFiles
from armillary.tasks.files import read_cifar10 as read_cifar10
from armillary.tasks.files import read_idx as read_idx
from armillary.tasks.given import GivenSamples as GivenSamples
from armillary.tasks.hierarchical import hierarchical as hierarchical
from armillary.tasks.latent import ContrastivePairs as ContrastivePairs
from armillary.tasks.latent import FactorModel as FactorModel
from armillary.tasks.latent import GaussianMixture as GaussianMixture
from armillary.tasks.latent import GaussianPopulation as GaussianPopulation
from armillary.tasks.latent import LatentData as LatentData
from armillary.tasks.latent import LatentTeacher as LatentTeacher
from armillary.tasks.latent import Pairs as Pairs
from armillary.tasks.linear import Correlations as Correlations
from armillary.tasks.linear import LinearTeacher as LinearTeacher
from armillary.tasks.on_sphere import OnSphere as OnSphere
from armillary.tasks.patches import FeaturePatches as FeaturePatches
from armillary.tasks.quadratic import QuadraticPopulation as QuadraticPopulation
from armillary.tasks.quadratic import QuadraticTeacher as QuadraticTeacher
from armillary.tasks.regression import FixedDesign as FixedDesign
from armillary.tasks.regression import conditioned_design as conditioned_design
from armillary.tasks.sensing import MatrixPopulation as MatrixPopulation
from armillary.tasks.sensing import MatrixSensing as MatrixSensing
from armillary.tasks.sequences import DigitRows as DigitRows
from armillary.tasks.sequences import DigitSequences as DigitSequences
from armillary.tasks.sequences import FilteredNoise as FilteredNoise
from armillary.tasks.shuffled import ShuffledLabels as ShuffledLabels
from armillary.tasks.shuffled import ShuffledPixels as ShuffledPixels
from armillary.tasks.single_index import QuadraticSingleIndex as QuadraticSingleIndex
from armillary.tasks.single_index import SingleIndexPopulation as SingleIndexPopulation
from armillary.tasks.sparse import SparseRegression as SparseRegression
from armillary.tasks.sphere import ArcRegions as ArcRegions
from armillary.tasks.sphere import DirichletClasses as DirichletClasses
from armillary.tasks.spiked import NoisyQuadratic as NoisyQuadratic
from armillary.tasks.spiked import QuadraticForm as QuadraticForm
from armillary.tasks.teacher import NetworkTeacher as NetworkTeacher
from armillary.tasks.trials import DecisionTrials as DecisionTrials
from armillary.tasks.whiten import whitened as whitened

__all__ = [
    "ArcRegions",
    "ContrastivePairs",
    "Correlations",
    "CovariateNoise",
    "Data",
    "DecisionTrials",
    "DigitRows",
    "DigitSequences",
    "Digits",
    "DirichletClasses",
    "Eigenfeatures",
    "FactorModel",
    "FeaturePatches",
    "FilteredNoise",
    "FixedDesign",
    "GaussianClasses",
    "GaussianClusters",
    "GaussianMixture",
    "GaussianPopulation",
    "GivenSamples",
    "ImageFiles",
    "LatentData",
    "LatentTeacher",
    "LinearTeacher",
    "MatrixPopulation",
    "MatrixSensing",
    "NetworkTeacher",
    "NoisyQuadratic",
    "OnSphere",
    "Pairs",
    "Population",
    "QuadraticForm",
    "QuadraticPopulation",
    "QuadraticSingleIndex",
    "QuadraticTeacher",
    "RandomLift",
    "Samples",
    "ShuffledLabels",
    "ShuffledPixels",
    "SignalTeacher",
    "SingleIndexPopulation",
    "SparseRegression",
    "Task",
    "WideCovariateNoise",
    "conditioned_design",
    "hierarchical",
    "nearest_centre",
    "problem_key",
    "read_cifar10",
    "read_idx",
    "whitened",
]  # fmt: skip
