"""From picture and question to evidence and answer: wrap → attend → ask."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, overload

import torch
from PIL import Image
from torch import Tensor, nn

from vea_sdk import adapters
from vea_sdk.adapters import Adapter, ImageLayout
from vea_sdk.capture import Session, can_stop_early
from vea_sdk.capture.layers import LayerSelection, resolve_layers
from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence import Evidence
from vea_sdk.evidence.fused import Inexact, gain_maps, highlight_tensor
from vea_sdk.evidence.images import MAX_PIXELS, ImageSource, load_image
from vea_sdk.prompts import HIGHLIGHT_PROMPT, PLAIN_PROMPT
from vea_sdk.replay import replaying

Mode = Literal["none", "highlight"]
HighlightOn = Literal["picture", "tensor"]
Images = ImageSource | Sequence[ImageSource]


@dataclass(frozen=True)
class Answer:
    """What the model said, before and after it was shown its own evidence.

    ``evidence`` is one per picture: a single one, or a list when several pictures were given, and so is
    ``highlighted``, the pictures of the second question (None in mode "none"). ``timings`` are seconds per stage.
    """

    text: str
    baseline: str
    evidence: Evidence | list[Evidence]
    mode: Mode
    highlighted: Image.Image | list[Image.Image] | None = None
    timings: dict[str, float] = field(default_factory=dict)


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
    ) -> None:
        for name, prompt in (("plain_prompt", plain_prompt), ("highlight_prompt", highlight_prompt)):
            if "{question}" not in prompt:
                raise InvalidInputError(f"{name}={prompt!r} has no place for the question: put {{question}} in it.")
        self.model = model
        self.processor = processor
        self.adapter = adapter(model) if isinstance(adapter, type) else adapter or adapters.find(model)
        self.layers = resolve_layers(layers, self.adapter)
        self.lam = lam
        self.sigma = sigma
        self.alpha = alpha
        self.plain_prompt = plain_prompt
        self.highlight_prompt = highlight_prompt
        self.max_pixels = max_pixels

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
        pictures = self._pictures(image)
        inputs = self._inputs([pictures], [self.plain_prompt.format(question=question)])
        evidence = self._evidence(self._look(inputs, self.layers), inputs, [pictures], [question])[0]
        return evidence[0] if _is_single(image) else evidence

    def attend_many(
        self, images: Sequence[ImageSource], questions: Sequence[str], layers: LayerSelection | None = None
    ) -> list[Evidence]:
        """:meth:`attend` for several questions in one padded batch, each about one picture of its own.

        ``layers`` replaces the wrapped ones for this call, such as ``"all"`` for profiling.

        Raises:
            InvalidInputError: when there are not as many questions as pictures.
        """
        chosen = self.layers if layers is None else resolve_layers(layers, self.adapter)
        pictures = self._one_each(images, questions, "questions")
        if not pictures:
            return []
        inputs = self._inputs(pictures, [self.plain_prompt.format(question=question) for question in questions])
        return [one for (one,) in self._evidence(self._look(inputs, chosen), inputs, pictures, questions)]

    def answer_many(
        self, images: Sequence[ImageSource], prompts: Sequence[str], max_new_tokens: int = 64, **generate_kwargs: Any
    ) -> list[str]:
        """What the model generates for finished prompts in one padded batch, each about one picture of its own.

        A prompt is given to the model as it is, without ``plain_prompt`` or ``highlight_prompt`` around it.

        Raises:
            InvalidInputError: when there are not as many prompts as pictures.
        """
        pictures = self._one_each(images, prompts, "prompts")
        if not pictures:
            return []
        generate_kwargs = {"do_sample": False, "max_new_tokens": max_new_tokens, **generate_kwargs}
        return self._generate(self._inputs(pictures, prompts), generate_kwargs)

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

        The evidence is read while the first answer is generated, so it costs no pass of its own. Mode "none" stops
        after the first answer.

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
        clock = _Clock()
        pictures = self._pictures(image)
        processor = replaying(self.processor) if highlight_on == "tensor" else self.processor
        inputs = self._inputs([pictures], [self.plain_prompt.format(question=question)], processor)
        if highlight_on == "tensor":
            for layout in self._layouts(inputs, [pictures]):
                self.adapter.canvases(layout, self.processor)  # a model without them is refused before it runs
        clock.lap("prepare")
        with self._session(self.layers) as session:
            baseline = self._generate(inputs, generate_kwargs)[0]
        clock.lap("baseline")
        evidence = self._evidence(session, inputs, [pictures], [question])[0]
        single = _is_single(image)
        shown = evidence[0] if single else evidence
        if mode == "none":
            clock.lap("evidence")
            return Answer(baseline, baseline, shown, mode, timings=clock.laps)
        prompt = self.highlight_prompt.format(question=question)
        gains = self._gains(evidence) if highlight_on == "tensor" else None
        highlighted = [one.highlight() for one in evidence]
        clock.lap("evidence")
        again = self._inputs_again(pictures, highlighted, gains, prompt, processor)
        text = self._generate(again, generate_kwargs)[0]
        clock.lap("answer")
        return Answer(text, baseline, shown, mode, highlighted[0] if single else highlighted, clock.laps)

    def _pictures(self, image: Images) -> list[Image.Image]:
        sources: Sequence[ImageSource] = [image] if _is_single(image) else image  # type: ignore[assignment, list-item]
        if not sources:
            raise InvalidInputError("no picture was given; pass at least one.")
        return [load_image(source, max_pixels=self.max_pixels) for source in sources]

    def _one_each(self, images: Sequence[ImageSource], texts: Sequence[str], what: str) -> list[list[Image.Image]]:
        if len(images) != len(texts):
            raise InvalidInputError(f"{len(images)} pictures and {len(texts)} {what}: give one to each picture.")
        return [self._pictures(image) for image in images]

    def _session(self, layers: Sequence[int], stop_early: bool = False) -> Session:
        return Session(self.model, layers, "last", None, None, self.adapter, stop_early=stop_early)

    def _look(self, inputs: Mapping[str, Any], layers: Sequence[int]) -> Session:
        """One pass of the prompt, only as deep as the layers need it."""
        with torch.no_grad(), self._session(layers, stop_early=can_stop_early(self.model)) as session:
            self.model(**inputs, use_cache=False)
        return session

    def _inputs(
        self,
        pictures: Sequence[Sequence[Image.Image]],
        prompts: Sequence[str],
        processor: Any = None,
        gains: Sequence[Sequence[Tensor]] | None = None,
    ) -> Any:
        """Model inputs of one user turn per row, on the model's device and in its dtype.

        ``processor``: the wrapped one's stand-in; ``gains``: what to multiply its ``pixel_values`` by.
        """
        processor = processor or self.processor
        batch = len(prompts) > 1
        padding: dict[str, Any] = {"padding": True, "padding_side": "left"} if batch else {}
        if _has_chat_template(processor):
            turns = [
                [
                    {
                        "role": "user",
                        "content": [
                            *({"type": "image", "image": picture} for picture in row),
                            {"type": "text", "text": prompt},
                        ],
                    }
                ]
                for row, prompt in zip(pictures, prompts, strict=True)
            ]
            inputs = processor.apply_chat_template(
                turns if batch else turns[0],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                **({"processor_kwargs": padding} if batch else {}),
            )
        else:
            texts = [
                processor.image_token * len(row) + "\n" + prompt for row, prompt in zip(pictures, prompts, strict=True)
            ]
            inputs = processor(
                images=[list(row) for row in pictures] if batch else list(pictures[0]),
                text=texts if batch else texts[0],
                return_tensors="pt",
                **padding,
            )
        device = _entry_device(self.model)
        if gains is not None:  # before the model's dtype rounds the pixels
            inputs["pixel_values"] = highlight_tensor(inputs["pixel_values"].to(device), gains, self.processor)
        return inputs.to(device, dtype=next(self.model.parameters()).dtype)

    def _gains(self, evidence: Sequence[Evidence]) -> list[list[Tensor]]:
        """What to multiply ``pixel_values`` by, picture by picture."""
        device = _entry_device(self.model)
        return [
            gain_maps(one.map(), self.adapter.canvases(one.layout, self.processor), one.alpha, device)
            for one in evidence
        ]

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
                return self._inputs([pictures], [prompt], processor, gains)
            except Inexact as reason:
                warnings.warn(
                    f'{reason} The picture itself is highlighted, as with highlight_on="picture".', stacklevel=3
                )
        return self._inputs([highlighted], [prompt])

    def _generate(self, inputs: Mapping[str, Any], generate_kwargs: Mapping[str, Any]) -> list[str]:
        generated = self.model.generate(**inputs, **generate_kwargs)  # type: ignore[operator]
        new = generated[:, inputs["input_ids"].shape[1] :]
        return [str(text).strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]

    def _layouts(self, inputs: Mapping[str, Any], pictures: Sequence[Sequence[Image.Image]]) -> list[ImageLayout]:
        sizes = [(picture.height, picture.width) for row in pictures for picture in row]
        return self.adapter.layouts(inputs, sizes, self.processor)

    def _evidence(
        self,
        session: Session,
        inputs: Mapping[str, Any],
        pictures: Sequence[Sequence[Image.Image]],
        questions: Sequence[str],
    ) -> list[list[Evidence]]:
        """For every row of the batch, one Evidence per picture."""
        attention = session.attention[:, :, 0].cpu().numpy()  # [layers, batch, image tokens]
        layouts = iter(self._layouts(inputs, pictures))
        evidence = []
        for number, (row, question) in enumerate(zip(pictures, questions, strict=True)):
            first, found = 0, []
            for picture in row:
                layout = next(layouts)
                part = attention[:, number, first : first + layout.n_tokens]
                first += layout.n_tokens
                found.append(
                    Evidence(
                        image=picture,
                        question=question,
                        scores=part.mean(0),
                        layout=layout,
                        layers=session.layers,
                        layer_scores=part,
                        lam=self.lam,
                        sigma=self.sigma,
                        alpha=self.alpha,
                    )
                )
            evidence.append(found)
        return evidence


def wrap(
    model: nn.Module,
    processor: Any,
    layers: LayerSelection = "profiled",
    lam: float = 10.0,
    sigma: float = 0.5,
    alpha: float = 0.5,
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
        **options: ``plain_prompt``, ``highlight_prompt``, ``adapter``, ``max_pixels``; see :class:`VLM`.
    """
    return VLM(model, processor, layers, lam=lam, sigma=sigma, alpha=alpha, **options)


def _entry_device(model: nn.Module) -> torch.device:
    """Where inputs go: beside the first weights. Offloaded ones rest on meta; their hooks know where they compute."""
    for parameter in model.parameters():
        if parameter.device.type != "meta":
            return parameter.device
    hooks = (getattr(getattr(module, "_hf_hook", None), "execution_device", None) for module in model.modules())
    return torch.device(next((device for device in hooks if device is not None), "cpu"))


def _has_chat_template(processor: Any) -> bool:
    tokenizer = getattr(processor, "tokenizer", None)
    return bool(getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None))


def _is_single(image: object) -> bool:
    return not isinstance(image, Sequence) or isinstance(image, str)


class _Clock:
    """Seconds per stage, in order."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
