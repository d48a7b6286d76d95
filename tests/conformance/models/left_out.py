"""What the mapping lists though no prompt token of it looks at image tokens of its own."""

from __future__ import annotations

from tests.conformance.tiny import leave_out

leave_out("mistral4", "left out: a text model, it takes no picture")
leave_out("evolla", "left out: it reads protein sequences, not pictures")
leave_out("pi0", "left out: a robot policy that denoises actions; there is no prompt token whose row is read")
leave_out("diffusion_gemma", "left out: it denoises blocks of text in many passes; there is no last prompt token")
leave_out("udop", "left out: it needs words with boxes (OCR); patches under a word are merged into its token")
