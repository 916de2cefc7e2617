"""What completions make of the events of a text."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from streamingllm.finish_reason import FinishReason
from streamingllm.server.encoders.common import collect
from streamingllm.server.encoders.completions import PromptEncoder, sum_of
from streamingllm.server.schemas.completions import CompletionRequest
from streamingllm.server.token_texts import TokenTexts
from streamingllm.sessions.turn import TextDelta, TurnEvent
from tests.reference.tiny_folder import byte_tokenizer
from tests.server.recorded import ENDED, STARTED, ended, logprobs, replay, two_samples

pytestmark = pytest.mark.anyio


async def choices(encoder: PromptEncoder, events: list[TurnEvent]) -> list[dict[str, Any]]:
    return encoder.choices(await collect(STARTED, replay(events)))


async def streamed(encoder: PromptEncoder, events: list[TurnEvent]) -> list[dict[str, Any]]:
    return [choice async for choice, _ in encoder.chunks(STARTED, replay(events))]


async def test_samples_are_numbered_through_all_prompts() -> None:
    found = await choices(PromptEncoder(1, 2), two_samples())
    assert [(c["index"], c["text"], c["finish_reason"]) for c in found] == [
        (2, "ac", "stop"),
        (3, "b", "length"),
    ]


async def test_a_stream_joins_to_the_text_with_its_prompt() -> None:
    encoder = PromptEncoder(0, 2, echoed="> ")
    texts = {0: "", 1: ""}
    for choice in await streamed(encoder, two_samples()):
        texts[choice["index"]] += choice["text"]
    assert texts == {0: "> ac", 1: "> b"}
    whole = await choices(PromptEncoder(0, 2, echoed="> "), two_samples())
    assert [choice["text"] for choice in whole] == ["> ac", "> b"]


async def test_logprobs_have_the_old_shape() -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer("h\N{EURO SIGN}")["input_ids"]
    pieces: list[TurnEvent] = [
        TextDelta(0, "h", logprobs(ids[0])),
        TextDelta(0, "\N{EURO SIGN}", logprobs(*ids[1:])),
    ]
    events = [*pieces, ended("h\N{EURO SIGN}", reason=FinishReason.LENGTH), ENDED]
    texts = TokenTexts(tokenizer)
    (choice,) = await choices(PromptEncoder(0, 1, token_texts=texts), events)
    found = choice["logprobs"]
    assert found["tokens"] == ["h", "bytes:\\xe2", "bytes:\\x82", "bytes:\\xac"]
    assert found["token_logprobs"] == [-0.5] * 4
    assert found["text_offset"] == [0, 1, 1, 1]
    assert found["top_logprobs"][0]["h"] == -0.5
    parts = await streamed(PromptEncoder(0, 1, token_texts=texts), events)
    joined = [offset for part in parts for offset in part["logprobs"]["text_offset"]]
    assert joined == found["text_offset"]


def test_usage_is_the_sum_over_prompts() -> None:
    assert sum_of([ENDED.usage, ENDED.usage])["total_tokens"] == 2 * 67


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
    ],
)
def test_prompts_are_texts_or_token_ids(prompt: Any, prompts: list[Any]) -> None:
    assert CompletionRequest.model_validate({"prompt": prompt}).prompt == prompts


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": []},
        {"prompt": [True]},
        {"prompt": ["a"] * 65},
        {"prompt": "a", "suffix": "b"},
        {"prompt": "a", "best_of": 2},
        {"prompt": "a", "echo": True, "logprobs": 1},
        {"prompt": "a", "streamingllm": {"session_id": "s"}},
    ],
)
def test_what_completions_cannot_do_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CompletionRequest.model_validate(wrong)
