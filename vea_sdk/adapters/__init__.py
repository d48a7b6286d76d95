"""Architectures: where the image tokens are, how they tile the picture, which modules compute attention."""

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.call import AttentionCall
from vea_sdk.adapters.frames import VideoLayout
from vea_sdk.adapters.geometry import ImageLayout, PatchGrid
from vea_sdk.adapters.registry import families, find, register

__all__ = ["Adapter", "AttentionCall", "ImageLayout", "PatchGrid", "VideoLayout", "families", "find", "register"]
