"""From picture and question to evidence and answer: wrap → attend → ask."""

from vea_sdk.pipeline.answer import Answer
from vea_sdk.pipeline.asking import HighlightOn
from vea_sdk.pipeline.candidates import Candidate, Cost
from vea_sdk.pipeline.support import Support
from vea_sdk.pipeline.vlm import VLM, wrap
from vea_sdk.pipeline.ways import Mode, Way

__all__ = ["VLM", "Answer", "Candidate", "Cost", "HighlightOn", "Mode", "Support", "Way", "wrap"]
