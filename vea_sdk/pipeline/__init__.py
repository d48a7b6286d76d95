"""From picture and question to evidence and answer: wrap → attend → ask."""

from vea_sdk.pipeline.answer import Answer, Mode
from vea_sdk.pipeline.asking import HighlightOn
from vea_sdk.pipeline.vlm import VLM, wrap

__all__ = ["VLM", "Answer", "HighlightOn", "Mode", "wrap"]
