"""A model that is asked, and asked where it looks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any, Literal, get_args, overload

from PIL import Image
from torch import Tensor, nn

from vea_sdk import adapters
from vea_sdk.adapters import Adapter, ImageLayout
from vea_sdk.adapters.canvas import Canvas
from vea_sdk.capture import Session
from vea_sdk.capture.layers import LayerSelection, resolve_layers
from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence import Evidence
from vea_sdk.evidence.fused import Inexact, gain_maps
from vea_sdk.evidence.images import MAX_PIXELS, ImageSource
from vea_sdk.pipeline.answer import Answer, Clock, Mode
from vea_sdk.pipeline.attending import evidence_of, look, session_on
from vea_sdk.pipeline.inputs import Images, entry_device, is_single, load_pictures, model_inputs, one_each
from vea_sdk.pipeline.replay import replaying
from vea_sdk.prompts import HIGHLIGHT_PROMPT, PLAIN_PROMPT

HighlightOn = Literal["picture", "tensor"]


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
    ) -> None:
        for name, prompt in (("plain_prompt", plain_prompt), ("highlight_prompt", highlight_prompt)):
            if "{question}" not in prompt:
                raise InvalidInputError(f"{name}={prompt!r} has no place for the question: put {{question}} in it.")
        self.model = model
        self.processor = processor
        if adapter is not None:
            self.adapter = adapter(model) if isinstance(adapter, type) else adapter
        self.attend_with = _delegate(attend_with, layers)
        looks = self.attend_with
        self.layers: tuple[int, ...] = looks.layers if looks else resolve_layers(layers, self.adapter)
        self.lam = lam
        self.sigma = sigma
        self.alpha = alpha
        self.plain_prompt = plain_prompt
        self.highlight_prompt = highlight_prompt
        self.max_pixels = max_pixels

    @cached_property
    def adapter(self) -> Adapter:
        """What is known of the model's architecture. A model that another one attends for may do without."""
        return adapters.find(self.model)

    @overload
    def attend(self, image: ImageSource, question: str) -> Evidence: ...  # type: ignore[overload-overlap]
    @overload
    def attend(self, image: Sequence[ImageSource], question: str) -> list[Evidence]: ...
    def attend(self, image: Images, question: str) -> Evidence | list[Evidence]:
        """Where the model looks before it answers: e[i] = mean over the layers of a(l)[i] at the image tokens.

        Runs the prompt only up to the deepest selected layer, without the language-model head and without a cache.

        Args:
            image: a path, picture or array; or a sequence of them, asked about together.
            question: the question in plain words; it is put into ``plain_prompt``.

        Returns:
            One Evidence, or one per picture when a sequence was given.
        """
        pictures = load_pictures(image, self.max_pixels)
        evidence = self._attend([pictures], [question], self.layers)[0]
        return evidence[0] if is_single(image) else evidence

    def attend_many(
        self, images: Sequence[ImageSource], questions: Sequence[str], layers: LayerSelection | None = None
    ) -> list[Evidence]:
        """:meth:`attend` for several questions in one padded batch, each about one picture of its own.

        ``layers`` replaces the wrapped ones for this call, such as ``"all"`` for profiling.

        Raises:
            InvalidInputError: when there are not as many questions as pictures.
        """
        chosen = self.layers if layers is None else resolve_layers(layers, (self.attend_with or self).adapter)
        pictures = one_each(images, questions, "questions", self.max_pixels)
        if not pictures:
            return []
        return [one for (one,) in self._attend(pictures, questions, chosen)]

    def answer_many(
        self, images: Sequence[ImageSource], prompts: Sequence[str], max_new_tokens: int = 64, **generate_kwargs: Any
    ) -> list[str]:
        """What the model generates for finished prompts in one padded batch, each about one picture of its own.

        A prompt is given to the model as it is, without ``plain_prompt`` or ``highlight_prompt`` around it.

        Raises:
            InvalidInputError: when there are not as many prompts as pictures.
        """
        pictures = one_each(images, prompts, "prompts", self.max_pixels)
        if not pictures:
            return []
        generate_kwargs = {"do_sample": False, "max_new_tokens": max_new_tokens, **generate_kwargs}
        return self._generate(model_inputs(self.model, self.processor, pictures, prompts), generate_kwargs)

    def ask(
        self,
        image: Images,
        question: str,
        mode: Mode = "highlight",
        max_new_tokens: int = 64,
        highlight_on: HighlightOn = "picture",
        **generate_kwargs: Any,
    ) -> Answer:
        """Ask, look where the model looked, highlight that, and ask again.

        The evidence is read while the first answer is generated, so it costs no pass of its own, unless another model
        attends. Mode "none" stops after the first answer.

        ``highlight_on="tensor"`` highlights what the processor made of the pictures for the first question instead of
        preparing highlighted ones for the second: within one 8-bit grey level of ``"picture"``, see
        :func:`vea_sdk.evidence.fused.highlight_tensor`. Where that does not hold, ``"picture"`` serves,
        with a warning. The adapter must define ``canvases``, else UnsupportedModelError.

        ``generate_kwargs`` go to ``model.generate`` (greedy decoding unless told otherwise).
        """
        if mode not in get_args(Mode):
            raise InvalidInputError(f'mode={mode!r} is unknown. Choose "none" or "highlight".')
        if highlight_on not in get_args(HighlightOn):
            raise InvalidInputError(f'highlight_on={highlight_on!r} is unknown. Choose "picture" or "tensor".')
        generate_kwargs = {"do_sample": False, "max_new_tokens": max_new_tokens, **generate_kwargs}
        clock = Clock()
        pictures = load_pictures(image, self.max_pixels)
        processor = replaying(self.processor) if highlight_on == "tensor" else self.processor
        inputs = model_inputs(self.model, processor, [pictures], [self.plain_prompt.format(question=question)])
        # A model without canvases is refused before it runs.
        canvases = self._canvases(inputs, pictures) if highlight_on == "tensor" else None
        clock.lap("prepare")
        own = session_on(self.model, self.adapter, self.layers) if self.attend_with is None else None
        with own or nullcontext():
            baseline = self._generate(inputs, generate_kwargs)[0]
        clock.lap("baseline")
        if own is None:
            evidence = self._attend([pictures], [question], self.layers)[0]
        else:
            evidence = self._evidence(own, self._layouts(inputs, [pictures]), [pictures], [question])[0]
        single = is_single(image)
        shown = evidence[0] if single else evidence
        if mode == "none":
            clock.lap("evidence")
            return Answer(baseline, baseline, shown, mode, timings=clock.laps)
        prompt = self.highlight_prompt.format(question=question)
        highlighted = [one.highlight() for one in evidence]
        gains = None if canvases is None else self._gains(evidence, canvases)
        clock.lap("evidence")
        again = self._inputs_again(pictures, highlighted, gains, prompt, processor)
        text = self._generate(again, generate_kwargs)[0]
        clock.lap("answer")
        return Answer(text, baseline, shown, mode, highlighted[0] if single else highlighted, clock.laps)

    def _attend(
        self, pictures: Sequence[Sequence[Image.Image]], questions: Sequence[str], layers: Sequence[int]
    ) -> list[list[Evidence]]:
        """For every row of the batch, one Evidence per picture, from a pass of the model that attends."""
        eye = self.attend_with or self
        prompts = [eye.plain_prompt.format(question=question) for question in questions]
        inputs = model_inputs(eye.model, eye.processor, pictures, prompts)
        session = look(eye.model, eye.adapter, inputs, layers)
        return self._evidence(session, eye._layouts(inputs, pictures), pictures, questions)

    def _evidence(
        self,
        session: Session,
        layouts: Sequence[ImageLayout],
        pictures: Sequence[Sequence[Image.Image]],
        questions: Sequence[str],
    ) -> list[list[Evidence]]:
        """For every row of the batch, one Evidence per picture, with the λ, σ and α of this wrapper."""
        return evidence_of(session, layouts, pictures, questions, lam=self.lam, sigma=self.sigma, alpha=self.alpha)

    def _layouts(self, inputs: Mapping[str, Any], pictures: Sequence[Sequence[Image.Image]]) -> list[ImageLayout]:
        """How each picture became tokens of this model, row after row."""
        sizes = [(picture.height, picture.width) for row in pictures for picture in row]
        return self.adapter.layouts(inputs, sizes, self.processor)

    def _canvases(self, inputs: Mapping[str, Any], pictures: Sequence[Image.Image]) -> list[list[Canvas]]:
        """What ``pixel_values`` hold of each picture."""
        layouts = self._layouts(inputs, [pictures])
        return [self.adapter.canvases(layout, self.processor) for layout in layouts]

    def _gains(self, evidence: Sequence[Evidence], canvases: Sequence[Sequence[Canvas]]) -> list[list[Tensor]]:
        """What to multiply ``pixel_values`` by, picture by picture; the evidence may be that of another model."""
        device = entry_device(self.model)
        shown = zip(evidence, canvases, strict=True)
        return [gain_maps(one.map(), of_picture, one.alpha, device) for one, of_picture in shown]

    def _inputs_again(
        self,
        pictures: Sequence[Image.Image],
        highlighted: Sequence[Image.Image],
        gains: Sequence[Sequence[Tensor]] | None,
        prompt: str,
        processor: Any,
    ) -> Any:
        """Model inputs of the second question: highlighted tensors where that is exact, else highlighted pictures."""
        if gains is not None:
            try:
                return model_inputs(self.model, processor, [pictures], [prompt], gains)
            except Inexact as reason:
                warnings.warn(
                    f'{reason} The picture itself is highlighted, as with highlight_on="picture".', stacklevel=3
                )
        return model_inputs(self.model, self.processor, [highlighted], [prompt])

    def _generate(self, inputs: Mapping[str, Any], generate_kwargs: Mapping[str, Any]) -> list[str]:
        generated = self.model.generate(**inputs, **generate_kwargs)  # type: ignore[operator]
        new = generated[:, inputs["input_ids"].shape[1] :]
        return [str(text).strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]


def wrap(
    model: nn.Module,
    processor: Any,
    layers: LayerSelection = "profiled",
    lam: float = 10.0,
    sigma: float = 0.5,
    alpha: float = 0.5,
    attend_with: VLM | None = None,
    **options: Any,
) -> VLM:
    """Wrap a loaded model and its processor. Nothing of the model is changed.

    Args:
        model: a VLM of Transformers, in any dtype, on any device or spread by ``device_map``.
        processor: its processor.
        layers: the layers to read: ``"profiled"``, ``"all"``, a list, or a depth span ``(0.5, 1.0)``.
        lam: λ of the denoising (Eq. 2), a patch above λ times its highest neighbour is an outlier.
        sigma: σ of the smoothing (Eq. 3), in shorter sides of the picture (pixels above 1).
        alpha: α of the highlighting (Eq. 4), the brightness that unattended regions keep.
        attend_with: another wrapped model, which looks while this one answers. Its layers and its ``plain_prompt``
            say how it looks; λ, σ and α are this one's. The two may differ in architecture and in input size.
        **options: ``plain_prompt``, ``highlight_prompt``, ``adapter``, ``max_pixels``; see :class:`VLM`.
    """
    return VLM(model, processor, layers, lam=lam, sigma=sigma, alpha=alpha, attend_with=attend_with, **options)


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
