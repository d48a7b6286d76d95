"""What is kept of one sampled request: a few figures, no picture and no text unless asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from vea_sdk.adapters.geometry import Box
from vea_sdk.errors import InvalidInputError
from vea_sdk.monitor.plain import reader, short

SCHEMA = 1
"""Version of the fields below; a field that changes its meaning raises it."""
_YEAR_10000 = 253_402_300_800  # no calendar of the standard library goes on there


@dataclass(frozen=True)
class Figures:
    """One attention row in four figures and its share per token; None where it is undefined (no mass, NaN).

    ``image_mass`` = Σ ā over the image tokens; ``entropy`` (nats) and ``peak`` of the row renormalised over the image;
    ``rapt_*`` = mean ā over the section / mean ā over the whole prompt.
    """

    image_mass: float | None
    entropy: float | None
    peak: float | None
    rapt_image: float | None
    rapt_text: float | None


@dataclass(frozen=True)
class LayerFigures(Figures):
    """The figures of one layer, of the last prompt token's row."""

    layer: int


@dataclass(frozen=True)
class Patch:
    """One of the highest image tokens of the layers' mean row."""

    token: int  # counted over the image tokens of the prompt
    score: float
    image: int | None = None  # which picture, when geometry is known
    box: Box | None = None  # in pixels of the original picture, when geometry is known


@dataclass(frozen=True)
class Record:
    """One sampled request.

    ``agreement`` is the mean, over pairs of layers, of the cosine of their rows at the image tokens. ``spikes`` counts
    isolated outliers of Eq. 2 on the patch grid, ``border_share`` is the share of image mass on border patches; both
    are None when geometry is unknown. ``trace`` is the image mass, mean of the layers, of the generated tokens'
    rows: first, mean, last. ``timings`` are seconds. ``dropped`` marks a request that was sampled but whose figures
    did not fit into the ring: all its figures are None.

    ``certainty`` is c = exp(Σ log softmax(raw logits, float32)[token]) over the n tokens of the answer, its end token
    included, and ``certainty_per_token`` is c^(1/n). Both are None where the passes of ``generate()`` do not tell them:
    with beams, with drafted tokens, in a loop of your own, in steps that ``generate()`` compiles, for a request that
    did not end by itself. Nothing is known here of what was said: a refusal may be certain, and an answer that was cut
    at ``max_new_tokens`` has the certainty of what there is of it.

    Entropy, peak and image mass are signals of health and of drift, not a score of hallucination. Whether an answer is
    right, certainty tells better (AUROC 0.87 on the embedded model, where entropy has 0.74, peak 0.65 and image mass
    0.64), and adding figures of attention to it gains nothing. See docs/monitoring.md.
    """

    request: str
    time: float  # seconds since the epoch, when the request ended
    model: str
    adapter: str
    layers: tuple[int, ...]
    images: int | None
    image_tokens: int
    prompt_tokens: int
    generated_tokens: int
    mean: Figures  # of the mean row of the layers
    per_layer: tuple[LayerFigures, ...]
    agreement: float | None = None
    top_patches: tuple[Patch, ...] = ()
    spikes: int | None = None
    border_share: float | None = None
    nan: int = 0  # NaN image scores, over layers
    trace: tuple[float | None, float | None, float | None] | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    dropped: bool = False
    finished: str = "ended"  # or "failed": the request raised; "cut": close() came before its end
    unread: str | None = None  # why there are no figures, or no trace
    certainty: float | None = None  # c of the answer
    certainty_per_token: float | None = None  # c^(1/n)
    rows: tuple[tuple[float | None, ...], ...] | None = None  # [layers][image tokens], only with rows=True
    content: Mapping[str, Any] | None = None  # only with content=True
    schema: int = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; NaN never occurs, None stands for what is undefined."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Record:
        """The record of a dictionary that :meth:`to_dict` made, also after a trip through JSON.

        Raises:
            InvalidInputError: for another schema, missing fields, or values that are none of theirs; names the first.
        """
        if (schema := fields.get("schema")) != SCHEMA:
            raise InvalidInputError(f"a record of schema {short(schema)} cannot be read; known: {SCHEMA}.")
        record: Record = reader(cast("Any", cls))(fields, "record")
        if not 0 <= record.time < _YEAR_10000:
            raise InvalidInputError(f"record.time is {record.time:g}, no second from 1970 to 9999.")
        return record
