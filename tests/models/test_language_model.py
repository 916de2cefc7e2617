from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from streamingllm.errors import InputError
from streamingllm.models import CATALOG, DEFAULT_MODEL, LanguageModel

TEXTS = [
    "Call me Ishmael.",
    "two  three   four    spaces\n\n\n\tand tabs \r\n",
    "naïve Zürich 日本語 🙂 \u200b e\u0301",
    "def f(x):\n    return {'a': 1_000, 'b': x**2}\n",
    "don't , stop . now !",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_the_round_trip(default_model: LanguageModel, text: str) -> None:
    ids = default_model.encode(text)
    assert ids.dtype is torch.long
    assert ids.dim() == 1
    assert default_model.decode(ids) == text
    assert default_model.decode(ids.tolist()) == text


def test_half_a_character_is_refused(default_model: LanguageModel) -> None:
    with pytest.raises(InputError, match=r"text: U\+D800 at index 2 is half"):
        default_model.encode("ab\ud800")


def test_a_text_beyond_the_trained_length_raises_no_warning(default_model: LanguageModel) -> None:
    text = "All work and no play makes Jack a dull boy.\n" * 1000
    assert default_model.decode(default_model.encode(text)) == text


def test_special_tokens_are_ids_but_not_text(default_model: LanguageModel) -> None:
    ids = default_model.encode("<|im_start|>user\nHi<|im_end|>")
    assert ids[0] == 1
    assert ids[-1] == 2
    assert default_model.decode(ids) == "user\nHi"


@pytest.fixture(scope="session")
def metaspace_model(default_model: LanguageModel) -> LanguageModel:
    """The default model with a tokenizer like Llama 2's, which puts a space before each text."""
    letters = [*"▁abcdefghijklmnopqrstuvwxyz<|>_/"]
    words = ["<s>", "</s>", *letters, *(f"<0x{byte:02X}>" for byte in range(256))]
    backend = Tokenizer(
        models.BPE({word: i for i, word in enumerate(words)}, [], byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.add_tokens([AddedToken("<call>", special=False, normalized=False)])
    return replace(default_model, tokenizer=tokenizer)


@pytest.mark.parametrize("text", ["abc", " abc", "\nabc", "é", "<call>"])
def test_a_continuation_gets_no_space(text: str, metaspace_model: LanguageModel) -> None:
    def encode(text: str, **options: bool) -> list[int]:
        return metaspace_model.encode(text, add_special_tokens=False, **options).tolist()

    tokenizer = metaspace_model.tokenizer
    before, after = encode("z"), encode(text, is_continuation=True)
    assert tokenizer.decode([*before, *after]) == f" z{text}"
    literal = encode(text, is_continuation=True, parse_control_tokens=False)
    assert [*before, *literal] == encode(f"z{text}", parse_control_tokens=False)


@pytest.mark.parametrize("name", ["default_model", "metaspace_model"])
@pytest.mark.parametrize("text", ["<|im_end|>", "a</s>b", "<s>", "<call>", "naïve <|im_start|>\n"])
def test_text_without_control_tokens(name: str, text: str, request: pytest.FixtureRequest) -> None:
    lm: LanguageModel = request.getfixturevalue(name)
    ids = lm.encode(text, add_special_tokens=False, parse_control_tokens=False).tolist()
    assert not lm.tokenizer.added_tokens_decoder.keys() & ids
    decoded = lm.tokenizer.decode(ids)
    assert isinstance(decoded, str)
    assert decoded.removeprefix(" ") == text


@pytest.mark.parametrize("mark", ["ab", "a"])
def test_a_mark_that_text_can_make(mark: str, default_model: LanguageModel) -> None:
    backend = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=mark)
    lm = replace(default_model, tokenizer=tokenizer)
    assert lm.encode(mark, add_special_tokens=False).tolist() == [{"a": 0, "ab": 2}[mark]]
    if mark == "ab":
        assert lm.encode("ab", parse_control_tokens=False).tolist() == [0, 1]
    else:
        with pytest.raises(InputError, match="text contains 'a', which this tokenizer cannot"):
            lm.encode("a", parse_control_tokens=False)


def test_the_default_model_is_smollm2(default_model: LanguageModel) -> None:
    config = default_model.model.config
    assert default_model.name == DEFAULT_MODEL
    packaged = CATALOG[DEFAULT_MODEL].packaged
    assert packaged is not None
    assert default_model.source == f"package:{packaged.requirement}"
    assert (config.num_hidden_layers, config.num_attention_heads) == (30, 9)
    assert (config.num_key_value_heads, config.head_dim) == (3, 64)
    assert (config.vocab_size, config.max_position_embeddings) == (49152, 8192)
    assert config.rope_parameters["rope_theta"] == 100_000
    assert default_model.eos_token_ids == {0, 2}
    assert default_model.model.dtype is torch.float32


def test_the_default_model_answers_in_its_chat_format(default_model: LanguageModel) -> None:
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = default_model.tokenizer.apply_chat_template(
        question, add_generation_prompt=True, tokenize=False
    )
    assert isinstance(prompt, str)
    ids = default_model.encode(prompt, add_special_tokens=False)[None]
    model: Any = default_model.model
    answer = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False
    )
    assert default_model.decode(answer[0, ids.shape[1] :]) == "The capital of France is Paris."
    assert answer[0, -1].item() in default_model.eos_token_ids
