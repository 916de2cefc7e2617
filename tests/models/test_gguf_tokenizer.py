"""Tokenizers built from a file's metadata cut texts as the models' own do."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import Regex, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.models.qwen2 import tokenization_qwen2

from streamingllm.errors import ModelLoadError
from streamingllm.models import LanguageModel
from streamingllm.models.gguf.header import read_gguf_header
from streamingllm.models.gguf.splits import WORD_SPLITS
from streamingllm.models.gguf.tokenizer import read_gguf_tokenizer
from tests.models.tiny_package import _tokens as byte_tokens
from tests.reference.sentence_piece import SPACE, tokenize

REFERENCE = Path(__file__).parents[1] / "reference"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
PIECES = (
    *("hello", " the", "  ", "   ", "\n", "\r\n", "\t", "123", "4567", "1", "'s", "'RE", "don't"),
    *("Ünï", "日本語", "한국어", "🙂", "é", "e\u0301", "--", "_x", "CamelCase", "http://a.b/c?d=1"),
    *("\u00a0", "\u3000", "$", "<|", "{}", "½", "٣", "...", "!?", "\x00", "\ufffd", "ไทย"),
)


def random_text(generator: random.Random) -> str:
    return "".join(generator.choice(PIECES) for _ in range(generator.randint(1, 12)))


def built(path: Path, kind: str, **values: Any) -> PreTrainedTokenizerBase:
    """Write a file without weights that has these values of `tokenizer.ggml`, and read it."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(kind)
    for name, value in values.items():
        key = f"tokenizer.ggml.{name}"
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return read_gguf_tokenizer(read_gguf_header(path))


def byte_level(path: Path, **values: Any) -> PreTrainedTokenizerFast:
    tokens = byte_tokens()
    types = [CONTROL] * 3 + [NORMAL] * (len(tokens) - 3)
    tokenizer = built(
        path,
        "gpt2",
        **{"tokens": tokens, "token_type": types, "merges": ["a b", "a c"], "pre": "gpt-2"}
        | {"bos_token_id": 1, "eos_token_id": 2, **values},
    )
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return tokenizer


def spelled(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, spell])


GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
DIGITS = pre_tokenizers.Digits(individual_digits=True)
KIMI = (
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)  # of the makers' tokenization_kimi.py
OWN = {
    "kimi-k2": spelled(KIMI),
    "granite-docling": GPT2,
    "gpt-2": GPT2,
    "smollm": pre_tokenizers.Sequence([DIGITS, GPT2]),
    "starcoder": pre_tokenizers.Sequence([DIGITS, GPT2]),
    "qwen2": spelled(tokenization_qwen2.PRETOKENIZE_REGEX),
}


@pytest.mark.parametrize("name", OWN)
def test_words_are_those_of_the_model_s_own_tokenizer(name: str, tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path / "t.gguf", pre=name).backend_tokenizer
    generator = random.Random(0)
    for _ in range(500):
        text = random_text(generator)
        assert tokenizer.pre_tokenizer is not None
        words = [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
        assert words == [word for word, _ in OWN[name].pre_tokenize_str(text)], repr(text)


def test_words_are_those_of_transformers_for_files(tmp_path: Path) -> None:
    theirs = pytest.importorskip("transformers.integrations.gguf.gguf_tokenizer_mapping")
    for name, pattern in theirs.GGUF_PRE_TOKENIZER_SPLITS.items():
        if name not in WORD_SPLITS:
            continue
        own = byte_level(tmp_path / "t.gguf", pre=name).backend_tokenizer.pre_tokenizer
        assert own is not None
        generator = random.Random(0)
        for _ in range(200):
            text = random_text(generator)
            words = [word for word, _ in own.pre_tokenize_str(text)]
            expected = [word for word, _ in spelled(pattern).pre_tokenize_str(text)]
            assert words == expected, (name, text)


def test_every_text_comes_back(tmp_path: Path) -> None:
    for name in WORD_SPLITS:
        tokenizer = byte_level(tmp_path / "t.gguf", pre=name, add_bos_token=False)
        generator = random.Random(0)
        for _ in range(20):
            text = random_text(generator)
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == text, name


def sentence_piece_values(generator: random.Random) -> dict[str, Any]:
    """Return a random vocabulary: three special tokens, the bytes, letters and joined pieces."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256]
    pieces = [SPACE, "a", "b", "c", "é", "日"]
    for _ in range(60):
        pieces.append(generator.choice(pieces) + generator.choice(pieces))
    pieces = list(dict.fromkeys(pieces))
    tokens += pieces
    types += [NORMAL] * len(pieces)
    scores = [0.0] * 259 + [-float(rank) for rank in generator.sample(range(500), len(pieces))]
    return {"tokens": tokens, "token_type": types, "scores": scores} | {
        "unknown_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


@pytest.mark.parametrize("prefix", [True, False])
def test_neighbours_are_merged_as_llama_cpp_does(prefix: bool, tmp_path: Path) -> None:
    generator = random.Random(0)
    for _ in range(20):
        values = sentence_piece_values(generator)
        tokenizer = built(tmp_path / "t.gguf", "llama", **values, add_space_prefix=prefix)
        ids = {token: i for i, token in enumerate(values["tokens"])}
        for _ in range(50):
            text = "".join(generator.choices("aabbc  é日🙂\n", k=generator.randint(1, 25)))
            found = tokenizer(text)["input_ids"]
            assert found == [1, *tokenize(text, ids, values["scores"], prefix)], repr(text)
            assert tokenizer.decode(found, skip_special_tokens=True) == text


def test_gemma_4_merges_the_pairs_that_its_file_lists(tmp_path: Path) -> None:
    generator = random.Random(0)
    for _ in range(20):
        values = sentence_piece_values(generator)
        scores = dict(zip(values["tokens"], values.pop("scores"), strict=True))
        merges = [
            f"{token[:cut]} {token[cut:]}"
            for token in sorted(values["tokens"][259:], key=lambda token: -scores[token])
            for cut in range(1, len(token))
            if token[:cut] in scores and token[cut:] in scores
        ]
        tokenizer = built(
            tmp_path / "t.gguf", "gemma4", **values, merges=merges, add_space_prefix=False
        )
        ids = {token: i for i, token in enumerate(values["tokens"])}
        for _ in range(50):
            text = "".join(generator.choices("aabbc  é日🙂\n", k=generator.randint(1, 25)))
            found = tokenizer(text)["input_ids"]
            assert found == [1, *tokenize(text, ids, list(scores.values()), False)], repr(text)


@pytest.mark.parametrize(
    ("pre", "flags", "expected"),
    [
        ("gpt-2", {}, [260]),
        ("llama-bpe", {}, [1, 260]),
        ("llama-bpe", {"add_bos_token": False}, [260]),
        ("gpt-2", {"add_bos_token": True}, [1, 260]),
        ("gpt-2", {"add_eos_token": True}, [260, 2]),
        ("gpt-2", {"add_bos_token": True, "add_eos_token": True}, [1, 260, 2]),
    ],
)
def test_the_file_says_what_goes_around_a_text(
    pre: str, flags: dict[str, bool], expected: list[int], tmp_path: Path
) -> None:
    tokenizer = byte_level(tmp_path / "t.gguf", pre=pre, **flags)
    ab = byte_tokens().index("ab")
    assert tokenizer("ab")["input_ids"] == [ab if i == 260 else i for i in expected]
    assert tokenizer("ab", add_special_tokens=False)["input_ids"] == [ab]


def test_tokens_that_stand_for_themselves_are_found_first(tmp_path: Path) -> None:
    tokens = [*byte_tokens(), "<think>", "a\nb"]
    types = [CONTROL] * 3 + [NORMAL] * (len(tokens) - 5) + [USER_DEFINED] * 2
    tokenizer = byte_level(tmp_path / "t.gguf", tokens=tokens, token_type=types)
    ids = tokenizer("ab<think>a\nb<|im_end|>ac", add_special_tokens=False)["input_ids"]
    last = len(tokens) - 1
    assert ids == [tokens.index("ab"), last - 1, last, 2, tokens.index("ac")]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab<think>a\nbac"


def test_a_word_of_the_vocabulary_is_one_token_whatever_the_merges_say(tmp_path: Path) -> None:
    tokens = [*byte_tokens(), "abac"]
    types = [CONTROL] * 3 + [NORMAL] * (len(tokens) - 3)
    for pre, is_whole in (("llama-bpe", True), ("gpt-2", False)):
        tokenizer = byte_level(tmp_path / "t.gguf", tokens=tokens, token_type=types, pre=pre)
        ids = tokenizer("abac", add_special_tokens=False)["input_ids"]
        assert (ids == [len(tokens) - 1]) == is_whole


def test_a_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path / "t.gguf", pre="smollm", add_bos_token=True)
    tokenizer.save_pretrained(tmp_path / "saved")
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path / "saved")
    generator = random.Random(0)
    for _ in range(100):
        text = random_text(generator)
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert (again.bos_token_id, again.eos_token_id) == (1, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tokens": []}, r"has no tokenizer\.ggml\.tokens"),
        ({"pre": "unheard-of"}, r"tokenizer\.ggml\.pre='unheard-of' is not known; choose"),
        ({"token_type": [1, 1]}, "has 2 token types for 261 tokens"),
        ({"eos_token_id": 999}, "eos_token_id=999 is outside the vocabulary of 261"),
        ({"bos_token_id": "one"}, "bos_token_id='one' is not an integer"),
        ({"tokens": [1, 2]}, "tokens are no texts"),
    ],
)
def test_what_is_no_tokenizer_is_refused_in_one_line(
    values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelLoadError, match=message) as caught:
        byte_level(tmp_path / "t.gguf", **values)
    assert "\n" not in str(caught.value)


def test_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"model='t5' is not known; choose"):
        built(tmp_path / "t.gguf", "t5", tokens=["a"])


def test_the_default_model_cuts_texts_as_llama_cpp_does(default_model: LanguageModel) -> None:
    """The ids were recorded from llama.cpp's server, with special tokens parsed."""
    recorded = json.loads((REFERENCE / "smollm2_tokens.json").read_text())
    assert len(recorded) == 200
    for text, ids in recorded:
        assert default_model.encode(text).tolist() == ids, repr(text)
