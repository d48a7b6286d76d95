"""LLaVA 1.5, also in its square-padding variant, and LLaVA-NeXT."""

from __future__ import annotations

from tests import families
from tests.conformance.tiny import Tiny, case


@case("llava")
def llava() -> Tiny:
    tiny = families.llava()
    return Tiny(tiny.model, tiny.processor, tiny.image_token_id, "<image>\n")


@case("llava_next")
def llava_next() -> Tiny:
    tiny = families.llava_next()
    return Tiny(tiny.model, tiny.processor, tiny.image_token_id, "<image>\n")
