"""Letters: a font, and words of the scripts that it has."""

from __future__ import annotations

import string
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vea_sdk.errors import InvalidInputError

SCRIPTS = {
    "latin": "coffee bread cheese apple lemon honey butter salt pepper river garden window bridge mirror candle pencil "
    "basket violin ladder anchor falcon maple copper velvet",
    "greek": "καφές ψωμί τυρί μήλο λεμόνι μέλι βούτυρο αλάτι πιπέρι ποτάμι κήπος παράθυρο γέφυρα καθρέφτης κερί μολύβι "
    "καλάθι βιολί σκάλα άγκυρα γεράκι φύλλο χαλκός βελούδο",
    "cyrillic": "кофе хлеб сыр яблоко лимон мёд масло соль перец река сад окно мост зеркало свеча карандаш корзина "
    "скрипка лестница якорь сокол клён медь бархат",
}
"""Everyday nouns, the same ones in each script."""

_ALWAYS = string.ascii_letters + string.digits + ".,:"
_NOWHERE = "\uffff"  # not a character: every font shows its sign for a missing glyph


class Lettering:
    """A font at any size, and what it can write.

    Args:
        font: a TrueType or OpenType file; None is Pillow's own, which has no letters but the English ones.

    Raises:
        InvalidInputError: the file is no font, or has no Latin letters and digits.
    """

    def __init__(self, font: str | Path | None = None) -> None:
        self.name = "Pillow's own font" if font is None else f"font {str(font)!r}"
        self._path = None if font is None else str(font)
        try:
            missing = self.missing(_ALWAYS)
        except OSError as error:
            raise InvalidInputError(f"{self.name} cannot be read: {error}. Give a .ttf or .otf file.") from error
        if missing:
            raise InvalidInputError(
                f"{self.name} has no glyphs for {missing!r}, which all pictures need. Give another."
            )

    def words(self, script: str) -> list[str]:
        """The nouns of a script.

        Raises InvalidInputError when the script is unknown, or the font does not have it.
        """
        if script not in SCRIPTS:
            raise InvalidInputError(f"script {script!r} is unknown. Choose among {', '.join(SCRIPTS)}.")
        missing = self.missing(SCRIPTS[script])
        if missing:
            raise InvalidInputError(
                f"{self.name} has no glyphs for {script} ({missing[:12]!r}). Give font= a file that has them, such as "
                "DejaVuSans.ttf, or leave the script out."
            )
        return SCRIPTS[script].split()

    def scripts(self) -> list[str]:
        """The scripts whose letters the font has."""
        return [script for script, words in SCRIPTS.items() if not self.missing(words)]

    def missing(self, text: str) -> str:
        """The characters of a text that the font does not have."""
        absent = _drawn(self._path, 24, _NOWHERE)
        return "".join(sorted(c for c in {*text} - {" "} if _drawn(self._path, 24, c) == absent))

    def ink(self, text: str, size: int) -> tuple[Image.Image, int, int]:
        """A line of text: its ink, mode L, cut tight, and how far right and below the start of its baseline that is."""
        font = _font(self._path, size)
        left, top, right, bottom = font.getbbox(text, anchor="ls")
        x, y = 1 - round(left), 1 - round(top)
        sheet = Image.new("L", (round(right) + x + 2, round(bottom) + y + 2))
        ImageDraw.Draw(sheet).text((x, y), text, fill=255, font=font, anchor="ls")
        box = sheet.getbbox()
        assert box is not None  # words and numbers that the font has
        return sheet.crop(box), box[0] - x, box[1] - y

    def fitting(self, text: str, width: float, size: int) -> int:
        """The largest font size up to ``size`` at which the text is no wider than ``width``."""
        return max(6, min(size, int(size * width / self.width(text, size))))

    def width(self, text: str, size: int) -> float:
        """How wide a line of text is."""
        return _font(self._path, size).getlength(text)


@cache
def _font(path: str | None, size: int) -> ImageFont.FreeTypeFont:
    if path is not None:
        return ImageFont.truetype(path, size)
    return ImageFont.load_default(size)  # type: ignore[return-value]


@cache
def _drawn(path: str | None, size: int, character: str) -> bytes:
    return bytes(_font(path, size).getmask(character))
