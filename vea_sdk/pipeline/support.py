"""Whether the evidence of an answer is used: what the model would say without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vea_sdk.adapters.geometry import Box
from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence import Evidence
from vea_sdk.pipeline.conversation import one_turn
from vea_sdk.pipeline.generation import Generation

if TYPE_CHECKING:
    from vea_sdk.pipeline.answer import Answer
    from vea_sdk.pipeline.vlm import VLM

DRAWS = 5
"""How often other patches are drawn."""


@dataclass(frozen=True)
class Support:
    """log p(answer | picture) − log p(answer | picture with patches painted over).

    ``difference``: of the k patches of the highest scores; positive: the answer leans on them. ``random``: the mean of
    as many other patches, drawn five times. ``k``: how many.
    """

    difference: float
    random: float
    k: int

    @property
    def margin(self) -> float:
        """By how much more the answer leans on its evidence than on other patches."""
        return self.difference - self.random


def patches_of(evidence: Evidence, k: int, seed: int) -> list[list[Box]]:
    """The k patches of the highest scores, then five draws of k patches that share no pixel with them.

    Raises InvalidInputError where k is none, or there are not enough other patches.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise InvalidInputError(f"k={k!r} must be a whole number of at least 1.")
    best = evidence.top_patches(k)
    grid = evidence.layout.finest
    boxes = evidence.layout.visible_boxes()[grid.token_index.ravel()]
    others = boxes[(boxes[:, 2] > boxes[:, 0]) & ~_touched(boxes, np.array(best))]
    if len(others) < k:
        raise InvalidInputError(f"k={k}: only {len(others)} patches lie apart from these. Give a smaller k.")
    rng = np.random.default_rng(seed)
    drawn = [others[rng.choice(len(others), k, replace=False)] for _ in range(DRAWS)]
    return [best, *([(x0, y0, x1, y1) for x0, y0, x1, y1 in part.tolist()] for part in drawn)]


def painted(image: Image.Image, boxes: list[Box]) -> Image.Image:
    """The picture with boxes painted over in its mean colour."""
    mean = np.asarray(image, np.float64).reshape(-1, 3).mean(0).round().astype(int)
    found = image.copy()
    pen = ImageDraw.Draw(found)
    for x0, y0, x1, y1 in boxes:
        pen.rectangle((round(x0), round(y0), max(round(x0), round(x1) - 1), max(round(y0), round(y1) - 1)), tuple(mean))
    return found


def support(vlm: VLM, answer: Answer[Any], k: int, seed: int) -> Support:
    """Whether an answer leans on its evidence: Δ = log p(answer | picture) − log p(answer | picture with its top-k
    patches painted with the mean colour), beside the mean of five seeded draws of k patches apart from them.

    All are teacher-forced in one batch, under the prompt of the first question. Of several pictures, k patches of each
    are painted at once.

    Raises InvalidInputError where the answer has no tokens or evidence, its model gives no logits, or k cannot be.
    """
    found = answer.evidence if isinstance(answer.evidence, list) else [answer.evidence]
    if not found or not all(isinstance(one, Evidence) for one in found):
        raise InvalidInputError("support needs the evidence of pictures, and this answer has none.")
    if not answer.tokens:
        raise InvalidInputError("support needs the answer's tokens, and this one was stored without them. Ask anew.")
    tokens = torch.tensor(answer.tokens)
    generation = Generation(vlm.model, {}, len(tokens))
    reason = generation.why_no_certainty(2 + DRAWS)
    if reason is not None:
        raise InvalidInputError(f"support needs the logits of generate(): {reason}.")
    if answer.asked is not None:
        plain = answer.asked.plain(vlm.prompts)
        shown = answer.asked.conversation.shown
    else:
        plain = one_turn([one.image for one in found], answer.baseline_prompt)
        shown = tuple(range(len(found)))
    of_each = [patches_of(found[number], k, seed) for number in shown]
    rows = [plain]
    for draw in range(1 + DRAWS):
        media = plain.media
        for number, patches in zip(shown, of_each, strict=True):
            media[number] = painted(found[number].image, patches[draw])
        rows.append(plain.showing(media))
    log_p: list[float] = []
    for batch in vlm.batches(rows):
        inputs = vlm.inputs(batch)
        said = generation.run(vlm.processor, inputs, vlm.prompt_length(inputs), forced=tokens)
        log_p += [float(one.log_probabilities.sum()) for one in said if one.log_probabilities is not None]
    differences: NDArray[np.float64] = log_p[0] - np.array(log_p[1:])
    return Support(float(differences[0]), float(differences[1:].mean()), k)


def _touched(boxes: NDArray[np.float64], best: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the boxes share a pixel with one of the best."""
    apart = (
        (boxes[:, None, 2] <= best[None, :, 0])
        | (best[None, :, 2] <= boxes[:, None, 0])
        | (boxes[:, None, 3] <= best[None, :, 1])
        | (best[None, :, 3] <= boxes[:, None, 1])
    )
    return np.asarray(~apart.all(1))
