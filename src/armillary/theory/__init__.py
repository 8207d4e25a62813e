"""Theories: closed forms and equations of learning, each with the assumptions under which it holds."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
