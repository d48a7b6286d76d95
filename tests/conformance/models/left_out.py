"""What the mapping lists though no prompt token of it looks at image tokens."""

from __future__ import annotations

from tests.conformance.tiny import leave_out

leave_out("mistral4", "left out: a text model, it takes no picture (as the text part of another it is captured there)")
leave_out("evolla", "left out: it reads protein sequences, not pictures")
leave_out("pi0", "left out: a robot policy that denoises actions; there is no prompt token whose row is read")
leave_out("diffusion_gemma", "left out: it denoises blocks of text in many passes; there is no last prompt token")
leave_out(
    "udop", "left out: patches are added into the tokens of the words they lie under, so image tokens are no own keys"
)
