"""Curvature operators of a network's loss, and what can be asked of them."""

from armillary.curvature.density import Estimate as Estimate
from armillary.curvature.density import Quadrature as Quadrature
from armillary.curvature.density import dense as dense
from armillary.curvature.density import quadrature as quadrature
from armillary.curvature.density import squared_norm as squared_norm
from armillary.curvature.density import trace as trace
from armillary.curvature.eigen import Eigenpairs as Eigenpairs
from armillary.curvature.eigen import eigenpairs as eigenpairs
from armillary.curvature.layers import LayerFactors as LayerFactors
from armillary.curvature.layers import LayerNorms as LayerNorms
from armillary.curvature.layers import layer_factors as layer_factors
from armillary.curvature.layers import layer_norms as layer_norms
from armillary.curvature.operators import Operator as Operator
from armillary.curvature.operators import gauss_newton as gauss_newton
from armillary.curvature.operators import gradient_covariance as gradient_covariance
from armillary.curvature.operators import hessian as hessian
from armillary.curvature.spectrum import count_above_bulk as count_above_bulk
from armillary.curvature.spectrum import gap_after as gap_after
from armillary.curvature.spectrum import gap_count as gap_count
from armillary.curvature.spectrum import log_gaps as log_gaps
from armillary.curvature.spectrum import negative_mass as negative_mass
from armillary.curvature.spectrum import zero_fraction as zero_fraction
from armillary.curvature.symmetry import live_units as live_units
from armillary.curvature.symmetry import rescaling_directions as rescaling_directions
from armillary.curvature.symmetry import rescaling_signs as rescaling_signs

__all__ = [
    "Eigenpairs",
    "Estimate",
    "LayerFactors",
    "LayerNorms",
    "Operator",
    "Quadrature",
    "count_above_bulk",
    "dense",
    "eigenpairs",
    "gap_after",
    "gap_count",
    "gauss_newton",
    "gradient_covariance",
    "hessian",
    "layer_factors",
    "layer_norms",
    "live_units",
    "log_gaps",
    "negative_mass",
    "quadrature",
    "rescaling_directions",
    "rescaling_signs",
    "squared_norm",
    "trace",
    "zero_fraction",
]
