"""InternVL: one run of tiles and a thumbnail."""

from __future__ import annotations

from tests import families
from tests.conformance.tiny import Tiny, case


@case("internvl")
def internvl() -> Tiny:
    tiny = families.internvl()
    return Tiny(tiny.model, tiny.processor, tiny.image_token_id, "<IMG_CONTEXT>\n")
