"""Scores → evidence map → pictures: the stages of the method, pure functions with the paper's names."""

from vea_sdk.evidence.denoising import denoise
from vea_sdk.evidence.highlighting import highlight
from vea_sdk.evidence.images import is_single, load_image
from vea_sdk.evidence.maps import build_map, layout_map, look_map
from vea_sdk.evidence.normalizing import normalize
from vea_sdk.evidence.overlaying import overlay
from vea_sdk.evidence.regions import Region
from vea_sdk.evidence.result import Evidence
from vea_sdk.evidence.smoothing import smooth
from vea_sdk.evidence.video import VideoEvidence
from vea_sdk.evidence.videos import Video, load_video

__all__ = [
    "Evidence",
    "Region",
    "Video",
    "VideoEvidence",
    "build_map",
    "denoise",
    "highlight",
    "is_single",
    "layout_map",
    "load_image",
    "load_video",
    "look_map",
    "normalize",
    "overlay",
    "smooth",
]
