"""How well scores point at the evidence, and how well an answer matches."""

from vea_sdk.grounding.metrics.answers import anls, exact_match, token_f1, vqa_accuracy
from vea_sdk.grounding.metrics.labels import Rule, patch_labels
from vea_sdk.grounding.metrics.places import iou, pointing_game
from vea_sdk.grounding.metrics.ranking import auroc, average_precision, ndcg
from vea_sdk.grounding.rapt import rapt

__all__ = [
    "Rule",
    "anls",
    "auroc",
    "average_precision",
    "exact_match",
    "iou",
    "ndcg",
    "patch_labels",
    "pointing_game",
    "rapt",
    "token_f1",
    "vqa_accuracy",
]
