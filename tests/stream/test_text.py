from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from streamingllm import (
    Engine,
    LanguageModel,
    SamplingParams,
    Stream,
    StreamConfig,
)
from streamingllm.errors import InputError
from streamingllm.finish_reason import FinishReason
from streamingllm.stream.text import Detokenizer, StopStrings, TextPieces, generate_text
from tests.reference.tiny_folder import BEGINNING
from tests.reference.tiny_lm import tiny_lm


def detokenize(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.add(token_id) for token_id in ids), detokenizer.finish()]


@pytest.fixture(scope="session")
def byte_ids(default_model: LanguageModel) -> list[int]:
    """Tokens of the default model that are single bytes, most of them no character alone."""
    tokenizer: Any = default_model.tokenizer
    return [i for i in range(500) if tokenizer.decode([i]) == "\N{REPLACEMENT CHARACTER}"]


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_pieces_are_the_text_of_any_tokens(
    data: st.DataObject, default_model: LanguageModel, byte_ids: list[int]
) -> None:
    any_id = st.one_of(st.integers(0, 49_151), st.sampled_from(byte_ids), st.integers(0, 20))
    ids = data.draw(st.lists(any_id, max_size=30))
    assert "".join(detokenize(default_model.tokenizer, ids)) == default_model.decode(ids)


@given(
    text=st.text(
        st.characters(codec="utf-8", exclude_characters="\N{REPLACEMENT CHARACTER}"), max_size=40
    )
)
@settings(max_examples=150, deadline=None)
def test_pieces_hold_only_whole_characters(text: str, default_model: LanguageModel) -> None:
    ids = default_model.encode(text, add_special_tokens=False).tolist()
    pieces = detokenize(default_model.tokenizer, ids)
    assert "".join(pieces) == default_model.decode(ids)
    if default_model.decode(ids) == text:  # the vocabulary lacks a few bytes
        assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces)


def test_a_character_of_several_tokens_comes_whole(default_model: LanguageModel) -> None:
    ids = default_model.encode("a🦜b", add_special_tokens=False).tolist()
    pieces = detokenize(default_model.tokenizer, ids)
    assert len(ids) > 3
    assert [piece for piece in pieces if piece] == ["a", "🦜", "b"]


def test_what_never_becomes_a_character_is_given_out(
    default_model: LanguageModel, byte_ids: list[int]
) -> None:
    pieces = detokenize(default_model.tokenizer, byte_ids[:1] * 100)
    assert len("".join(pieces)) == 100
    assert all(len(piece) <= 32 for piece in pieces)


@pytest.fixture(scope="session")
def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """Like Llama 2's: spaces are part of words, bytes stand for what is not in the vocabulary."""
    words = ["<s>", "▁", "▁the", "▁sea", "s", "ide", "."]
    vocabulary = {word: i for i, word in enumerate([*words, *(f"<0x{b:02X}>" for b in range(256))])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")


@given(
    words=st.lists(
        st.one_of(
            st.integers(0, 6).map(lambda i: [i]),
            st.sampled_from("é€🦜\n").map(lambda c: [7 + byte for byte in c.encode()]),
        ),
        max_size=12,
    )
)
@settings(max_examples=200, deadline=None)
def test_spaces_and_bytes_of_sentencepiece_tokenizers(
    words: list[list[int]], metaspace_tokenizer: PreTrainedTokenizerFast
) -> None:
    ids = [token_id for word in words for token_id in word]
    pieces = detokenize(metaspace_tokenizer, ids)
    expected = metaspace_tokenizer.decode(
        ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    assert "".join(pieces) == expected
    assert "\N{REPLACEMENT CHARACTER}" not in expected


def cut_before_stop(text: str, stop_strings: Sequence[str]) -> str:
    """The text before the first stop string to be complete, found letter by letter."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stop_strings if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


LETTERS = st.text("ab", max_size=12)


@given(
    pieces=st.lists(LETTERS, max_size=8),
    stop_strings=st.lists(st.text("ab", min_size=1, max_size=5), max_size=3),
)
@settings(max_examples=500, deadline=None)
def test_text_ends_before_the_first_stop_string(pieces: list[str], stop_strings: list[str]) -> None:
    stops = StopStrings(stop_strings)
    text, expected = "".join(pieces), cut_before_stop("".join(pieces), stop_strings)
    released, heard = "", ""
    for piece in pieces:
        heard += piece
        released += stops.add(piece)
        assert expected.startswith(released)
        # No more is held back than may yet become a stop string.
        undecided = len(cut_before_stop(heard, stop_strings)) - len(released)
        assert undecided == 0 or any(stop.startswith(heard[-undecided:]) for stop in stop_strings)
    assert released + stops.finish() == expected
    assert (stops.found is not None) == (expected != text or any(s in text for s in stop_strings))


@given(
    pieces=st.lists(st.tuples(LETTERS, st.text("ab", max_size=3)), max_size=8),
    stop_strings=st.lists(st.text("ab", min_size=1, max_size=5), max_size=3),
)
@settings(max_examples=500, deadline=None)
def test_hidden_text_stops_but_is_not_returned(
    pieces: list[tuple[str, str]], stop_strings: list[str]
) -> None:
    stops = StopStrings(stop_strings)
    whole = "".join(text + hidden for text, hidden in pieces)
    is_hidden = [
        flag for text, hidden in pieces for flag in [*[False] * len(text), *[True] * len(hidden)]
    ]
    cut = cut_before_stop(whole, stop_strings)
    expected = "".join(c for c, flag in zip(cut, is_hidden, strict=False) if not flag)
    released = "".join(stops.add(text, hidden) for text, hidden in pieces) + stops.finish()
    assert released == expected


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(InputError, match="stop_strings contains ''"):
        StopStrings(["x", ""])


class TestTextPieces:
    def test_tokens_after_a_stop_string_are_not_taken(self, default_model: LanguageModel) -> None:
        tokens = iter(default_model.encode("one two three four").tolist())
        pieces = TextPieces(tokens, default_model, stop_strings=["wo th"])
        assert "".join(pieces) == "one t"
        assert pieces.finish_reason is FinishReason.STOP
        assert pieces.stop_string == "wo th"
        assert default_model.decode(list(tokens)) == " four"

    def test_end_tokens_have_no_text(self, default_model: LanguageModel) -> None:
        end = max(default_model.eos_token_ids)
        pieces = TextPieces([*default_model.encode("one").tolist(), end], default_model)
        assert "".join(pieces) == "one"
        assert pieces.finish_reason is FinishReason.STOP
        assert pieces.stop_string is None

    @pytest.mark.parametrize(
        ("stop", "text"),
        [
            ("<|im_end|>", "one"),
            ("<|im_end|>\n<|im_start|>user", "one"),
            ("e<|im_end|>", "on"),
            ("_end|>\n<|im_st", "one"),
            ("one<|", ""),
            ("user two", "one\n"),
        ],
    )
    def test_a_stop_string_may_contain_special_tokens(
        self, stop: str, text: str, default_model: LanguageModel
    ) -> None:
        tokens = iter(default_model.encode("one<|im_end|>\n<|im_start|>user two three").tolist())
        pieces = TextPieces(tokens, default_model, stop_strings=[stop], stop_token_ids=())
        assert "".join(pieces) == text
        assert pieces.finish_reason is FinishReason.STOP
        assert pieces.stop_string == stop
        assert default_model.decode([*tokens]).endswith(" three")

    def test_other_tokens_may_end_a_text(self, default_model: LanguageModel) -> None:
        one, two, three = default_model.encode("one two three").tolist()
        pieces = TextPieces([one, two, three], default_model, stop_token_ids={two})
        assert "".join(pieces) == "one"
        assert pieces.finish_reason is FinishReason.STOP

    def test_an_interrupted_text_gives_out_what_it_held_back(
        self, default_model: LanguageModel
    ) -> None:
        def tokens() -> Iterator[int]:
            one, two, *more = default_model.encode("one two three four").tolist()
            yield one
            pieces.interrupt()  # as a signal would, while a token is being written
            yield from (two, *more)

        pieces = TextPieces(tokens(), default_model, stop_strings=["two thousand"])
        assert "".join(pieces) == "one two"
        assert pieces.finish_reason is FinishReason.CANCELLED


def test_a_stream_writes_text(default_model: LanguageModel) -> None:
    ids = default_model.encode("The capital of France is")

    def write(**options: Any) -> tuple[str, str | None, int]:
        stream = Stream(default_model.model, StreamConfig(4, 12))
        stream.feed(ids, logits="none")
        pieces = generate_text(stream, default_model, 5, **options)
        return "".join(pieces), pieces.finish_reason, stream.num_seen_tokens - len(ids)

    text, reason, num_tokens = write()
    assert text.startswith(" Paris")
    assert (reason, num_tokens) == ("length", 5)
    assert write(stop_strings=["ris"])[:2] == (" Pa", FinishReason.STOP)
    sampled = [
        write(
            sampling=SamplingParams(temperature=2.0), generator=torch.Generator().manual_seed(seed)
        )
        for seed in (0, 0, 1)
    ]
    assert sampled[0] == sampled[1] != sampled[2]


@pytest.mark.parametrize("is_engine", [False, True])
def test_a_special_token_ends_a_text_everywhere(is_engine: bool) -> None:
    lm = tiny_lm()
    special = lm.encode(BEGINNING, add_special_tokens=False).tolist()
    prompt = lm.encode("Hi", add_special_tokens=False)
    bias = {special[0]: 1e4}
    config = StreamConfig(4, 12)
    if is_engine:
        params = SamplingParams(
            max_new_tokens=9, logit_bias=bias, stop_strings=[BEGINNING], ignore_eos=True
        )
        with Engine(lm, config, max_streams=1) as engine:
            (completion,) = engine.generate([prompt.tolist()], params)
        assert completion.text == ""
        found: tuple[str | None, int] = (completion.finish_reason, len(completion.token_ids))
    else:
        alone = Stream(lm.model, config)
        alone.feed(prompt)
        pieces = generate_text(
            alone, lm, 9, sampling=SamplingParams(logit_bias=bias), stop_strings=[BEGINNING]
        )
        assert "".join(pieces) == ""
        found = (pieces.finish_reason, alone.num_seen_tokens - len(prompt))
    assert len(special) == 1
    assert found == (FinishReason.STOP, 1)


def test_a_stream_goes_on_without_end(default_model: LanguageModel) -> None:
    stream = Stream(default_model.model, StreamConfig(4, 12))
    stream.feed(default_model.encode("One two three"), logits="none")
    pieces = generate_text(stream, default_model, ignore_eos=True)
    for _ in zip(pieces, range(20), strict=False):
        pass
    assert pieces.finish_reason is None


@given(st.text("ab<>", max_size=12), st.integers(0, 12))
def test_stop_strings_continue_from_their_state(text: str, cut: int) -> None:
    alone, first, second = (StopStrings(["a<b", "<>"]) for _ in range(3))
    whole = [alone.add(c, "<" if c == "b" else "") for c in text] + [alone.finish()]
    parts = [first.add(c, "<" if c == "b" else "") for c in text[:cut]]
    second.load_json(json.loads(json.dumps(first.to_json())))
    parts += [second.add(c, "<" if c == "b" else "") for c in text[cut:]] + [second.finish()]
    assert ("".join(parts), second.found) == ("".join(whole), alone.found)
