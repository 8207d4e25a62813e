"""Instruments: pure functions of a snapshot, on a network inside `simulate` or on a user's own."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
