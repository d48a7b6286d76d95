"""Which release this is; a module of its own, so that any layer may say so."""

__version__ = "0.1.0"
