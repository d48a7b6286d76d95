"""The untrained model and its processor: a LLaVA of about two million parameters, from Transformers' own classes."""

from __future__ import annotations

from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from vea_sdk.prompts import HIGHLIGHT_PROMPT, PLAIN_PROMPT
from vea_sdk.tiny.fields import ABSENT, all_fields

from .data import INPUT, PATCH

USER, ASSISTANT, IMAGE, END, PAD = SPECIAL = ["<|user|>", "<|assistant|>", "<image>", "<|end|>", "<|pad|>"]

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|user|>' if message['role'] == 'user' else '<|assistant|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of the questions' words; capitals and digits stay single, so that values are read one by one."""
    rng = Random(0)
    corpus = [field.question(rng) for field in all_fields() for _ in range(30)]
    corpus += [PLAIN_PROMPT.format(question=""), HIGHLIGHT_PROMPT.format(question=""), ABSENT] * 200
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("[A-Z0-9]"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        min_frequency=2,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT, IMAGE],
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=1024,
    )


def processor() -> LlavaProcessor:
    """Plain resize to a square, so that no part of a picture is cropped away."""
    image_processor = CLIPImageProcessorPil(
        do_resize=True,
        size={"height": INPUT, "width": INPUT},
        do_center_crop=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=CHAT_TEMPLATE,
    )


def model(tokens: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """CLIP vision tower, projector and Llama, all 128 wide, with random weights."""
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=INPUT,
        patch_size=PATCH,
        hidden_act="gelu",
        projection_dim=128,
    )
    text = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokens.convert_tokens_to_ids(END),
        pad_token_id=tokens.convert_tokens_to_ids(PAD),
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokens.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(INPUT // PATCH) ** 2,
        tie_word_embeddings=True,
    )
    return LlavaForConditionalGeneration(config)
