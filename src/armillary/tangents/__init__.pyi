"""Tangent kernels of finite networks as they are, by the structure of their layers."""

from .empirical import empirical_kernel as empirical_kernel
from .empirical import traced_kernel as traced_kernel
from .listening import layers_of as layers_of
