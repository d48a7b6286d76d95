"""The margin beside a heat map that says what its colours mean."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vea_sdk.evidence.colours import heat

_TITLE = "look"


def with_legend(picture: Image.Image, opacity: float) -> Image.Image:
    """The picture with a bar at its right: the colours of a map from 0 to 1, as they lie on white and on black.

    The numbers are those of the map: 1 is where the model looked most, 0 where it looked least.
    """
    size = min(28, max(11, round(picture.height / 28)))
    font = ImageFont.load_default(size)
    margin, bar, tick = size, round(1.4 * size), round(0.4 * size)
    width = picture.width + 2 * margin + bar + tick + round(font.getlength("0.5"))
    canvas = Image.new("RGB", (width, picture.height), "white")
    canvas.paste(picture, (0, 0))
    top, bottom = round(2.2 * size), picture.height - size
    if bottom - top < 3 * size:  # too low for numbers: the bar alone
        top, bottom = 0, picture.height
    values = np.linspace(1, 0, bottom - top, dtype=np.float32)
    colours = heat()[np.rint(255 * values).astype(np.uint8)]
    weight = (opacity * values)[:, None]
    halves = [np.rint(ground + weight * (colours - ground)).astype(np.uint8) for ground in (255.0, 0.0)]
    left = picture.width + margin
    pixels = np.repeat(np.stack(halves, axis=1), [bar - bar // 2, bar // 2], axis=1)
    canvas.paste(Image.fromarray(pixels), (left, top))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((left - 1, top - 1, left + bar, bottom), outline=(120, 120, 120))
    if top:
        draw.text((left, round(0.5 * size)), _TITLE, fill="black", font=font)
        for value in (1.0, 0.5, 0.0):
            y = top + (1 - value) * (bottom - 1 - top)
            draw.line((left + bar, y, left + bar + tick, y), fill=(120, 120, 120))
            draw.text((left + bar + 2 * tick, y), f"{value:g}", fill="black", font=font, anchor="lm")
    return canvas
