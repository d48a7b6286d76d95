"""What is said to a model: turns of a chat with their pictures, in Transformers' chat format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence.images import ImageSource
from vea_sdk.prompts import Prompts, check_question, fill, shortened

Message = Mapping[str, Any]

_IMAGE_KEYS = ("image", "path", "url", "base64")
_EXAMPLE = '{"role": "user", "content": [{"type": "image", "image": ...}, {"type": "text", "text": ...}]}'


@dataclass(frozen=True)
class Conversation:
    """Turns of a chat, the last one the user's, its pictures loaded.

    ``messages``: {"role", "content"}; content is a text, or a list of parts, in which {"type": "image"} holds a loaded
    picture under "image". ``shown``: which of the pictures, in order, are those that the question is about.
    """

    messages: tuple[dict[str, Any], ...]
    shown: tuple[int, ...]

    @property
    def pictures(self) -> list[Image.Image]:
        """All of them, in the order in which the model is shown them."""
        return [part["image"] for part in self._parts() if part["type"] == "image"]

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

    def showing(self, pictures: Sequence[Image.Image]) -> Conversation:
        """The same with other pictures in the places of its own."""
        left = iter(pictures)
        return replace(
            self,
            messages=tuple(
                message
                if isinstance(message["content"], str)
                else {
                    **message,
                    "content": [
                        {**part, "image": next(left)} if part["type"] == "image" else part
                        for part in message["content"]
                    ],
                }
                for message in self.messages
            ),
        )

    def _parts(self) -> list[dict[str, Any]]:
        return [
            part for message in self.messages if not isinstance(message["content"], str) for part in message["content"]
        ]


def one_turn(pictures: Sequence[Image.Image], text: str) -> Conversation:
    """The user shows pictures, then says a text."""
    content = [*({"type": "image", "image": picture} for picture in pictures), {"type": "text", "text": text}]
    return Conversation(({"role": "user", "content": content},), tuple(range(len(pictures))))


def from_messages(
    messages: object, load: Callable[[ImageSource], Image.Image], highlight_images: Sequence[int] | None = None
) -> Conversation:
    """A conversation from Transformers' chat format.

    Args:
        messages: turns {"role", "content"}. A picture is a part {"type": "image"} with "image", "path", "url" or
            "base64"; the last turn is the user's and asks something.
        load: makes a picture of what stands there.
        highlight_images: numbers of the pictures that the question is about, counted through the whole conversation;
            by default those of the last user turn that has any.

    Raises:
        InvalidInputError: what is no such conversation, or has no picture.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise InvalidInputError(f"messages={shortened(messages)} is no conversation. Give a list of turns: {_EXAMPLE}.")
    turns: list[dict[str, Any]] = []
    newest: tuple[int, ...] = ()
    count = 0
    for number, message in enumerate(messages):
        turn = _turn(f"messages[{number}]", message, load)
        pictures = 0 if isinstance(turn["content"], str) else sum(part["type"] == "image" for part in turn["content"])
        if pictures and turn["role"] == "user":
            newest = tuple(range(count, count + pictures))
        count += pictures
        turns.append(turn)
    _check_last(turns[-1], f"messages[{len(turns) - 1}]")
    if not count:
        raise InvalidInputError(f"the {len(turns)} messages hold no picture. Put one into a user's turn: {_EXAMPLE}.")
    return Conversation(tuple(turns), newest if highlight_images is None else _numbers(highlight_images, count))


def _turn(name: str, message: object, load: Callable[[ImageSource], Image.Image]) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str) or "content" not in message:
        raise InvalidInputError(f"{name}={shortened(message)} is no turn. Write {_EXAMPLE}.")
    content = message["content"]
    if isinstance(content, str):
        return dict(message)
    if not isinstance(content, Sequence):
        raise InvalidInputError(f"{name}: content={shortened(content)} is neither a text nor a list of parts.")
    return {**message, "content": [_part(f"{name}, part {n}", part, load) for n, part in enumerate(content)]}


def _part(name: str, part: object, load: Callable[[ImageSource], Image.Image]) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and kind == "text" and isinstance(part.get("text"), str):
        return dict(part)
    if isinstance(part, Mapping) and kind == "image":
        sources = [(key, part[key]) for key in _IMAGE_KEYS if part.get(key) is not None]
        if len(sources) != 1:
            raise InvalidInputError(
                f"{name}={shortened(part)} is a picture with {len(sources)} sources. Give one of "
                f"{', '.join(_IMAGE_KEYS)}."
            )
        ((key, source),) = sources
        picture = load(f"data:;base64,{source}" if key == "base64" else source)
        return {**{k: v for k, v in part.items() if k not in _IMAGE_KEYS}, "image": picture}
    raise InvalidInputError(
        f'{name}={shortened(part)} is of no kind that is known here: {{"type": "text", "text": ...}} or '
        '{"type": "image", "image": ...}.'
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

    ``prompt``: see :meth:`vea_sdk.prompts.Prompts.chosen`. ``single``: whether one picture was given by itself.
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

    def pointing(self, prompts: Prompts, highlighted: Sequence[Image.Image]) -> Conversation:
        """As it is asked again, with the highlighted pictures in their places."""
        text = fill(prompts.chosen(self.prompt).pointing, self.question)
        pictures = self.conversation.pictures
        for number, picture in zip(self.conversation.shown, highlighted, strict=True):
            pictures[number] = picture
        return self.conversation.showing(pictures).asking(text)
