"""What a captured pass says about each picture of each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from vea_sdk.adapters import Adapter, ImageLayout
from vea_sdk.capture import Session, can_stop_early
from vea_sdk.evidence import Evidence

FIGURES = ("image_mass", "peak", "entropy", "mean", "rapt_image", "rapt_text")
"""Fields of ``Session.stats`` that ``Evidence.stats`` holds, [layers] each, over all pictures of the prompt."""


def session_on(model: nn.Module, adapter: Adapter, layers: Sequence[int], stop_early: bool = False) -> Session:
    """A session for the last prompt token."""
    return Session(model, layers, "last", None, None, adapter, stop_early=stop_early)


def look(model: nn.Module, adapter: Adapter, inputs: Mapping[str, Any], layers: Sequence[int]) -> Session:
    """One pass of the prompt, only as deep as the layers need it."""
    with torch.no_grad(), session_on(model, adapter, layers, stop_early=can_stop_early(model)) as session:
        model(**inputs, use_cache=False)
    return session


def evidence_of(
    session: Session,
    layouts: Sequence[ImageLayout],
    pictures: Sequence[Sequence[Image.Image]],
    questions: Sequence[str],
    **shown: float,
) -> list[list[Evidence]]:
    """For every row of the batch, one Evidence per picture; ``shown``: its λ, σ and α."""
    attention = session.attention[:, :, 0].cpu().numpy()  # [layers, batch, image tokens]
    figures = _figures(session)
    remaining = iter(layouts)
    evidence = []
    for number, (row, question) in enumerate(zip(pictures, questions, strict=True)):
        first, found = 0, []
        stats = {name: part[:, number] for name, part in figures.items() if not np.isnan(part[:, number]).any()}
        for picture in row:
            layout = next(remaining)
            part = attention[:, number, first : first + layout.n_tokens]
            first += layout.n_tokens
            scores = part.mean(0)
            found.append(Evidence(picture, question, scores, layout, session.layers, part, stats=dict(stats), **shown))
        evidence.append(found)
    return evidence


def _figures(session: Session) -> dict[str, NDArray[np.float32]]:
    """[layers, batch] each, in one copy from the device."""
    stats = session.stats
    values = torch.stack([getattr(stats, name)[:, :, 0] for name in FIGURES]).cpu().numpy()
    return dict(zip(FIGURES, values, strict=True))
