"""What is asked: a plain question, and one that points at the highlighted region.

Both can be replaced (``wrap(..., plain_prompt=, highlight_prompt=)``, and ``prompt=`` of a call); ``{question}`` stands
for the user's question, and every other character, braces included, is text.
"""

from __future__ import annotations

from dataclasses import dataclass

from vea_sdk.errors import InvalidInputError

PLAIN_PROMPT = "{question}\nAnswer briefly, from the image alone. If the image holds no evidence, say so."

HIGHLIGHT_PROMPT = (
    "{question}\nAnswer briefly, from the image alone, and look closely at the highlighted region. "
    "If the image holds no evidence, say so."
)

POINTING_SENTENCE = "\nLook closely at the highlighted region."
"""What the second question adds to a prompt of the user's own."""

_PLACE = "{question}"


@dataclass(frozen=True)
class Prompts:
    """The texts around a question: ``plain`` when it is asked first, ``pointing`` when the evidence is highlighted."""

    plain: str = PLAIN_PROMPT
    pointing: str = HIGHLIGHT_PROMPT

    def __post_init__(self) -> None:
        check_template("plain_prompt", self.plain)
        check_template("highlight_prompt", self.pointing)

    def chosen(self, prompt: str | None) -> Prompts:
        """Those of one call: ``"method"`` or None: these; ``"raw"``: the question alone, twice; a text with
        ``{question}``: that one, and with a sentence that points at the highlighted region."""
        if prompt is None or prompt == "method":
            return self
        if prompt == "raw":
            return Prompts(_PLACE, _PLACE)
        if not isinstance(prompt, str) or _PLACE not in prompt:
            raise InvalidInputError(
                f'prompt={shortened(prompt)} is unknown. Choose "method", "raw", or a text of your own with {_PLACE} '
                "where the question goes."
            )
        check_template("prompt", prompt)
        return Prompts(prompt, prompt + POINTING_SENTENCE)


def fill(template: str, question: str) -> str:
    """The template with the question in its place; nothing else is replaced."""
    return template.replace(_PLACE, question)


def check_template(name: str, template: str) -> None:
    if not isinstance(template, str) or _PLACE not in template:
        raise InvalidInputError(
            f"{name}={shortened(template)} has no place for the question: put {_PLACE} where it goes."
        )
    if "{{question}}" in template:
        raise InvalidInputError(
            f"{name}={shortened(template)} writes {{{{question}}}}, which would stay in the text as braces. Write "
            f"{_PLACE}: only that is replaced, and other braces need no doubling."
        )


def check_question(question: object, name: str = "question") -> str:
    """The question, known to be a text that is not empty."""
    if not isinstance(question, str) or not question.strip():
        raise InvalidInputError(f"{name}={shortened(question)} is no question. Give a text that is not empty.")
    return question


def shortened(value: object, most: int = 80) -> str:
    """How an error quotes a value: its repr, without the middle where that is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 20]}…{text[-10:]}"
