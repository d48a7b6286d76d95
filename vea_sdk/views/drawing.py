"""A picture of the windows that were looked at."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from vea_sdk.adapters.geometry import Box

LOOKED = (255, 255, 255)
ANSWERED = (255, 160, 0)
TAKEN = (0, 200, 80)
DARKER = 0.45
"""What is left of the brightness outside the window that was taken."""


def draw_windows(image: Image.Image, looked: Sequence[Box], answered: Sequence[Box], taken: Box | None) -> Image.Image:
    """The picture with the outlines of windows: thin and white where they were looked at, orange where they were
    answered; around the one whose answer was taken a thick green line, and the rest of the picture darker.

    Args:
        image: the whole picture, RGB. looked, answered: boxes in its pixels. taken: None where none was.
    """
    shown = image.point(lambda value: round(DARKER * value)) if taken else image.copy()
    if taken:
        inside = tuple(round(value) for value in taken)
        shown.paste(image.crop(inside), inside[:2])  # type: ignore[arg-type]
    width = max(1, round(min(image.size) / 300))
    faint = Image.new("RGBA", image.size)
    pen = ImageDraw.Draw(faint)
    for box in looked:
        pen.rectangle(_inner(box), outline=(*LOOKED, 110), width=width)
    shown.paste(faint, (0, 0), faint)
    pen = ImageDraw.Draw(shown)
    for box in answered:
        pen.rectangle(_inner(box), outline=ANSWERED, width=2 * width)
    if taken:
        pen.rectangle(_inner(taken), outline=TAKEN, width=4 * width)
    return shown


def _inner(box: Box) -> tuple[float, float, float, float]:
    """The box without its last pixels, which Pillow would draw beyond it."""
    x0, y0, x1, y1 = box
    return x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)
