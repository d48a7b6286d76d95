"""What can stand on a picture: labels, the random values beside them, and how one asks for them.

Every value is invented. Words are built from syllables and numbers are drawn at random, so that no answer can be
guessed from its question.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

Maker = Callable[[Random], str]

_SYLLABLES = [c + v for c in "BDFGKLMNPRSTVZ" for v in "AEIOU"]


def digits(count: int) -> Maker:
    """A number of exactly ``count`` digits."""
    return lambda rng: "".join(rng.choice("0123456789") for _ in range(count))


def word(rng: Random) -> str:
    """An invented word of two or three syllables."""
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.choice((2, 2, 3)))) + rng.choice(["", "N", "R", "X"])


def name(rng: Random) -> str:
    """An initial and an invented surname."""
    return f"{rng.choice('ABCDEFGHIJKLMNOPQRSTUVWXYZ')} {word(rng)}"


def code(letters: int, count: int) -> Maker:
    """Capitals followed by digits, such as KX204."""
    capitals = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return lambda rng: "".join(rng.choice(capitals) for _ in range(letters)) + digits(count)(rng)


def seat(rng: Random) -> str:
    """A row and a letter, such as 14C."""
    return f"{rng.randint(1, 48)}{rng.choice('ABCDEF')}"


def price(top: int) -> Maker:
    """An amount below ``top`` with two decimals."""
    return lambda rng: f"{rng.randrange(100, top * 100) / 100:.2f}"


def date(rng: Random) -> str:
    """Day, month and year, such as 07.11.26."""
    return f"{rng.randint(1, 28):02}.{rng.randint(1, 12):02}.{rng.randint(0, 99):02}"


def month(rng: Random) -> str:
    """Month and year, such as 08/27."""
    return f"{rng.randint(1, 12):02}/{rng.randint(0, 99):02}"


def time(rng: Random) -> str:
    """Hours and minutes, such as 18:45."""
    return f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"


@dataclass(frozen=True)
class Field:
    """One kind of entry: the printed label, the words a question uses for it, and the maker of its values."""

    label: str
    phrase: str
    make: Maker
    priced: bool = False

    def question(self, rng: Random) -> str:
        """One of several wordings of the question for this entry."""
        if self.priced:
            forms = ["How much is the {}?", "What does the {} cost?", "What is the price of the {}?"]
        else:
            forms = ["What is the {}?", "Which {} is shown?", "Read the {}."]
        return rng.choice(forms).format(self.phrase)


def _fields(*entries: tuple[str, str, Maker]) -> list[Field]:
    return [Field(label, phrase, make) for label, phrase, make in entries]


_GOODS = ["COFFEE", "TEA", "MILK", "BREAD", "CHEESE", "APPLE", "BANANA", "SOUP", "SALAD", "PASTA", "RICE", "CAKE"]
_GOODS += ["JUICE", "WATER", "EGGS", "HONEY", "BUTTER", "PIZZA", "TOAST", "OLIVES"]

GOODS = [Field(good, good.lower(), price(20), priced=True) for good in _GOODS]

RECEIPT = _fields(("TOTAL", "total", price(200)), ("DATE", "date", date), ("TABLE", "table", digits(2)))

FIELDS = {
    "invoice": _fields(
        ("INVOICE", "invoice number", digits(5)),
        ("DATE", "date", date),
        ("DUE", "due date", date),
        ("CLIENT", "client", word),
        ("ORDER", "order number", code(2, 4)),
        ("TAX", "tax", price(100)),
        ("AMOUNT", "amount", price(900)),
    ),
    "identity": _fields(
        ("NAME", "name", name),
        ("ID NO", "identity number", digits(6)),
        ("BORN", "date of birth", date),
        ("EXPIRES", "expiry date", date),
        ("CITY", "city", word),
        ("CODE", "code", code(1, 3)),
    ),
    "boarding": _fields(
        ("NAME", "name", name),
        ("FLIGHT", "flight", code(2, 3)),
        ("GATE", "gate", code(1, 2)),
        ("SEAT", "seat", seat),
        ("BOARDS", "boarding time", time),
        ("FROM", "origin", word),
        ("TO", "destination", word),
        ("DATE", "date", date),
    ),
    "bank": _fields(
        ("HOLDER", "holder", name),
        ("CARD NO", "card number", digits(8)),
        ("VALID", "validity", month),
        ("SINCE", "starting year", digits(4)),
        ("BRANCH", "branch", digits(3)),
    ),
    "business": _fields(
        ("NAME", "name", name),
        ("PHONE", "phone number", digits(7)),
        ("ROOM", "room", code(1, 3)),
        ("CITY", "city", word),
        ("DESK", "desk", digits(2)),
        ("EXT", "extension", digits(4)),
    ),
}
"""The entries of every kind of picture but the receipt, whose lines are goods."""

KINDS = ("receipt", *FIELDS)

ABSENT = "no evidence"
"""The answer to a question about an entry that the picture does not hold."""


def all_fields() -> list[Field]:
    """Every entry once, by label."""
    known = {field.label: field for group in (GOODS, RECEIPT, *FIELDS.values()) for field in group}
    return list(known.values())
