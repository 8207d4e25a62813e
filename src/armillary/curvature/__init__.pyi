"""Curvature operators of a network's loss, and what can be asked of them."""

from .density import Estimate as Estimate
from .density import Quadrature as Quadrature
from .density import dense as dense
from .density import quadrature as quadrature
from .density import squared_norm as squared_norm
from .density import trace as trace
from .eigen import Eigenpairs as Eigenpairs
from .eigen import eigenpairs as eigenpairs
from .layers import LayerFactors as LayerFactors
from .layers import LayerNorms as LayerNorms
from .layers import layer_factors as layer_factors
from .layers import layer_norms as layer_norms
from .operators import Operator as Operator
from .operators import gauss_newton as gauss_newton
from .operators import gradient_covariance as gradient_covariance
from .operators import hessian as hessian
from .spectrum import count_above_bulk as count_above_bulk
from .spectrum import gap_after as gap_after
from .spectrum import gap_count as gap_count
from .spectrum import log_gaps as log_gaps
from .spectrum import negative_mass as negative_mass
from .spectrum import zero_fraction as zero_fraction
from .symmetry import live_units as live_units
from .symmetry import rescaling_directions as rescaling_directions
from .symmetry import rescaling_signs as rescaling_signs
