"""A model that is asked, and asked where it looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, TypedDict, TypeVar, get_args, get_type_hints, overload

from torch import nn
from transformers import PreTrainedTokenizerBase
from typing_extensions import Unpack

from vea_sdk import adapters, profiles
from vea_sdk.adapters import Adapter
from vea_sdk.adapters.modules import without_parallel
from vea_sdk.capture.evidence import Rows
from vea_sdk.capture.layers import LayerSelection, resolve_layers
from vea_sdk.errors import InvalidInputError, UnsupportedModelError
from vea_sdk.evidence import Evidence
from vea_sdk.evidence.constants import Constants
from vea_sdk.evidence.images import MAX_PIXELS, ImageSource, is_single, load_image
from vea_sdk.evidence.video import VideoEvidence
from vea_sdk.evidence.videos import VideoSource, load_video
from vea_sdk.pipeline.answer import Answer
from vea_sdk.pipeline.asking import Asking, HighlightOn
from vea_sdk.pipeline.attending import look
from vea_sdk.pipeline.conversation import Asked, Conversation, Message, from_messages, one_turn
from vea_sdk.pipeline.generation import Generated, Generation
from vea_sdk.pipeline.inputs import Images, check_placeholders, load_pictures, model_inputs, one_each
from vea_sdk.pipeline.media import Found, Medium, Placed, evidence_of_row, place
from vea_sdk.pipeline.refusals import Refusals
from vea_sdk.pipeline.support import Support, support
from vea_sdk.pipeline.ways import ChooseBy, MinCertainty, Mode, RankBy, Show, Way, given
from vea_sdk.prompts import HIGHLIGHT_PROMPT, PLAIN_PROMPT, Prompts, check_question
from vea_sdk.views import Views

T = TypeVar("T")


class AskedOtherwise(TypedDict, total=False):
    """What a call may say otherwise than :func:`wrap` did, but for the layers; see :class:`LookOptions`."""

    lam: float
    sigma: float
    alpha: float
    fetch: bool
    prompt: str


class LookOptions(AskedOtherwise, total=False):
    """What a call may say otherwise than :func:`wrap` did.

    ``layers``: those to read. ``lam``, ``sigma``, ``alpha``: λ, σ and α of the evidence. ``fetch``: whether pictures
    may be fetched over http(s). ``prompt``: the text around the question: ``"method"`` (that of ``wrap``), ``"raw"``
    (none; the default for ``messages``), or a text of your own with ``{question}``.
    """

    layers: LayerSelection


class WrapOptions(TypedDict, total=False):
    """What else may be said to :func:`wrap` and ``vea_sdk.load``.

    ``plain_prompt``, ``highlight_prompt``: the texts around a question, with ``{question}`` in its place. ``adapter``:
    what is known of the architecture, where it is not found by itself. ``max_pixels``: of a picture, at the most.
    ``fetch``: whether pictures may be fetched over http(s).
    """

    plain_prompt: str
    highlight_prompt: str
    adapter: Adapter | type[Adapter] | None
    max_pixels: int
    fetch: bool


class VLM:
    """A model and its processor, ready to be asked where it looks. Made by :func:`wrap` or ``vea_sdk.load``."""

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        layers: LayerSelection = "profiled",
        lam: float = 10.0,
        sigma: float = 0.5,
        alpha: float = 0.5,
        plain_prompt: str = PLAIN_PROMPT,
        highlight_prompt: str = HIGHLIGHT_PROMPT,
        adapter: Adapter | type[Adapter] | None = None,
        max_pixels: int = MAX_PIXELS,
        attend_with: VLM | None = None,
        fetch: bool = False,
    ) -> None:
        self.constants = Constants(lam, sigma, alpha).checked()
        self.prompts = Prompts(plain_prompt, highlight_prompt)
        self.model = without_parallel(model)  # whose wrappers have no generate()
        self.processor = _checked(processor)
        if adapter is not None:
            self.adapter = adapter(model) if isinstance(adapter, type) else adapter
        self.attend_with = _delegate(attend_with, layers)
        self.layers: tuple[int, ...] = (
            self.attend_with.layers if self.attend_with else resolve_layers(layers, self.adapter)
        )
        self.max_pixels = max_pixels
        self.fetch = fetch

    @cached_property
    def adapter(self) -> Adapter:
        """What is known of the model's architecture. A model that another one attends for may do without."""
        return adapters.find(self.model)

    @property
    def lam(self) -> float:
        """λ of denoising."""
        return self.constants.lam

    @property
    def sigma(self) -> float:
        """σ of the highlight's smoothing."""
        return self.constants.sigma

    @property
    def alpha(self) -> float:
        """α of highlighting."""
        return self.constants.alpha

    @property
    def plain_prompt(self) -> str:
        """The text around a question that is asked first."""
        return self.prompts.plain

    @property
    def highlight_prompt(self) -> str:
        """The text around a question about a highlighted picture."""
        return self.prompts.pointing

    @property
    def eye(self) -> VLM:
        """The wrapped model that looks: this one, unless another one attends for it."""
        return self.attend_with or self

    @overload
    def attend(  # type: ignore[overload-overlap]
        self, image: ImageSource, question: str, *, heads: bool = ..., **options: Unpack[LookOptions]
    ) -> Evidence: ...
    @overload
    def attend(
        self, image: Sequence[ImageSource], question: str, *, heads: bool = ..., **options: Unpack[LookOptions]
    ) -> list[Evidence]: ...
    @overload
    def attend(
        self,
        *,
        video: VideoSource,
        question: str,
        seconds: Sequence[float] | None = ...,
        heads: bool = ...,
        **options: Unpack[LookOptions],
    ) -> VideoEvidence: ...
    @overload
    def attend(
        self, *, messages: Sequence[Message], heads: bool = ..., **options: Unpack[LookOptions]
    ) -> list[Evidence | VideoEvidence]: ...
    def attend(
        self,
        image: Images | None = None,
        question: str | None = None,
        *,
        video: VideoSource | None = None,
        seconds: Sequence[float] | None = None,
        messages: Sequence[Message] | None = None,
        heads: bool = False,
        **options: Unpack[LookOptions],
    ) -> Any:
        """Where the model looks before it answers: e[i] = mean over the layers of a(l)[i] at the image tokens.

        Runs the prompt only up to the deepest selected layer, without the language-model head and without a cache.

        Args:
            image: a picture, see :func:`vea_sdk.evidence.load_image`; or a sequence of them, asked about together.
            question: the question in plain words; ``prompt`` says what stands around it.
            video: a video instead of a picture, see :func:`vea_sdk.load_video`; ``seconds``: the time of each frame,
                where frames are given.
            messages: a conversation in Transformers' chat format instead of all these.
            heads: whether to keep every head's attention, for :meth:`Evidence.of_head`.
            **options: see :class:`LookOptions`.

        Returns:
            One Evidence, or one per picture when a sequence or messages were given; of a video a VideoEvidence.

        Raises:
            InvalidInputError: something given cannot be used; nothing has run then.
        """
        _check_names("attend", options, LookOptions)
        asked = self._asked(image, question, video, seconds, messages, options)
        evidence = self._attend([asked], self._layers(options.get("layers")), self._constants(options), heads)[0]
        return evidence[0] if asked.single else evidence

    def attend_many(
        self,
        images: Sequence[ImageSource],
        questions: Sequence[str],
        layers: LayerSelection | None = None,
        **options: Unpack[AskedOtherwise],
    ) -> list[Evidence]:
        """:meth:`attend` for several questions in one padded batch, each about one picture of its own.

        Options as there; ``layers="all"`` serves profiling.

        Raises:
            InvalidInputError: when there are not as many questions as pictures.
        """
        _check_names("attend_many", options, AskedOtherwise)
        asked = self._asked_many(images, questions, options)
        chosen, constants = self._layers(layers), self._constants(options)
        found = self._attend(asked, chosen, constants) if asked else []
        return [one for row in found for one in row if isinstance(one, Evidence)]

    def answer_many(
        self,
        images: Sequence[ImageSource],
        prompts: Sequence[str],
        max_new_tokens: int | None = None,
        **generate_kwargs: Any,
    ) -> list[str]:
        """What the model generates for finished prompts in one padded batch, each about one picture of its own.

        A prompt is given to the model as it is, without ``plain_prompt`` or ``highlight_prompt`` around it.

        Raises:
            InvalidInputError: when there are not as many prompts as pictures.
        """
        return [one.text for one in self.generate_many(images, prompts, max_new_tokens, **generate_kwargs)]

    def generate_many(
        self,
        images: Sequence[ImageSource],
        prompts: Sequence[str],
        max_new_tokens: int | None = None,
        **generate_kwargs: Any,
    ) -> list[Generated]:
        """:meth:`answer_many` with the tokens of each answer, and how sure the model was of them."""
        pictures = one_each(images, prompts, "prompts", self.max_pixels, self.fetch)
        generation = Generation(self.model, generate_kwargs, max_new_tokens)
        if not pictures:
            return []
        said: list[Generated] = []
        for batch in self.batches([one_turn(row, prompt) for row, prompt in zip(pictures, prompts, strict=True)]):
            inputs = self.inputs(batch)
            said += generation.run(self.processor, inputs, self.prompt_length(inputs))
        return said

    @overload
    def ask(self, image: ImageSource, question: str, mode: Mode = ..., **options: Any) -> Answer[Evidence]: ...
    @overload
    def ask(
        self, image: Sequence[ImageSource], question: str, mode: Mode = ..., **options: Any
    ) -> Answer[list[Evidence]]: ...
    @overload
    def ask(self, *, video: VideoSource, question: str, mode: Mode = ..., **options: Any) -> Answer[VideoEvidence]: ...
    @overload
    def ask(
        self, *, messages: Sequence[Message], mode: Mode = ..., **options: Any
    ) -> Answer[list[Evidence | VideoEvidence]]: ...
    def ask(
        self,
        image: Images | None = None,
        question: str | None = None,
        mode: Mode = "highlight",
        max_new_tokens: int | None = None,
        highlight_on: HighlightOn = "picture",
        *,
        video: VideoSource | None = None,
        seconds: Sequence[float] | None = None,
        messages: Sequence[Message] | None = None,
        highlight_images: Sequence[int] | None = None,
        words: bool = True,
        prompt: str | None = None,
        layers: LayerSelection | None = None,
        lam: float | None = None,
        sigma: float | None = None,
        alpha: float | None = None,
        fetch: bool | None = None,
        looks: int | None = None,
        answers: int | None = None,
        show: Show | None = None,
        min_certainty: MinCertainty = "profiled",
        abstain_below: float | None = None,
        refusals: Refusals | None = None,
        stop_at: float | None = None,
        views: Views | None = None,
        choose_by: ChooseBy | None = None,
        rank_by: RankBy | None = None,
        anyway: bool | None = None,
        batch_size: int = 16,
        **generate_kwargs: Any,
    ) -> Answer[Any]:
        """Ask, and ask again so that the model sees better.

        The evidence is read while the answers are generated, so it costs no pass of its own, unless another model
        attends. Every mode starts with a plain first answer:

        - ``"none"`` stops there;
        - ``"highlight"`` highlights where the model looked, and asks again;
        - ``"closer"`` looks at windows of the original pixels, answers those with the highest image mass and keeps the
          surest answer, see :mod:`vea_sdk.pipeline.closer`;
        - ``"views"`` answers the rendering of the picture with the highest image mass;
        - ``"ensemble"`` chooses every token by the mean log-probability over views of the picture.

        Args:
            image, question, video, seconds, messages: as for :meth:`attend`. A video is highlighted frame by frame.
            mode: one of these.
            max_new_tokens: the longest answer, 64 unless a ``generation_config`` says otherwise.
            highlight_on: ``"tensor"`` highlights what the processor made of the pictures for the first question instead
                of preparing highlighted ones for the second: within one 8-bit grey level of ``"picture"``, see
                :func:`vea_sdk.evidence.fused.highlight_tensor`. Where that does not hold, ``"picture"`` serves, with a
                warning. The adapter must define ``canvases``, else UnsupportedModelError.
            highlight_images: numbers of the pictures to highlight, counted through the messages from 0; by default
                those of the last user turn that has any.
            words: whether to keep the rows of all answer tokens, for :attr:`Answer.words`.
            prompt, layers, lam, sigma, alpha, fetch: see :class:`LookOptions`.
            looks: of "closer": windows to look at, up to 54 all over the picture and up to 20 around the best two.
            answers: of "closer": how many windows are answered.
            show: of "closer": the ``"window"`` in the picture's place, or ``"both"``, two pictures in one turn.
            min_certainty: a gate of "closer" and "views": another answer than the first needs a higher certainty; by
                default that of the model's profile in "closer" (``vea eval --calibrate`` stores one), and None in
                "views". Without one, it need only be surer than the first.
            abstain_below: a certainty below which the answer counts as none, see :attr:`Answer.abstained`.
            refusals: whether an answer declines, by default :func:`vea_sdk.pipeline.refusals.is_refusal`; its certainty
                counts as 0.
            stop_at: of "closer": a certainty at which the search ends; windows are answered while it goes on.
            views: of "views" and "ensemble": a generator of views, by default ``vea.views.repairs()`` and
                ``vea.views.shifts()``.
            choose_by: of "views": ``"image_mass"`` of a look, or the ``"certainty"`` of the answers to all.
            rank_by: of "closer": ``"image_mass"``, or a control that looks at nothing: ``"random"`` windows, windows at
                the ``"centre"``, or at the ``"peak"`` of the first look.
            anyway: of "closer": search also where the model is shown all pixels of the picture already.
            batch_size: the most rows that are run together; halved where memory ends.
            **generate_kwargs: for ``model.generate``, greedy decoding unless told otherwise.

        Raises:
            InvalidInputError: something given cannot be used; nothing has run then.
        """
        options = _given(prompt=prompt, layers=layers, lam=lam, sigma=sigma, alpha=alpha, fetch=fetch)
        asked = self._asked(image, question, video, seconds, messages, options, highlight_images)
        way = Way.of(mode, given(locals()))
        asking = self._asking(way, highlight_on, words, options, max_new_tokens, generate_kwargs)
        return asking.run([asked])[0]

    def ask_many(
        self,
        images: Sequence[Images],
        questions: Sequence[str],
        mode: Mode = "highlight",
        max_new_tokens: int | None = None,
        *,
        batch_size: int = 8,
        words: bool = True,
        prompt: str | None = None,
        layers: LayerSelection | None = None,
        lam: float | None = None,
        sigma: float | None = None,
        alpha: float | None = None,
        fetch: bool | None = None,
        looks: int | None = None,
        answers: int | None = None,
        show: Show | None = None,
        min_certainty: MinCertainty = "profiled",
        abstain_below: float | None = None,
        refusals: Refusals | None = None,
        stop_at: float | None = None,
        views: Views | None = None,
        choose_by: ChooseBy | None = None,
        rank_by: RankBy | None = None,
        anyway: bool | None = None,
        **generate_kwargs: Any,
    ) -> list[Answer[Any]]:
        """:meth:`ask` for many questions in padded batches, each about a picture or a sequence of pictures of its own.

        First answers, and second ones of mode "highlight", are generated together; other modes go on with each question
        by itself. Options are those of :meth:`ask`. An answer's timings are those of its batch.

        Raises:
            InvalidInputError: when there are not as many questions as pictures, or something cannot be used.
        """
        options = _given(prompt=prompt, layers=layers, lam=lam, sigma=sigma, alpha=alpha, fetch=fetch)
        way = Way.of(mode, given(locals()))
        asking = self._asking(way, "picture", words, options, max_new_tokens, generate_kwargs)
        asked = self._asked_many(images, questions, options)
        return [
            answer
            for start in range(0, len(asked), batch_size)
            for batch in self.batches(asked[start : start + batch_size])
            for answer in asking.run(batch)
        ]

    def check_texts(self, *texts: str) -> None:
        """Raises InvalidInputError for a text that is empty, or holds a placeholder of pictures or videos that this
        model's tokenizer cannot take for text."""
        for text in texts:
            check_question(text)
        check_placeholders(self.processor, self.known_adapter, texts)

    # -- what asking is made of

    def inputs(self, conversations: Sequence[Conversation], processor: Any = None, gains: Any = None) -> Any:
        """What the model is fed, a conversation per row; see :func:`vea_sdk.pipeline.inputs.model_inputs`."""
        return model_inputs(self.model, processor or self.processor, self.known_adapter, conversations, gains)

    def batches(self, rows: Sequence[T]) -> list[Sequence[T]]:
        """The rows as they may be run together: each by itself where this architecture answers otherwise in a batch."""
        if self.known_adapter is None or not self.known_adapter.batches_differ:
            return [rows]
        return [[row] for row in rows]

    def prompt_length(self, inputs: Mapping[str, Any]) -> int:
        """How many of the tokens that ``generate()`` returns are the prompt's."""
        adapter = self.known_adapter
        return (adapter or Adapter(self.model)).prompt_length(inputs)

    def place(self, inputs: Mapping[str, Any], conversations: Sequence[Conversation]) -> list[list[Placed]]:
        """How every row's pictures and videos became tokens of this model."""
        return place(self.adapter, inputs, conversations, self.processor)

    @cached_property
    def known_adapter(self) -> Adapter | None:
        """The adapter, None where nothing is known of the architecture."""
        try:
            return self.adapter
        except UnsupportedModelError:
            return None

    @cached_property
    def min_certainty(self) -> float | None:
        """The gate of the model's profile, see :meth:`ask`; None where it has none."""
        found = profiles.find(self.model)
        return None if found is None else found.min_certainty

    def support(self, answer: Answer[Any], k: int = 10, seed: int = 0) -> Support:
        """Whether an answer of this model leans on its evidence, see :func:`vea_sdk.pipeline.support.support`."""
        return support(self, answer, k, seed)

    def _asking(
        self,
        way: Way,
        highlight_on: HighlightOn,
        words: bool,
        options: LookOptions,
        max_new_tokens: int | None,
        generate_kwargs: Mapping[str, Any],
    ) -> Asking:
        if highlight_on not in get_args(HighlightOn):
            raise InvalidInputError(f'highlight_on={highlight_on!r} is unknown. Choose "picture" or "tensor".')
        generation = Generation(self.model, generate_kwargs, max_new_tokens)
        if way.needs_certainty is not None and (reason := generation.why_no_certainty(max(1, way.answers))):
            raise InvalidInputError(f"{way.needs_certainty} needs the logits of generate(): {reason}.")
        if way.mode == "ensemble" and (reason := generation.why_not_together):
            raise InvalidInputError(f'mode="ensemble" lets its views choose one token together: {reason}.')
        return Asking(
            self, way, highlight_on, words, self._layers(options.get("layers")), self._constants(options), generation
        )

    def _attend(
        self, asked: Sequence[Asked], layers: Sequence[int], constants: Constants, heads: bool = False
    ) -> list[list[Found]]:
        """For every row, the evidence of its pictures and videos, from a pass of the model that attends."""
        batches = self.eye.batches(asked)
        return [found for batch in batches for found in self._attend_batch(batch, layers, constants, heads)]

    def _attend_batch(
        self, asked: Sequence[Asked], layers: Sequence[int], constants: Constants, heads: bool
    ) -> list[list[Found]]:
        eye = self.eye
        conversations = [one.plain(eye.prompts) for one in asked]
        inputs = eye.inputs(conversations)
        # Of the conversation as it was given: the answering model may be shown other pictures than this one.
        placed = eye.place(inputs, conversations)
        rows = Rows.of(look(eye.model, eye.adapter, inputs, layers, heads))
        return [
            evidence_of_row(rows, number, row, one.question, constants)
            for number, (one, row) in enumerate(zip(asked, placed, strict=True))
        ]

    def _asked(
        self,
        image: Images | None,
        question: str | None,
        video: VideoSource | None,
        seconds: Sequence[float] | None,
        messages: Sequence[Message] | None,
        options: AskedOtherwise,
        highlight_images: Sequence[int] | None = None,
    ) -> Asked:
        """One question with what it is about, checked and loaded."""
        fetch = options.get("fetch", self.fetch)
        if messages is not None:
            if image is not None or question is not None or video is not None:
                raise InvalidInputError("messages= hold pictures and question: leave image and question out.")

            def load(kind: str, source: Any) -> Medium:
                opened = load_video if kind == "video" else load_image
                return opened(source, max_pixels=self.max_pixels, fetch=fetch)

            prompt = options.get("prompt", "raw")
            return Asked(from_messages(messages, load, highlight_images), prompt, single=False).checked(self.prompts)
        if highlight_images is not None:
            raise InvalidInputError(
                "highlight_images= chooses among the pictures of messages=; here all are highlighted."
            )
        if image is None and video is None:
            raise InvalidInputError("no picture was given; pass image= (or video=) and question=, or messages=.")
        check_question(question)
        if video is not None:
            if image is not None:
                raise InvalidInputError("image= and video= exclude each other. Show both as parts of messages=.")
            loaded = load_video(video, seconds=seconds, max_pixels=self.max_pixels, fetch=fetch)
            return Asked(one_turn([loaded], str(question)), options.get("prompt"), single=True).checked(self.prompts)
        assert image is not None
        pictures = load_pictures(image, self.max_pixels, fetch)
        asked = Asked(one_turn(pictures, str(question)), options.get("prompt"), is_single(image))
        return asked.checked(self.prompts)

    def _asked_many(self, images: Sequence[Images], questions: Sequence[str], options: AskedOtherwise) -> list[Asked]:
        for number, question in enumerate(questions if not isinstance(questions, str) else ()):
            check_question(question, f"question {number}")
        pictures = one_each(images, questions, "questions", self.max_pixels, options.get("fetch", self.fetch))
        return [
            Asked(one_turn(row, question), options.get("prompt"), is_single(image)).checked(self.prompts)
            for image, row, question in zip(images, pictures, questions, strict=True)
        ]

    def _layers(self, layers: LayerSelection | None) -> tuple[int, ...]:
        return self.layers if layers is None else resolve_layers(layers, self.eye.adapter)

    def _constants(self, options: AskedOtherwise) -> Constants:
        return self.constants.changed(options.get("lam"), options.get("sigma"), options.get("alpha"))


def wrap(
    model: nn.Module,
    processor: Any,
    layers: LayerSelection = "profiled",
    lam: float = 10.0,
    sigma: float = 0.5,
    alpha: float = 0.5,
    attend_with: VLM | None = None,
    **options: Unpack[WrapOptions],
) -> VLM:
    """Wrap a loaded model and its processor. Nothing of the model is changed.

    Args:
        model: a VLM of Transformers, in any dtype, on any device or spread by ``device_map``.
        processor: its processor.
        layers: the layers to read: ``"profiled"``, ``"all"``, a list, or a depth span ``(0.5, 1.0)``.
        lam: λ of the denoising (Eq. 2), a patch above λ times its highest neighbour is an outlier.
        sigma: σ of the highlight's smoothing (Eq. 3), in shorter sides of the picture (pixels above 1).
        alpha: α of the highlighting (Eq. 4), the brightness that unattended regions keep.
        attend_with: another wrapped model, which looks while this one answers. Its layers and its ``plain_prompt``
            say how it looks; λ, σ and α are this one's. The two may differ in architecture and in input size.
        **options: see :class:`WrapOptions`.
    """
    _check_names("wrap", options, WrapOptions)
    return VLM(model, processor, layers, lam=lam, sigma=sigma, alpha=alpha, attend_with=attend_with, **options)


def _checked(processor: Any) -> Any:
    """The processor, which must prepare pictures, too."""
    if isinstance(processor, PreTrainedTokenizerBase):
        raise InvalidInputError(
            f"processor={type(processor).__name__} is a tokenizer, which prepares no pictures. Pass the model's "
            "processor: transformers.AutoProcessor.from_pretrained(...)."
        )
    return processor


def _check_names(function: str, given: Mapping[str, Any], known: type) -> None:
    """Refuse what a function would take and not use, as Python does where the names stand in the signature."""
    unknown = sorted(set(given) - set(get_type_hints(known)))
    if unknown:
        raise TypeError(
            f"{function}() got an unexpected keyword argument {unknown[0]!r}. Choose among "
            f"{', '.join(get_type_hints(known))}."
        )


def _given(**options: Any) -> LookOptions:
    """Those that were given."""
    return {name: value for name, value in options.items() if value is not None}  # type: ignore[return-value]


def _delegate(attend_with: VLM | None, layers: LayerSelection) -> VLM | None:
    """The model that looks in place of the wrapped one; where it delegates too, whom it delegates to."""
    if attend_with is None:
        return None
    if not isinstance(attend_with, VLM):
        raise InvalidInputError(
            f"attend_with takes a wrapped model, not a {type(attend_with).__name__}: vea.wrap(other, its_processor)."
        )
    if layers != "profiled":
        raise InvalidInputError(
            f"layers={layers!r} would be read in the model that attends: give them to that one, "
            "vea.wrap(other, its_processor, layers=...)."
        )
    return attend_with.attend_with or attend_with
