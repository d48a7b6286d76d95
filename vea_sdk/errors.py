"""Every error this package raises on purpose. Catch ``VeaError`` to catch them all.

Each message names the offending value and the remedy. Errors about arguments are also ``ValueError``, so that
callers who know nothing of this package still handle them.
"""

from __future__ import annotations


class VeaError(Exception):
    """Base of all errors of this package."""


class InvalidInputError(VeaError, ValueError):
    """An argument (number, shape, dtype, option) that cannot be used as given."""


class ImageError(InvalidInputError):
    """A picture that cannot be used: empty, too large, or of an unsupported kind."""


class CheckpointError(InvalidInputError):
    """A checkpoint folder or hub name from which no model can be loaded."""


class LayerError(InvalidInputError):
    """A layer selection that names no layer, one out of range, or one without softmax attention."""


class WordIndexError(InvalidInputError, IndexError):
    """The number of a word that an answer does not have."""


class UnsupportedModelError(VeaError):
    """An architecture that no adapter serves, or that has nothing to capture."""


class ImageTokenError(VeaError, ValueError):
    """The prompt holds no image tokens, or their number contradicts the geometry."""


class NoImageError(ImageTokenError):
    """The prompt shows no picture: text alone, which is no fault."""


class GeometryError(ImageTokenError):
    """Image tokens that cannot be laid out on the picture."""


class CaptureError(VeaError, RuntimeError):
    """A capture that could not be read, or whose result was asked for before anything ran."""


class NaNAttentionError(CaptureError):
    """The captured attention holds NaN; it is reported, never replaced by zeros."""


class NativeExtensionError(VeaError, RuntimeError):
    """The compiled extension is absent, or refused a call."""


class UnverifiedModelWarning(UserWarning):
    """An architecture that this release was not tested on; it is served from what its configuration says."""
