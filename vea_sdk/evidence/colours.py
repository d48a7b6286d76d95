"""The colour table of heat maps."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

# From a cool blue to a hot orange, straight lines between. Red + green + blue is about 380, half of white, in each: so
# every colour stands as far from black as from white, and heat shows as much on a dark picture as on a page.
_ANCHORS = ((58, 92, 230), (132, 48, 200), (206, 32, 142), (246, 66, 68), (255, 104, 22))


@cache
def heat() -> NDArray[np.float32]:
    """[256, 3] red, green, blue from 0 to 255, cool to hot."""
    anchors = np.array(_ANCHORS, np.float32)
    places = np.linspace(0, 255, len(anchors))
    table = np.stack([np.interp(np.arange(256), places, anchors[:, c]) for c in range(3)], axis=1).astype(np.float32)
    table.setflags(write=False)
    return table
