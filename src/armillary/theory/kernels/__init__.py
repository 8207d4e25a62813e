"""Infinitely wide networks: their covariance at the start (NNGP) and their tangent kernel, layer by layer."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
