"""Words and their rows: segmentation on several tokenizers, rows against eager attention of the same steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from families import FAMILIES, TinyFamily, byte_tokenizer
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import vea_sdk as vea
from vea_sdk.capture.words import split_words
from vea_sdk.errors import CaptureError, InvalidInputError

LINEAGES = ("llava", "llava_next", "qwen2_vl", "gemma3", "internvl")
lineages = pytest.mark.parametrize("name", LINEAGES)


def picture(seed: int = 0, width: int = 120, height: int = 80) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


# --- segmentation ---------------------------------------------------------------------------------------------------


class Pieces:
    """A tokenizer whose vocabulary is a list of byte strings; ids at and above its length are special."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    def decode(self, ids: Any, skip_special_tokens: bool = False) -> str:
        assert skip_special_tokens
        return b"".join(self.pieces[i] for i in ids if i < len(self.pieces)).decode("utf-8", errors="replace")


def pieces(*texts: str | bytes) -> list[tuple[str, tuple[int, int], tuple[int, ...]]]:
    encoded = [text.encode() if isinstance(text, str) else text for text in texts]
    return [tuple(word) for word in split_words(range(len(encoded) + 1), Pieces(*encoded))]  # the last one is special


def test_tokens_make_words() -> None:
    assert pieces(" The", " to", "tal", " is", " 12", ".5", "0 ") == [
        ("The", (0, 3), (0,)),
        ("total", (4, 9), (1, 2)),
        ("is", (10, 12), (3,)),
        ("12.50", (13, 18), (4, 5, 6)),
    ]


def test_spans_count_in_the_stripped_text() -> None:
    text = "\n  one  two\tthree \n"
    for word, (start, stop), _ in pieces(*text):
        assert text.strip()[start:stop] == word


def test_a_token_belongs_to_the_word_of_its_first_character() -> None:
    assert pieces("a", "b c", "d") == [("ab", (0, 2), (0, 1)), ("cd", (3, 5), (2,))]
    # Both words come from one token; the second is decided by the same row.
    assert pieces("a b") == [("a", (0, 1), (0,)), ("b", (2, 3), (0,))]


def test_tokens_without_characters_belong_to_no_word() -> None:
    assert pieces("a", " ", "", "b") == [("a", (0, 1), (0,)), ("b", (2, 3), (3,))]
    assert pieces("", " ", "\n") == []
    assert split_words([], Pieces()) == []


def test_a_character_belongs_to_the_token_that_completes_it() -> None:
    smile = "😀".encode()
    assert pieces("so ", smile[:1], smile[1:3], smile[3:], "!") == [("so", (0, 2), (0,)), ("😀!", (3, 5), (3, 4))]
    cut = pieces("x ", smile[:2])  # the answer ended before it was complete: what is shown is its own
    assert cut == [("x", (0, 1), (0,)), ("\ufffd", (2, 3), (1,))]


def test_scripts_without_spaces() -> None:
    assert [word for word, _, _ in pieces("東京", "は", "big", "です")] == ["東京", "は", "big", "です"]
    assert [tokens for _, _, tokens in pieces("東京", "は", "big", "です")] == [(0,), (1,), (2,), (3,)]
    assert [word for word, _, _ in pieces("ราคา", "ห้า", "สิบ")] == ["ราคา", "ห้า", "สิบ"]
    dakuten = "か\u3099".encode()  # a mark that is written on the character before it
    assert [word for word, _, _ in pieces(dakuten[:3], dakuten[3:])] in (["か", "\u3099"], ["か\u3099"])
    assert [word for word, _, _ in pieces("e\u0301t", "é")] == ["e\u0301té"]


def test_words_cover_every_character_once() -> None:
    """Byte by byte through a real tokenizer: texts of many scripts."""
    tokenizer = byte_tokenizer()
    for text in (
        "Grüße aus Kraków, 42 €",
        "  lead and trail  ",
        "東京タワーは333mです。",
        "ราคา 50 บาท",
        "👩‍👩‍👧 family",
        "नमस्ते दुनिया",
    ):
        ids = tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]
        words = split_words(ids, tokenizer)
        shown = tokenizer.decode(ids, skip_special_tokens=True).strip()
        assert "".join(word.text for word in words) == "".join(shown.split())
        assert all(shown[slice(*word.span)] == word.text for word in words)
        tokens = [token for word in words for token in word.tokens]
        assert len(tokens) == len(set(tokens)) or "ー" in text


def metaspace() -> Any:
    """As SentencePiece writes them: a space is part of the piece after it, and falls at the start of a text."""
    vocabulary = {
        piece: i for i, piece in enumerate(["<unk>", "</s>", "▁the", "▁tot", "al", "▁", "is", "▁9", ",", "5"])
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.decoder = decoders.Metaspace()
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


def test_sentencepiece() -> None:
    words = split_words([2, 3, 4, 5, 6, 7, 8, 9, 1], metaspace())
    assert [(word.text, word.tokens) for word in words] == [
        ("the", (0,)),
        ("total", (1, 2)),
        ("is", (4,)),
        ("9,5", (5, 6, 7)),
    ]


def test_wordpiece_with_spaces_cleaned_up() -> None:
    """ " ." becomes ".": a prefix that ends in the space is no prefix of the whole text."""
    vocabulary = {piece: i for i, piece in enumerate(["[UNK]", "[SEP]", "it", "is", "nin", "##ety", ".", "do", "n't"])}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    fast = hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, sep_token="[SEP]", unk_token="[UNK]", clean_up_tokenization_spaces=True
    )
    ids = [2, 3, 4, 5, 6, 1]
    words = split_words(ids, fast)
    assert fast.decode(ids, skip_special_tokens=True) == "it is ninety."
    assert [(word.text, word.tokens) for word in words] == [("it", (0,)), ("is", (1,)), ("ninety.", (2, 3, 4))]


# --- rows -----------------------------------------------------------------------------------------------------------


def eager(family: TinyFamily, inputs: Any, **options: Any) -> tuple[torch.Tensor, list[Any]]:
    """What generate() returns under eager attention, and every step's weights."""
    family.model.set_attn_implementation("eager")
    try:
        out = family.model.generate(**inputs, **options, return_dict_in_generate=True, output_attentions=True)
    finally:
        family.model.set_attn_implementation("sdpa")
    return out.sequences, out.attentions


def truth(family: TinyFamily, inputs: Any, attentions: list[Any], layer: int, row: int) -> np.ndarray:
    """[tokens, image tokens] of a layer: the last query of every step at the image's keys."""
    at = (inputs["input_ids"][row] == family.image_token_id).nonzero().flatten()
    found = []
    for step in attentions:
        weights = step[layer][row].mean(0)[-1]  # a sliding layer keeps its last keys only
        total = int(inputs["attention_mask"].shape[1]) + len(found)
        keys = at - max(total - len(weights), 0)
        found.append(torch.where(keys >= 0, weights[keys.clamp(min=0)], 0.0))
    return torch.stack(found).numpy()


def greedy(tokens: int = 6) -> dict[str, Any]:
    return {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}


@lineages
@pytest.mark.parametrize("sample", [False, True])
def test_each_words_row_is_eagers_of_its_steps(name: str, sample: bool) -> None:
    """A batch, left-padded, two prompts of different length; greedy and sampled."""
    family = FAMILIES[name]()
    pictures = [[picture(1)], [picture(2)]]
    inputs = family.inputs(pictures, ["short", "a question that is somewhat longer"])
    options = greedy() | ({"do_sample": True, "top_k": 0, "temperature": 1.5} if sample else {})
    torch.manual_seed(3)
    sequences, attentions = eager(family, inputs, **options)
    torch.manual_seed(3)
    with vea.capture(family.model, layers=[1, 2], queries="all") as session:
        ids = family.model.generate(**inputs, **options)
    assert torch.equal(ids, sequences)
    for row in (0, 1):
        expected = [truth(family, inputs, attentions, layer, row) for layer in (1, 2)]
        words = session.words(ids, family.processor, row, images=[p[0] for p in pictures], processor=family.processor)
        text = family.processor.tokenizer.decode(ids[row, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert "".join(word.text for word in words) == "".join(text.split())
        for word in words:
            assert word.rows == word.tokens
            evidence = word.evidence
            assert isinstance(evidence, vea.Evidence)
            assert evidence is word.evidence  # made once
            for layer, of_layer in zip(expected, evidence.layer_scores, strict=True):
                assert np.abs(layer[list(word.tokens)].mean(0) - of_layer).max() <= 2e-6
            assert np.array_equal(np.asarray(evidence.image), np.asarray(pictures[row][0]))


@lineages
def test_evidence_of_any_row(name: str) -> None:
    family = FAMILIES[name]()
    one, two = picture(1), picture(2, 70, 110)
    inputs = family.inputs([one, two], "compare them")
    _, attentions = eager(family, inputs, **greedy(3))
    with vea.capture(family.model, layers=[0, 2], queries="all") as session:
        family.model.generate(**inputs, **greedy(3))
    expected = np.stack([truth(family, inputs, attentions, layer, 0) for layer in (0, 2)])
    for query in (0, 2, [0, 1, 2]):
        found = session.evidence([one, two], family.processor, query=query)
        assert isinstance(found, list)
        assert [e.image.size for e in found] == [(120, 80), (70, 110)]
        rows = np.concatenate([e.layer_scores for e in found], axis=1)
        wanted = expected[:, [query] if isinstance(query, int) else query].mean(1)
        assert np.abs(rows - wanted).max() <= 2e-6
        assert found[0].stats["image_mass"] == pytest.approx(wanted.sum(1), abs=1e-5)
    inside = vea.wrap(family.model, family.processor, layers=[0, 2], plain_prompt="{question}")
    by_attend = inside.attend([one, two], "compare them")
    for a, b in zip(session.evidence([one, two], family.processor), by_attend, strict=True):
        assert np.abs(a.scores - b.scores).max() <= 1e-6


def test_a_batch_of_several_and_of_one_picture() -> None:
    family = FAMILIES["qwen2_vl"]()
    rows = [[picture(1), picture(2, 60, 60)], [picture(3, 90, 40)]]
    inputs = family.inputs(rows, ["both", "the one that is shown here"])
    with vea.capture(family.model, layers=[1], queries="all") as session:
        family.model.generate(**inputs, **greedy(2))
    both = session.evidence(rows, family.processor, row=0)
    (one,) = session.evidence(rows, family.processor, row=1)
    assert isinstance(session.evidence([rows[0], rows[1][0]], family.processor, row=1), vea.Evidence)
    for number, (row, found) in enumerate(zip(rows, (both, [one]), strict=True)):
        alone = family.inputs(row, ["both", "the one that is shown here"][number])
        with vea.capture(family.model, layers=[1]) as by_itself, torch.no_grad():
            family.model(**alone)
        expected = by_itself.attention[0, 0, 0].numpy()
        assert np.abs(np.concatenate([e.scores for e in found]) - expected).max() <= 2e-6


def test_several_sequences_of_one_prompt() -> None:
    family = FAMILIES["llava"]()
    inputs = family.inputs(picture(1), "what?")
    torch.manual_seed(0)
    options = greedy(4) | {"do_sample": True, "num_return_sequences": 3, "top_k": 0}
    with vea.capture(family.model, layers=[1], queries="all") as session:
        ids = family.model.generate(**inputs, **options)
    assert session.attention.shape[1] == 3
    for row in range(3):
        words = session.words(ids, family.processor, row, images=picture(1), processor=family.processor)
        answer = ids[row, inputs["input_ids"].shape[1] :]
        again = session.words(answer, family.processor.tokenizer, row)
        assert [w[:2] for w in map(vars_of, words)] == [w[:2] for w in map(vars_of, again)]
        if words:
            scores = words[0].evidence.scores  # type: ignore[union-attr]
            assert np.abs(scores - session.attention[0, row, list(words[0].rows)].mean(0).numpy()).max() <= 1e-7


def vars_of(word: vea.Word) -> tuple[Any, ...]:
    return word.text, word.span, word.tokens


def test_generated_queries_lack_the_first_tokens_row() -> None:
    family = FAMILIES["llava"]()
    inputs = family.inputs(picture(1), "what?")
    with vea.capture(family.model, layers=[1], queries="all") as everything:
        ids = family.model.generate(**inputs, **greedy(5))
    with vea.capture(family.model, layers=[1], queries="generated") as session:
        family.model.generate(**inputs, **greedy(5))
    options = {"images": picture(1), "processor": family.processor}
    for mine, theirs in zip(
        session.words(ids, family.processor, **options), everything.words(ids, family.processor, **options), strict=True
    ):
        assert mine.tokens == theirs.tokens
        assert mine.rows == tuple(token - 1 for token in mine.tokens if token)
        if mine.rows == ():
            with pytest.raises(CaptureError, match='queries="all"'):
                _ = mine.evidence
        elif 0 not in mine.tokens:
            assert np.array_equal(mine.evidence.scores, theirs.evidence.scores)  # type: ignore[union-attr]


# --- what cannot be had ---------------------------------------------------------------------------------------------


def ran(queries: Any = "all", **options: Any) -> tuple[TinyFamily, vea.capture.Session, torch.Tensor]:  # type: ignore[name-defined]
    family = FAMILIES["llava"]()
    with vea.capture(family.model, layers=[1], queries=queries) as session:
        ids = family.model.generate(**family.inputs(picture(1), "what?"), **(greedy(3) | options))
    return family, session, ids


def test_words_of_the_last_prompt_token_alone() -> None:
    family, session, ids = ran("last")
    with pytest.raises(CaptureError, match='queries="all"'):
        session.words(ids, family.processor)
    assert isinstance(session.evidence(picture(1), family.processor), vea.Evidence)


def test_words_under_beam_search() -> None:
    family, session, ids = ran(num_beams=2, min_new_tokens=2)
    with pytest.raises(CaptureError, match="beam search"):
        session.words(ids, family.processor)


def test_words_without_pictures_say_what_to_do() -> None:
    family, session, ids = ran()
    for word in session.words(ids, family.processor):
        with pytest.raises(CaptureError, match=r"images=.*session\.evidence"):
            _ = word.evidence


@pytest.mark.parametrize("query", [3, -1, [0, 9], []])
def test_a_row_that_was_not_captured(query: Any) -> None:
    family, session, _ = ran()
    with pytest.raises(InvalidInputError, match=r"query=.*0 to 2"):
        session.evidence(picture(1), family.processor, query=query)


def test_a_sequence_that_is_not_there() -> None:
    family, session, ids = ran()
    for call in (
        lambda: session.evidence(picture(1), family.processor, row=1),
        lambda: session.words(ids, family.processor, row=1),
        lambda: session.words(ids, family.processor, row=-1),
    ):
        with pytest.raises(InvalidInputError, match="row="):
            call()


def test_more_tokens_than_rows() -> None:
    family, session, ids = ran()
    with pytest.raises(InvalidInputError, match="session has 3"):
        session.words(torch.cat([ids, ids[:, -1:] * 0 + 70], dim=1), family.processor)


def test_pictures_that_are_not_those_of_the_prompt() -> None:
    family = FAMILIES["qwen2_vl"]()
    inputs = family.inputs([[picture(1)], [picture(2)]], ["a", "b"])
    with vea.capture(family.model, layers=[1]) as session, torch.no_grad():
        family.model(**inputs)
    with pytest.raises(InvalidInputError, match="1 items for a batch of 2"):
        session.evidence(picture(1), family.processor)
    with pytest.raises(vea.errors.GeometryError):  # type: ignore[attr-defined]
        session.evidence([[picture(1), picture(3)], [picture(2)]], family.processor)


def test_embeddings_do_not_show_their_pictures() -> None:
    family = FAMILIES["llava"]()
    inputs = family.inputs(picture(1), "what?")
    embeds = family.model.get_input_embeddings()(inputs["input_ids"])
    at = (inputs["input_ids"][0] == family.image_token_id).nonzero().flatten()
    with vea.capture(family.model, layers=[1], image_positions=at[None]) as session, torch.no_grad():
        family.model.model.language_model(inputs_embeds=embeds)
    with pytest.raises(CaptureError, match="input_ids"):
        session.evidence(picture(1), family.processor)


# --- prompts in several parts ---------------------------------------------------------------------------------------


def parts(inputs: Any, start: int, stop: int) -> dict[str, Any]:
    """Tokens from start to stop, with what has a place for each."""
    shape = inputs["input_ids"].shape
    return {
        name: value[:, start:stop] if value.shape[:2] == shape else value
        for name, value in inputs.items()
        if name != "attention_mask"
    }


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_a_prompt_that_was_fed_in_chunks(name: str) -> None:
    family = FAMILIES[name]()
    inputs = family.inputs(picture(1), "what?")
    count = inputs["input_ids"].shape[1]
    with vea.capture(family.model, layers=[1]) as whole, torch.no_grad():
        family.model(**inputs)
    expected = whole.attention[0, 0, 0].numpy()
    cache = hf.DynamicCache(config=family.model.config)
    with vea.capture(family.model, layers=[1]) as session, torch.no_grad():
        family.model(**parts(inputs, 0, count - 3), past_key_values=cache, use_cache=True)
        family.model(input_ids=inputs["input_ids"][:, count - 3 :], past_key_values=cache, use_cache=True)
    assert np.abs(session.evidence(picture(1), family.processor).scores - expected).max() <= 2e-6
    if hf.__version__.startswith("5.16."):  # its chunks start from an empty cache
        return
    with vea.capture(family.model, layers=[1], queries="all") as session:
        family.model.generate(**inputs, **greedy(2), prefill_chunk_size=16)
    assert np.abs(session.evidence(picture(1), family.processor).scores - expected).max() <= 2e-6


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_a_second_turn_brings_a_second_picture(name: str) -> None:
    family = FAMILIES[name]()
    pictures = [picture(1), picture(2, 60, 60)]
    first, second = family.inputs(pictures[0], "what?"), family.inputs(pictures[1], "and here?")
    cache = hf.DynamicCache(config=family.model.config)
    with vea.capture(family.model, layers=[1]) as session, torch.no_grad():
        family.model(**first, past_key_values=cache, use_cache=True)
        one = session.evidence(pictures[0], family.processor)
        family.model(**parts(second, 0, 999), past_key_values=cache, use_cache=True)
    both = session.evidence(pictures, family.processor)
    assert [e.image.size for e in both] == [(120, 80), (60, 60)]
    assert np.array_equal(np.concatenate([e.scores for e in both]), session.attention[0, 0, 0].numpy())
    assert len(one.scores) == len(both[0].scores)  # type: ignore[union-attr]


def test_a_second_turn_of_generate() -> None:
    family = FAMILIES["llava"]()
    pictures = [picture(1), picture(2, 60, 60)]
    first, second = family.inputs(pictures[0], "what?"), family.inputs(pictures[1], "and here?")
    cache = hf.DynamicCache(config=family.model.config)
    with vea.capture(family.model, layers=[1], queries="all") as session:
        answered = family.model.generate(**first, **greedy(3), past_key_values=cache)
        ids = torch.cat([answered, second["input_ids"]], dim=1)
        turn = {**second, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        answer = family.model.generate(**turn, **greedy(3), past_key_values=cache)
    for word in session.words(answer, family.processor, images=pictures, processor=family.processor):
        assert [e.image.size for e in word.evidence] == [(120, 80), (60, 60)]
    assert {row for word in session.words(answer, family.processor) for row in word.rows} <= {0, 1, 2}


def test_pictures_of_a_batch_that_came_in_turns_cannot_be_told_apart() -> None:
    family = FAMILIES["llava"]()
    batch = family.inputs([[picture(1)], [picture(2)]], ["what?", "what?"])
    cache = hf.DynamicCache(config=family.model.config)
    with vea.capture(family.model, layers=[1]) as session, torch.no_grad():
        family.model(**batch, past_key_values=cache, use_cache=True)
        family.model(**parts(batch, 0, 999), past_key_values=cache, use_cache=True)
    with pytest.raises(CaptureError, match="several turns"):
        session.evidence([[picture(1), picture(1)], [picture(2), picture(2)]], family.processor)


def test_inputs_may_be_overwritten_afterwards() -> None:
    family = FAMILIES["qwen2_vl"]()
    inputs = family.inputs(picture(1), "what?")
    with vea.capture(family.model, layers=[1]) as session, torch.no_grad():
        family.model(**inputs)
    expected = session.evidence(picture(1), family.processor).scores  # type: ignore[union-attr]
    for value in inputs.values():
        value.zero_()
    assert np.array_equal(session.evidence(picture(1), family.processor).scores, expected)  # type: ignore[union-attr]


def test_numbers_of_numpy_and_torch() -> None:
    family, session, ids = ran()
    expected = session.evidence(picture(1), family.processor, query=[0, 1]).scores  # type: ignore[union-attr]
    for query in (np.arange(2), torch.tensor([0, 1]), (np.int64(0), np.int32(1))):
        found = session.evidence(picture(1), family.processor, query=query, row=np.int64(0))  # type: ignore[arg-type]
        assert np.array_equal(found.scores, expected)  # type: ignore[union-attr]
    assert session.words(ids, family.processor, np.int64(0))  # type: ignore[arg-type]
    (nested,) = session.evidence([[picture(1)]], family.processor)  # type: ignore[misc]
    assert len(nested.scores) == len(expected)


def test_the_wrong_processor() -> None:
    family, session, ids = ran()
    with pytest.raises(InvalidInputError, match="processor that made the inputs"):
        session.evidence(picture(1), family.processor.tokenizer)
    with pytest.raises(InvalidInputError, match="cannot decode"):
        session.words(ids, family.processor.image_processor)
    with pytest.raises(InvalidInputError, match="sigma=-1"):
        session.evidence(picture(1), family.processor, sigma=-1)


def test_a_word_that_is_not_there() -> None:
    family, session, ids = ran()
    words = session.words(ids, family.processor)
    assert len(words) == 1
    assert words[-1] is words[0]
    assert words[5:] == []
    for call in (lambda: words[1], lambda: words[-2]):
        with pytest.raises(IndexError, match=r"no word (1|-2): the answer has 1 words, 0 to 0"):
            call()
        with pytest.raises(InvalidInputError):
            call()
