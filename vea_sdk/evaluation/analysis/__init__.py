"""The paper's study of one model: where its attention goes when it answers rightly, and when it does not."""

from vea_sdk.evaluation.analysis.files import write
from vea_sdk.evaluation.analysis.look import Look
from vea_sdk.evaluation.analysis.run import Analysis, analyze
from vea_sdk.evaluation.analysis.summaries import summary

__all__ = ["Analysis", "Look", "analyze", "summary", "write"]
