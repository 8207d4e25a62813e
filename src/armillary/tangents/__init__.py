"""Tangent kernels of finite networks as they are, by the structure of their layers."""

from armillary.tangents.empirical import empirical_kernel as empirical_kernel
from armillary.tangents.empirical import traced_kernel as traced_kernel
from armillary.tangents.listening import layers_of as layers_of

__all__ = ["empirical_kernel", "layers_of", "traced_kernel"]
