"""What a prompt was fed, kept for whoever lays its pictures out, also where it came in several passes or turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from vea_sdk.errors import CaptureError

Part = Literal["new", "next", "same"]
"""A prompt; what continues one in its cache; another chunk of what was already told whole."""


class FedPrompt:
    """The tensors and lists that a prompt was fed, by name.

    Ids, masks and floats of later parts follow those of the earlier ones: what has a place for each token along the
    tokens, the rest (pixels, sizes of pictures) along the pictures.
    """

    def __init__(self) -> None:
        self._inputs: dict[str, Any] = {}
        self._problem: str | None = None

    @property
    def inputs(self) -> Mapping[str, Any]:
        """By name. Raises CaptureError where the parts cannot be put together."""
        if self._problem is not None:
            raise CaptureError(self._problem)
        return self._inputs

    def take(self, inputs: Mapping[str, Any], part: Part, whole_ids: bool) -> None:
        """Take in the named arguments of a pass, or of the ``generate()`` that it belongs to.

        Args:
            inputs: the arguments; what is neither a tensor nor a list is left out.
            part: what they are.
            whole_ids: whether ids and masks of a ``"next"`` part are those of the whole prompt, cached tokens included.
        """
        if part == "same":
            return
        given = {name: _kept(value) for name, value in inputs.items() if isinstance(value, Tensor | list)}
        if part == "new":
            self._inputs, self._problem = given, None
            return
        ids = given.get("input_ids")
        for name, value in given.items():
            of_tokens = isinstance(value, Tensor) and isinstance(ids, Tensor) and value.shape[:2] == ids.shape
            before = self._inputs.get(name)
            if before is None or (of_tokens and whole_ids) or name == "attention_mask":
                self._inputs[name] = value
            elif isinstance(value, list) or isinstance(before, list):
                self._inputs[name] = [*before, *value]
            elif value.dim() != before.dim() or value.dim() == 0:
                self._inputs[name] = value
            else:
                self._inputs[name] = _joined(before, value, dim=1 if of_tokens else 0)
        if isinstance(ids, Tensor) and len(ids) > 1 and any(value.is_floating_point() for value in _tensors(given)):
            self._problem = (
                f"the pictures of {len(ids)} prompts came in several turns, so which belongs to which is not known. "
                "Feed the conversations one by one, or each batch with all its turns at once."
            )


def _tensors(given: Mapping[str, Any]) -> list[Tensor]:
    return [value for value in given.values() if isinstance(value, Tensor)]


def _kept(value: Any) -> Any:
    """Whole numbers are copied, for callers reuse their buffers; of pixels, which are large, only the shape is read."""
    return value if isinstance(value, list) or value.is_floating_point() else value.detach().clone()


def _joined(before: Tensor, after: Tensor, dim: int) -> Tensor:
    """Both, one after the other, the shorter sides filled with zeros."""
    sides = [max(pair) for pair in zip(before.shape, after.shape, strict=True)]
    filled = []
    for part in (before, after.to(before.device, before.dtype)):
        missing = [0 if at == dim else side - own for at, (side, own) in enumerate(zip(sides, part.shape, strict=True))]
        filled.append(pad(part, [n for side in reversed(missing) for n in (0, side)]))
    return torch.cat(filled, dim=dim)
