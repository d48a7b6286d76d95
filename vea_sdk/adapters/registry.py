"""Which adapter serves which architecture."""

from __future__ import annotations

import warnings
from functools import cache

from torch import nn

from vea_sdk.adapters import support
from vea_sdk.adapters.aya_vision import AyaVisionAdapter
from vea_sdk.adapters.base import Adapter, model_type
from vea_sdk.adapters.blip import BlipAdapter, GitAdapter
from vea_sdk.adapters.cohere import Cohere2VisionAdapter
from vea_sdk.adapters.emu3 import Emu3Adapter
from vea_sdk.adapters.florence2 import Florence2Adapter
from vea_sdk.adapters.fuyu import FuyuAdapter
from vea_sdk.adapters.gemma3 import Gemma3Adapter
from vea_sdk.adapters.gemma4 import Gemma4Adapter
from vea_sdk.adapters.generic import GenericAdapter
from vea_sdk.adapters.glm5_next import Glm5NextAdapter
from vea_sdk.adapters.granite import Granite4VisionAdapter, GraniteDoclingAdapter
from vea_sdk.adapters.hunyuan import HunYuanVLAdapter
from vea_sdk.adapters.idefics import Idefics3Adapter
from vea_sdk.adapters.idefics1 import IdeficsAdapter
from vea_sdk.adapters.inkling import InklingAdapter
from vea_sdk.adapters.internvl import InternVLAdapter
from vea_sdk.adapters.kimi import KimiAdapter
from vea_sdk.adapters.lfm2_vl import Lfm2VlAdapter
from vea_sdk.adapters.llama4 import Llama4Adapter
from vea_sdk.adapters.llava import LlavaAdapter
from vea_sdk.adapters.llava_next import LlavaNextAdapter
from vea_sdk.adapters.llava_onevision import LlavaOnevisionAdapter
from vea_sdk.adapters.minicpm import MiniCPMVAdapter
from vea_sdk.adapters.mllama import MllamaAdapter
from vea_sdk.adapters.modules import unwrap
from vea_sdk.adapters.molmo2 import Molmo2Adapter
from vea_sdk.adapters.ovis import Ovis2Adapter
from vea_sdk.adapters.perception_lm import PerceptionLMAdapter
from vea_sdk.adapters.pix2struct import Pix2StructAdapter
from vea_sdk.adapters.qwen_vl import QwenVLAdapter
from vea_sdk.adapters.resampled import KosmosAdapter, QFormerAdapter, ResampledAdapter
from vea_sdk.adapters.step import Step3p7Adapter
from vea_sdk.adapters.t5gemma2 import T5Gemma2Adapter
from vea_sdk.adapters.unlimited_ocr import UnlimitedOcrAdapter
from vea_sdk.adapters.vision_encoder import PPFormulaNetAdapter, VisionEncoderDecoderAdapter
from vea_sdk.errors import InvalidInputError, UnsupportedModelError, UnverifiedModelWarning

ENTRY_POINT_GROUP = "vea_sdk.adapters"

_adapters: dict[str, type[Adapter]] = {}


def register(cls: type[Adapter]) -> type[Adapter]:
    """Let ``find`` return ``cls`` for each of its ``model_types``; also usable as a class decorator.

    Raises InvalidInputError when ``cls`` names no model type, or one that another class serves.
    """
    if not (isinstance(cls, type) and issubclass(cls, Adapter)):
        raise InvalidInputError(f"register() takes a subclass of vea_sdk.adapters.Adapter, not {cls!r}.")
    if not cls.model_types:
        raise InvalidInputError(
            f"{cls.__name__}.model_types is empty. Name the config.model_type values that it serves."
        )
    for name in cls.model_types:
        if (other := _adapters.get(name, cls)) is not cls:
            raise InvalidInputError(
                f"{other.__name__} already serves model type {name!r}, so {cls.__name__} cannot. Name other "
                "model_types, or pass your adapter where it is used (adapter=)."
            )
    _adapters.update(dict.fromkeys(cls.model_types, cls))
    return cls


def families() -> dict[str, type[Adapter]]:
    """Every model type served, with its adapter class: built-in, registered, and from installed packages."""
    _load_entry_points()
    return dict(sorted(_adapters.items()))


def find(model: nn.Module) -> Adapter:
    """The adapter of a model: the registered one, else the generic one where the configuration names an image token.

    Warns (UnverifiedModelWarning) when this release of the package was not tested on the architecture. Raises
    UnsupportedModelError for a model that tells nothing about its image tokens.
    """
    served = families()
    name = model_type(model)
    if name in served:
        return served[name](model)
    if name and GenericAdapter.matches(unwrap(model)):
        if not support.verified(name):
            warnings.warn(support.unverified(name), UnverifiedModelWarning, stacklevel=2)
        return GenericAdapter(model)
    what = f"model type {name!r}" if name else f"{type(model).__name__} (it has no config.model_type)"
    raise UnsupportedModelError(
        f"No adapter serves {what}. Served: {', '.join(served)}. Subclass vea_sdk.adapters.Adapter and "
        "register it, or capture with image_positions=."
    )


@cache
def _load_entry_points() -> None:
    from importlib.metadata import entry_points  # here, because it is slow to import and rarely needed

    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            register(entry_point.load())
        except Exception as error:  # a broken package must not take the other architectures down with it
            warnings.warn(f"The adapter {entry_point.name} ({entry_point.value}) was not loaded: {error}", stacklevel=3)


for _cls in (
    AyaVisionAdapter,
    BlipAdapter,
    Cohere2VisionAdapter,
    Emu3Adapter,
    Florence2Adapter,
    FuyuAdapter,
    Gemma3Adapter,
    Gemma4Adapter,
    GitAdapter,
    Glm5NextAdapter,
    Granite4VisionAdapter,
    GraniteDoclingAdapter,
    HunYuanVLAdapter,
    Idefics3Adapter,
    IdeficsAdapter,
    InklingAdapter,
    InternVLAdapter,
    KimiAdapter,
    KosmosAdapter,
    Lfm2VlAdapter,
    Llama4Adapter,
    LlavaAdapter,
    LlavaNextAdapter,
    LlavaOnevisionAdapter,
    MiniCPMVAdapter,
    MllamaAdapter,
    Molmo2Adapter,
    Ovis2Adapter,
    PPFormulaNetAdapter,
    PerceptionLMAdapter,
    Pix2StructAdapter,
    QFormerAdapter,
    QwenVLAdapter,
    ResampledAdapter,
    Step3p7Adapter,
    T5Gemma2Adapter,
    UnlimitedOcrAdapter,
    VisionEncoderDecoderAdapter,
):
    register(_cls)
