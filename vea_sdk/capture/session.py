"""The capture session: open it, run the model, read the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

from vea_sdk import adapters
from vea_sdk.adapters import Adapter
from vea_sdk.capture.layers import LayerSelection, resolve_layers
from vea_sdk.capture.prompt import ImagePositions, PromptTracker
from vea_sdk.capture.recorder import Recorder
from vea_sdk.capture.stats import Stats, row_stats
from vea_sdk.capture.tensor_parallel import ranks_of
from vea_sdk.capture.watch import Queries, StopForward, Watch
from vea_sdk.errors import CaptureError, InvalidInputError, UnsupportedModelError

if TYPE_CHECKING:
    from vea_sdk.capture.words import Word
    from vea_sdk.evidence import Evidence


class Prompted(NamedTuple):
    """``inputs``: by name, what the prompt was fed; ``beams``: how many ``generate()`` follows."""

    adapter: Adapter
    inputs: Mapping[str, Any]
    beams: int


class Session:
    """Captures head-averaged image attention from a model that runs inside it. Open it with :func:`capture`.

    Every prompt fed to the model starts anew: the results describe the latest prompt and what was generated from it.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: LayerSelection,
        queries: Queries,
        top_k: int | None,
        image_positions: ImagePositions | None,
        adapter: Adapter,
        stop_early: bool = False,
        per_head: bool = False,
    ) -> None:
        if queries not in get_args(Queries):
            raise InvalidInputError(f'queries={queries!r} is unknown. Choose "last", "generated" or "all".')
        if top_k is not None and top_k < 0:
            raise InvalidInputError(f"top_k={top_k} is negative. Give the number of patches to mark, or None.")
        self.layers: tuple[int, ...] = resolve_layers(layers, adapter)
        self.queries: Queries = queries
        self._prompt = PromptTracker(adapter, image_positions)
        ranks = ranks_of(adapter.model)
        if per_head and ranks is not None:
            raise CaptureError(
                "per_head=True under tensor parallelism would keep this process's heads only. Leave it out."
            )
        self.per_head = per_head
        self._adapter = adapter
        self._recorder = Recorder(self.layers, top_k, ranks, per_head)
        # generate() of a PEFT model calls the model inside, so that is the one to watch.
        self._watch = Watch(adapter.model, adapter, self.layers, queries, self._prompt, self._recorder, stop_early)

    def __enter__(self) -> Session:
        self._watch.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._watch.close()
        return kind is StopForward

    @property
    def attention(self) -> Tensor:
        """The mean over query heads of each head's softmax probability: [layers, batch, queries, image tokens].

        float32, on the device of the first selected layer. Absent tokens (padding of the image axis) hold 0, and so
        do image keys that have left a sliding window. A row is not renormalised over the image. NaN stays NaN.

        Raises:
            ImageTokenError: when the prompt held no image tokens.
            CaptureError: when no pass ran inside the session.
        """
        self._require_rows()
        return self._recorder.scores()

    @property
    def topk(self) -> Tensor:
        """Mask of the ``top_k`` highest image tokens per row, bool, same shape as :attr:`attention`."""
        if self._recorder.top_k is None:
            raise CaptureError("no top-k mask was kept; open the session with top_k=.")
        self._require_rows()
        return self._recorder.masks()

    @property
    def heads(self) -> Tensor:
        """Each head's softmax probability: [layers, heads, batch, queries, image tokens], as :attr:`attention`.

        Raises:
            CaptureError: heads were not kept, or the layers have different numbers of them.
        """
        if not self.per_head:
            raise CaptureError("heads were not kept; open the session with per_head=True.")
        self._require_rows()
        return self._recorder.heads()

    def evidence(
        self,
        images: Any,
        processor: Any,
        query: int | Sequence[int] = 0,
        row: int = 0,
        *,
        question: str | None = None,
        lam: float = 10.0,
        sigma: float = 0.5,
        alpha: float = 0.5,
    ) -> Evidence | list[Evidence]:
        """Where the model looked, from a captured row, or from the mean of several.

        Args:
            images: what the prompt showed: a picture, or a sequence of them; for a batch of prompts a sequence with one
                such item for each. Anything that :func:`vea_sdk.evidence.load_image` takes.
            processor: the one that made the inputs.
            query: which row (with ``queries="all"``, row j decides token j of the answer), or several, such as
                ``word.rows``.
            row: which sequence of the batch.
            question, lam, sigma, alpha: fields of the evidence.

        Returns:
            One Evidence for a single picture, else one for each.

        Raises:
            InvalidInputError: there is no such row or sequence, or the images are not those of the batch.
            GeometryError: the images do not account for the prompt's image tokens.
            CaptureError: nothing was captured, or what was fed is not known.
        """
        from vea_sdk.capture.evidence import of_session

        return of_session(self, images, processor, query, row, question=question, lam=lam, sigma=sigma, alpha=alpha)

    def words(
        self, ids: Any, tokenizer: Any, row: int = 0, *, images: Any = None, processor: Any = None
    ) -> list[Word[Any]]:
        """The words of an answer, each with the rows of the session that decided it.

        Args:
            ids: what ``generate()`` returned, [batch, tokens] or [tokens], with the prompt or without.
            tokenizer: the model's tokenizer, or a processor that holds one.
            row: which sequence of the batch.
            images, processor: as for :meth:`evidence`; with them, every word has its ``evidence``.

        Raises:
            CaptureError: the rows do not belong to words: a session without ``queries="all"`` or "generated", beam
                search.
            InvalidInputError: the ids are not those of the session.
        """
        from vea_sdk.capture.words import of_session

        return of_session(self, ids, tokenizer, row, images, processor)

    @property
    def image_index(self) -> Tensor:
        """Key positions of the image tokens in the prompt, [batch, image tokens] int64, -1 for none."""
        self._require_rows()
        assert self._prompt.image_index is not None
        return self._prompt.image_index

    @property
    def stats(self) -> Stats:
        """Image mass, peak, entropy and RAPT of every row, each [layers, batch, queries]."""
        self._require_rows()
        figures = self._recorder.stats()
        assert self._prompt.valid_tokens is not None
        beyond = torch.tensor(self._recorder.generated, device=figures.device)
        visible = self._prompt.valid_tokens.to(figures.device)[:, None] + beyond[None]
        tokens = (self.image_index >= 0).sum(1).to(figures.device)
        return row_stats(figures, tokens, visible, self._prompt.cross_attention)

    @property
    def prompt(self) -> Prompted:
        """What the rows are about: the inputs of the prompt, and what is known of the model.

        Raises CaptureError when no pass ran inside the session.
        """
        self._require_rows()
        return Prompted(self._adapter, self._watch.fed_prompt.inputs, self._watch.beams)

    def _require_rows(self) -> None:
        if self._prompt.missing is not None:
            raise self._prompt.missing
        if self._prompt.image_index is None:
            raise CaptureError(
                "nothing was captured: the model did not run inside this session. A session belongs to the thread "
                "that opened it; open it in the thread that calls the model."
            )
        if not self._recorder.complete():
            raise CaptureError(
                f'no row was captured for queries="{self.queries}": the prompt ran, but '
                + ("no generated token was fed back." if self.queries == "generated" else "not every layer did.")
            )


def capture(
    model: nn.Module,
    layers: LayerSelection = "profiled",
    queries: Queries = "last",
    top_k: int | None = None,
    image_positions: ImagePositions | None = None,
    adapter: Adapter | type[Adapter] | None = None,
    per_head: bool = False,
) -> Session:
    """Capture a(l)[t] = mean_h softmax(q·k)[t] of one query token over the image tokens while the model runs.

    Source: step 1 of "Seeing but Not Believing" (arXiv 2510.17771). The model's own attention (SDPA, flash) goes on
    running; one extra row per selected layer is computed from the same query and keys.

        with vea.capture(model, layers=[18, 22, 24]) as session:
            model.generate(**inputs)
        session.attention  # [layers, batch, queries, image tokens]

    Frames of videos are seen as pictures are: their tokens are image tokens, too, in the order of the prompt.

    Args:
        model: any VLM; Transformers' are known by their ``config.model_type``.
        layers: list of numbers, ``"all"``, a depth span ``(0.5, 1.0)``, or ``"profiled"``.
        queries: ``"last"`` prompt token, each ``"generated"`` token that is fed back, or ``"all"``, the prompt's first.
        top_k: also keep a mask of the k highest image tokens per row.
        image_positions: key positions of the image tokens, [batch, M] (-1 = none) or a bool mask, for callers with
            ``inputs_embeds`` and for models whose ids do not show them.
        adapter: an adapter (or its class) instead of the registered one.
        per_head: also keep every head by itself, in ``session.heads``.

    Raises:
        UnsupportedModelError: when no adapter serves the model.
        LayerError: when ``layers`` cannot be resolved.
    """
    known = adapter_for(model, adapter, image_positions)
    return Session(model, layers, queries, top_k, image_positions, known, per_head=per_head)


def adapter_for(
    model: nn.Module, adapter: Adapter | type[Adapter] | None, image_positions: ImagePositions | None
) -> Adapter:
    if isinstance(adapter, type):
        return adapter(model)
    if adapter is not None:
        return adapter
    try:
        return adapters.find(model)
    except UnsupportedModelError:
        if image_positions is None:
            raise
        return Adapter(model)  # positions are given, so only the attention modules have to be found


def can_stop_early(model: nn.Module) -> bool:
    """Whether a pass may be cut short: not where weights are moved in and out around each module."""
    return not any(getattr(getattr(module, "_hf_hook", None), "offload", False) for module in model.modules())
