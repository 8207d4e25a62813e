"""Curvature operators of a network's loss, and what can be asked of them."""

from armillary.curvature.density import Estimate as Estimate
from armillary.curvature.density import Quadrature as Quadrature
from armillary.curvature.density import dense as dense
from armillary.curvature.density import quadrature as quadrature
from armillary.curvature.density import squared_norm as squared_norm
from armillary.curvature.density import trace as trace
from armillary.curvature.eigen import Eigenpairs as Eigenpairs
from armillary.curvature.eigen import eigenpairs as eigenpairs
from armillary.curvature.operators import Operator as Operator
from armillary.curvature.operators import gauss_newton as gauss_newton
from armillary.curvature.operators import gradient_covariance as gradient_covariance
from armillary.curvature.operators import hessian as hessian

__all__ = [
    "Eigenpairs",
    "Estimate",
    "Operator",
    "Quadrature",
    "dense",
    "eigenpairs",
    "gauss_newton",
    "gradient_covariance",
    "hessian",
    "quadrature",
    "squared_norm",
    "trace",
]
