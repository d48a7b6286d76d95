"""Every adapter of this package. The registry imports it at first need: there are many, and most runs use one."""

from __future__ import annotations

from vea_sdk.adapters.aya_vision import AyaVisionAdapter
from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.blip import BlipAdapter, GitAdapter
from vea_sdk.adapters.cohere import Cohere2VisionAdapter
from vea_sdk.adapters.emu3 import Apertus1p5Adapter, Emu3Adapter
from vea_sdk.adapters.ernie import ErnieAdapter
from vea_sdk.adapters.florence2 import Florence2Adapter
from vea_sdk.adapters.fuyu import FuyuAdapter
from vea_sdk.adapters.gemma3 import Gemma3Adapter, ShieldGemma2Adapter
from vea_sdk.adapters.gemma4 import Gemma4Adapter
from vea_sdk.adapters.glm5_next import Glm5NextAdapter
from vea_sdk.adapters.got_ocr2 import GotOcr2Adapter
from vea_sdk.adapters.granite import Granite4VisionAdapter, GraniteDoclingAdapter
from vea_sdk.adapters.hunyuan import HunYuanVLAdapter, HYV4VLAdapter
from vea_sdk.adapters.idefics import Idefics3Adapter
from vea_sdk.adapters.idefics1 import IdeficsAdapter
from vea_sdk.adapters.inkling import Inkling2LoopAdapter, InklingAdapter
from vea_sdk.adapters.internvl import InternVLAdapter
from vea_sdk.adapters.kimi import KimiAdapter
from vea_sdk.adapters.lfm2_vl import Lfm2VlAdapter
from vea_sdk.adapters.llama4 import Llama4Adapter
from vea_sdk.adapters.llava import LlavaAdapter
from vea_sdk.adapters.llava_next import LlavaNextAdapter, LlavaNextVideoAdapter
from vea_sdk.adapters.llava_onevision import LlavaOnevisionAdapter
from vea_sdk.adapters.minicpm import MiniCPMVAdapter
from vea_sdk.adapters.mllama import MllamaAdapter
from vea_sdk.adapters.molmo2 import Molmo2Adapter
from vea_sdk.adapters.nemotron import NemotronOmniAdapter
from vea_sdk.adapters.ovis import Ovis2Adapter
from vea_sdk.adapters.perception_lm import PerceptionLMAdapter
from vea_sdk.adapters.pix2struct import Pix2StructAdapter
from vea_sdk.adapters.qwen_vl import QwenVLAdapter
from vea_sdk.adapters.resampled import Blip2Adapter, KosmosAdapter, QFormerAdapter, ResampledAdapter
from vea_sdk.adapters.step import Step3p7Adapter
from vea_sdk.adapters.t5gemma2 import T5Gemma2Adapter
from vea_sdk.adapters.unlimited_ocr import UnlimitedOcrAdapter
from vea_sdk.adapters.video_llama_3 import VideoLlama3Adapter
from vea_sdk.adapters.video_llava import VideoLlavaAdapter
from vea_sdk.adapters.vision_encoder import PPFormulaNetAdapter, VisionEncoderDecoderAdapter

ADAPTERS: tuple[type[Adapter], ...] = (
    Apertus1p5Adapter,
    AyaVisionAdapter,
    BlipAdapter,
    Cohere2VisionAdapter,
    Emu3Adapter,
    ErnieAdapter,
    Florence2Adapter,
    FuyuAdapter,
    Gemma3Adapter,
    Gemma4Adapter,
    GitAdapter,
    Glm5NextAdapter,
    GotOcr2Adapter,
    Granite4VisionAdapter,
    GraniteDoclingAdapter,
    HYV4VLAdapter,
    HunYuanVLAdapter,
    Idefics3Adapter,
    IdeficsAdapter,
    Inkling2LoopAdapter,
    InklingAdapter,
    InternVLAdapter,
    KimiAdapter,
    Blip2Adapter,
    KosmosAdapter,
    Lfm2VlAdapter,
    Llama4Adapter,
    LlavaAdapter,
    LlavaNextAdapter,
    LlavaNextVideoAdapter,
    LlavaOnevisionAdapter,
    MiniCPMVAdapter,
    MllamaAdapter,
    Molmo2Adapter,
    NemotronOmniAdapter,
    Ovis2Adapter,
    PPFormulaNetAdapter,
    PerceptionLMAdapter,
    Pix2StructAdapter,
    QFormerAdapter,
    QwenVLAdapter,
    ResampledAdapter,
    ShieldGemma2Adapter,
    Step3p7Adapter,
    T5Gemma2Adapter,
    UnlimitedOcrAdapter,
    VideoLlama3Adapter,
    VideoLlavaAdapter,
    VisionEncoderDecoderAdapter,
)
