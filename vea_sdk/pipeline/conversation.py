"""What is said to a model: turns of a chat with their pictures, in Transformers' chat format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence.videos import Video
from vea_sdk.pipeline.media import Medium
from vea_sdk.prompts import Prompts, check_question, fill, shortened

Message = Mapping[str, Any]

Load = Callable[[str, Any], Medium]

_MEDIA = {"image": ("image", "path", "url", "base64"), "video": ("video", "path", "url")}
"""Kinds of parts that show something, and where their sources stand."""

_EXAMPLE = '{"role": "user", "content": [{"type": "image", "image": ...}, {"type": "text", "text": ...}]}'


@dataclass(frozen=True)
class Conversation:
    """Turns of a chat, the last one the user's, its pictures and videos loaded.

    ``messages``: {"role", "content"}; content is a text, or a list of parts, in which {"type": "image"} holds a loaded
    picture under "image", and {"type": "video"} a video under "video". ``shown``: which of them, in order, the question
    is about.
    """

    messages: tuple[dict[str, Any], ...]
    shown: tuple[int, ...]

    @property
    def media(self) -> list[Medium]:
        """All pictures and videos, in the order in which the model is shown them."""
        return [part[part["type"]] for part in self._parts() if part["type"] in _MEDIA]

    @property
    def videos(self) -> list[Video]:
        return [one for one in self.media if isinstance(one, Video)]

    @property
    def pictures(self) -> list[Image.Image]:
        return [one for one in self.media if not isinstance(one, Video)]

    @property
    def text(self) -> str:
        """What the last turn asks."""
        content = self.messages[-1]["content"]
        if isinstance(content, str):
            return content
        return str(next(part["text"] for part in reversed(content) if part["type"] == "text"))

    @property
    def texts(self) -> list[str]:
        """All that is written in it."""
        plain = [message["content"] for message in self.messages if isinstance(message["content"], str)]
        return plain + [part["text"] for part in self._parts() if part["type"] == "text"]

    @property
    def is_single_turn(self) -> bool:
        return len(self.messages) == 1

    def asking(self, text: str) -> Conversation:
        """The same with another text in its last turn."""
        *earlier, last = self.messages
        content = last["content"]
        if isinstance(content, str):
            changed: Any = text
        else:
            at = max(number for number, part in enumerate(content) if part["type"] == "text")
            changed = [*content[:at], {**content[at], "text": text}, *content[at + 1 :]]
        return replace(self, messages=(*earlier, {**last, "content": changed}))

    def showing(self, media: Sequence[Medium]) -> Conversation:
        """The same with others in the places of its own pictures and videos."""
        left = iter(media)
        return replace(
            self,
            messages=tuple(
                message
                if isinstance(message["content"], str)
                else {
                    **message,
                    "content": [
                        {**part, part["type"]: next(left)} if part["type"] in _MEDIA else part
                        for part in message["content"]
                    ],
                }
                for message in self.messages
            ),
        )

    def beside(self, number: int, image: Image.Image) -> Conversation:
        """The same with another picture right after one of its pictures and videos, counted from 0."""
        left = iter(range(len(self.media)))
        messages = []
        for message in self.messages:
            if not isinstance(message["content"], str):
                parts: list[dict[str, Any]] = []
                for part in message["content"]:
                    parts.append(part)
                    if part["type"] in _MEDIA and next(left) == number:
                        parts.append({"type": "image", "image": image})
                message = {**message, "content": parts}
            messages.append(message)
        return replace(self, messages=tuple(messages))

    def _parts(self) -> list[dict[str, Any]]:
        return [
            part for message in self.messages if not isinstance(message["content"], str) for part in message["content"]
        ]


def one_turn(media: Sequence[Medium], text: str) -> Conversation:
    """The user shows pictures or videos, then says a text."""
    kinds = ["video" if isinstance(one, Video) else "image" for one in media]
    shown: list[dict[str, Any]] = [{"type": kind, kind: one} for kind, one in zip(kinds, media, strict=True)]
    return Conversation(
        ({"role": "user", "content": [*shown, {"type": "text", "text": text}]},), tuple(range(len(media)))
    )


def from_messages(messages: object, load: Load, highlight_images: Sequence[int] | None = None) -> Conversation:
    """A conversation from Transformers' chat format.

    Args:
        messages: turns {"role", "content"}. A picture is a part {"type": "image"} with "image", "path", "url" or
            "base64", a video {"type": "video"} with "video", "path" or "url"; the last turn is the user's and asks
            something.
        load: makes a picture ("image") or a video ("video") of what stands there.
        highlight_images: numbers of the pictures and videos that the question is about, counted through the whole
            conversation; by default those of the last user turn that has any.

    Raises:
        InvalidInputError: what is no such conversation, or has neither picture nor video.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise InvalidInputError(f"messages={shortened(messages)} is no conversation. Give a list of turns: {_EXAMPLE}.")
    turns: list[dict[str, Any]] = []
    newest: tuple[int, ...] = ()
    count = 0
    for number, message in enumerate(messages):
        turn = _turn(f"messages[{number}]", message, load)
        media = 0 if isinstance(turn["content"], str) else sum(part["type"] in _MEDIA for part in turn["content"])
        if media and turn["role"] == "user":
            newest = tuple(range(count, count + media))
        count += media
        turns.append(turn)
    _check_last(turns[-1], f"messages[{len(turns) - 1}]")
    if not count:
        raise InvalidInputError(
            f"the {len(turns)} messages hold no picture and no video. Put one into a user's turn: {_EXAMPLE}."
        )
    return Conversation(tuple(turns), newest if highlight_images is None else _numbers(highlight_images, count))


def _turn(name: str, message: object, load: Load) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str) or "content" not in message:
        raise InvalidInputError(f"{name}={shortened(message)} is no turn. Write {_EXAMPLE}.")
    content = message["content"]
    if isinstance(content, str):
        return dict(message)
    if not isinstance(content, Sequence):
        raise InvalidInputError(f"{name}: content={shortened(content)} is neither a text nor a list of parts.")
    return {**message, "content": [_part(f"{name}, part {n}", part, load) for n, part in enumerate(content)]}


def _part(name: str, part: object, load: Load) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and kind == "text" and isinstance(part.get("text"), str):
        return dict(part)
    if isinstance(part, Mapping) and kind in _MEDIA:
        keys = _MEDIA[kind]
        sources = [(key, part[key]) for key in keys if part.get(key) is not None]
        if len(sources) != 1:
            raise InvalidInputError(
                f"{name}={shortened(part)} holds {len(sources)} sources. Give one of {', '.join(keys)}."
            )
        ((key, source),) = sources
        loaded = load(kind, f"data:;base64,{source}" if key == "base64" else source)
        return {**{name: value for name, value in part.items() if name not in keys}, kind: loaded}
    raise InvalidInputError(
        f'{name}={shortened(part)} is of no kind that is known here: {{"type": "text", "text": ...}}, '
        '{"type": "image", "image": ...} or {"type": "video", "video": ...}.'
    )


def _check_last(turn: Mapping[str, Any], name: str) -> None:
    if turn["role"] != "user":
        raise InvalidInputError(f"{name} is of role {turn['role']!r}. The last turn is the user's, and asks something.")
    content = turn["content"]
    texts = [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]
    check_question(texts[-1] if texts else "", f"the text of {name}")


def _numbers(given: Sequence[int], count: int) -> tuple[int, ...]:
    wrong = [
        number for number in given if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < count
    ]
    if wrong or not given or len(set(given)) != len(given):
        raise InvalidInputError(
            f"highlight_images={list(given)} must name pictures of the conversation, each once: 0 to {count - 1}."
        )
    return tuple(given)


@dataclass(frozen=True)
class Asked:
    """A conversation that ends in the question as it was asked, and what is to stand around it.

    ``prompt``: see :meth:`vea_sdk.prompts.Prompts.chosen`. ``single``: whether one picture or video came alone.
    """

    conversation: Conversation
    prompt: str | None
    single: bool

    @property
    def question(self) -> str:
        return self.conversation.text

    def checked(self, prompts: Prompts) -> Asked:
        """This, once its prompt is known to be one."""
        prompts.chosen(self.prompt)
        return self

    def plain(self, prompts: Prompts) -> Conversation:
        """As it is asked first."""
        return self.conversation.asking(fill(prompts.chosen(self.prompt).plain, self.question))

    def pointing(self, prompts: Prompts, highlighted: Sequence[Medium]) -> Conversation:
        """As it is asked again, with what was highlighted in its place."""
        text = fill(prompts.chosen(self.prompt).pointing, self.question)
        media = self.conversation.media
        for number, one in zip(self.conversation.shown, highlighted, strict=True):
            media[number] = one
        return self.conversation.showing(media).asking(text)
