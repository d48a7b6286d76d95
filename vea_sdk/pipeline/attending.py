"""A pass of the prompt that is only as deep as the layers need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from vea_sdk.adapters import Adapter
from vea_sdk.capture import Session, can_stop_early


def look(
    model: nn.Module, adapter: Adapter, inputs: Mapping[str, Any], layers: Sequence[int], heads: bool = False
) -> Session:
    """One look: the row of the last prompt token in every layer."""
    session = Session(model, layers, "last", None, None, adapter, stop_early=can_stop_early(model), per_head=heads)
    with torch.no_grad(), session:
        model(**inputs, use_cache=False)
    return session
