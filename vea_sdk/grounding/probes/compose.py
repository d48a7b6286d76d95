"""From a number and a seed to a picture with a question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from vea_sdk.errors import InvalidInputError
from vea_sdk.grounding.probes import chart, counting, document, receipt, scene, shapes, table
from vea_sdk.grounding.probes.lettering import Lettering
from vea_sdk.grounding.probes.sheet import Sheet, shade
from vea_sdk.grounding.samples import Sample

_Draw = Callable[[Sheet, Random], tuple[str, *tuple[str, ...]]]  # the question, and every answer to accept

_DRAWN: dict[str, _Draw] = {
    "scene": scene.draw,
    "document": document.draw,
    "receipt": receipt.draw,
    "table": table.draw,
    "chart": chart.draw,
    "shapes": shapes.draw,
    "counting": counting.draw,
}

KINDS = tuple(_DRAWN)
"""Signs in a scene, lines of a document, receipts, tables, bar charts, coloured shapes, cards to count on."""

SIZES = ((448, 448), (640, 480), (480, 640), (800, 600), (672, 672), (1024, 768))
CLUTTER = (0, 1, 2)


def probes(
    n: int,
    seed: int = 0,
    kinds: Sequence[str] | None = None,
    font: str | Path | None = None,
    scripts: Sequence[str] | None = None,
    sizes: Sequence[tuple[int, int]] = SIZES,
    clutter: Sequence[int] = CLUTTER,
) -> list[Sample]:
    """``n`` drawn pictures, each with a question, its answer, and the box of the one region that answers it.

    The box is tight around the pixels that hold the evidence. Kinds take turns, and so do scripts. The same arguments
    give the same bytes (with the same Pillow), and a larger ``n`` only adds pictures at the end.

    Args:
        n: how many.
        seed: another seed, other pictures.
        kinds: some of ``vea_sdk.grounding.probes.KINDS``, by default all.
        font: a font file; by default Pillow's own, which writes English only.
        scripts: some of ``vea_sdk.grounding.probes.SCRIPTS``, by default those that the font has.
        sizes: (width, height) in pixels to draw from, each at least 200.
        clutter: how much else there is to see, 0 to 2, to draw from.

    Raises:
        InvalidInputError: ``n`` is negative, a kind, script, size or amount of clutter is unknown, or the font is
            unreadable or lacks a script.
    """
    if n < 0:
        raise InvalidInputError(f"n={n} pictures cannot be drawn; give 0 or more.")
    chosen = _some("kinds", KINDS if kinds is None else kinds, KINDS)
    sizes = list(sizes)
    if not sizes or any(min(size) < 200 for size in sizes):
        raise InvalidInputError(f"sizes={sizes}: give one or more (width, height), each at least 200 pixels.")
    levels = _some("clutter", clutter, CLUTTER)
    lettering = Lettering(font)
    words = [lettering.words(script) for script in (lettering.scripts() if scripts is None else scripts)]
    if not words:
        raise InvalidInputError("scripts is empty: name at least one.")
    samples = []
    for number in range(n):
        turn, place = divmod(number, len(chosen))
        rng = Random(f"vea-probe {seed} {number}")
        kind, nouns, size, level = chosen[place], words[turn % len(words)], rng.choice(sizes), rng.choice(levels)
        samples.append(compose(kind, rng, lettering, nouns, size, level, f"probe-{seed}-{number}"))
    return samples


def compose(
    kind: str,
    rng: Random,
    lettering: Lettering,
    words: Sequence[str],
    size: tuple[int, int],
    clutter: int,
    name: str = "",
    blank: bool = False,
) -> Sample:
    """One picture. ``blank`` leaves the evidence out and changes nothing else; everything else see :func:`probes`."""
    sheet = Sheet(size, shade(rng, 100, 205), lettering, words, clutter, blank)
    question, *answers = _DRAWN[kind](sheet, rng)
    return Sample(sheet.image, question, tuple(answers), (sheet.box,), name, kind)


def _some(name: str, given: Sequence[Any], known: Sequence[Any]) -> list[Any]:
    unknown = [one for one in given if one not in known]
    if unknown or not given:
        said = f"{unknown[0]!r} is unknown" if unknown else "is empty"
        raise InvalidInputError(f"{name}: {said}. Choose among {', '.join(map(str, known))}.")
    return list(given)
