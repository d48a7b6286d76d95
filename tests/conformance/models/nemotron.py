"""Nemotron: pixels shuffled into channels, as ``downsample_ratio`` says, before a hybrid decoder."""

from __future__ import annotations

import transformers as hf

from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model, without


@case("nemotron_h_omni")
def nemotron_h_omni() -> Tiny:
    """Blocks of Mamba 2, experts and attention, all under one name; the processor returns ``image_grid_hw``."""
    tokenizer = byte_tokenizer(
        image_token="<image>",
        video_token="<video>",
        audio_token="<so_embedding>",
        image_start_token="<img>",
        image_end_token="</img>",
    )
    image_processor = hf.NemotronH_Omni_Reasoning_V3ImageProcessor(
        patch_size=4, min_num_patches=64, max_num_patches=576, max_model_len=1024
    )
    leaner = without(hf.NemotronH_Omni_Reasoning_V3Processor, "video_processor", "feature_extractor")
    processor = leaner(image_processor, tokenizer=tokenizer)
    text = {key: value for key, value in TEXT.items() if key != "num_hidden_layers"}
    config = hf.NemotronH_Omni_Reasoning_V3_Config(
        vision_config={
            "model_type": "radio",
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "mlp_ratio": 1.5,
            "patch_size": 4,
            "image_size": 48,
            "max_img_size": 128,
            "video_temporal_patch_size": 2,
        },
        text_config=text
        | {
            "model_type": "nemotron_h",
            "vocab_size": len(tokenizer),
            "layers_block_type": ["linear_attention", "full_attention", "moe", "full_attention"],
            "ssm_state_size": 16,
            "mamba_num_heads": 4,
            "mamba_head_dim": 32,
            "n_groups": 2,
            "chunk_size": 16,
            "n_routed_experts": 4,
            "moe_intermediate_size": 32,
            "moe_shared_expert_intermediate_size": 32,
        },
        vision_hidden_size=32,
        projector_hidden_size=64,
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
        audio_token_id=tokenizer.audio_token_id,
    )
    model = tiny_model(hf.NemotronH_Omni_Reasoning_V3, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<image>", layers=(1, 3))
