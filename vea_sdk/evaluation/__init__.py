"""Does showing the evidence help? Data sets, the methods compared, and the analysis of where a model looks."""

from vea_sdk.evaluation.datasets import Dataset
from vea_sdk.evaluation.methods import METHODS, WAYS, Method, sweep
from vea_sdk.evaluation.result import Evaluation
from vea_sdk.evaluation.runner import evaluate
from vea_sdk.evaluation.scoring import score

__all__ = ["METHODS", "WAYS", "Dataset", "Evaluation", "Method", "evaluate", "score", "sweep"]
