"""Pictures drawn on the fly, with a question about one region of them whose place is known to the pixel."""

from vea_sdk.grounding.probes.compose import KINDS, probes
from vea_sdk.grounding.probes.lettering import SCRIPTS

__all__ = ["KINDS", "SCRIPTS", "probes"]
