"""Networks and the recipes that draw them. Any equinox module is welcome beside these."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
