"""Finding the image tokens of a prompt without waiting for the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vea_sdk.adapters import Adapter
from vea_sdk.adapters.base import marked_positions
from vea_sdk.capture.prompt import PromptTracker


class UnreadPrompt(PromptTracker):
    """On a GPU their number is not read, which would make the host wait in the middle of a request: there are as many
    places as tokens, and the host learns from the record how many were used. Adapters that find image tokens in a way
    of their own, and prompts of more than ``width`` tokens, are read as in a session."""

    def __init__(self, adapter: Adapter, width: int) -> None:
        super().__init__(adapter, None)
        self._width = width
        kind = type(adapter)
        self._usual = not adapter.cross_attention and all(
            getattr(kind, name) is getattr(Adapter, name)
            for name in ("prompt_positions", "image_positions", "is_visual")
        )

    def _positions(self, fed: Mapping[str, Any]) -> Tensor:
        ids = fed.get("input_ids")
        first = self.image_index is None
        if self._usual and first and isinstance(ids, Tensor) and self.waits(ids) and ids.shape[1] <= self._width:
            return marked_positions(self._adapter.is_visual(ids), ids.shape[1])
        return super()._positions(fed)

    @staticmethod
    def waits(ids: Tensor) -> bool:
        """Whether the host would wait to read them."""
        return ids.is_cuda
