"""Data sets as sequences of samples, boxes in pixels of the original picture throughout."""

from vea_sdk.evaluation.datasets.dataset import Dataset, Record
from vea_sdk.evaluation.datasets.folder import read_folder, write_folder
from vea_sdk.evaluation.datasets.hub import read_hub
from vea_sdk.evaluation.datasets.locate import read
from vea_sdk.evaluation.datasets.visualcot import read_visualcot

__all__ = ["Dataset", "Record", "read", "read_folder", "read_hub", "read_visualcot", "write_folder"]
