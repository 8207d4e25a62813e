"""What is learned: tasks draw data and know their population statistics where they have any."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
