from __future__ import annotations

import pytest

from streamingllm import LanguageModel, StreamConfig, load_model
from streamingllm.engine import AsyncEngine, Engine
from streamingllm.errors import InputError
from streamingllm.stream.grammar import Grammar
from streamingllm.stream.sampling import SamplingParams
from tests.reference.tiny_chat import write_tiny_chat

pytestmark = pytest.mark.anyio
PROMPT = [5, 6, 7, 8]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(write_tiny_chat(tmp_path_factory.mktemp("tiny")), dtype="float64")


async def generated(
    lm: LanguageModel, params: SamplingParams, forced: list[int] | None = None
) -> tuple[list[int], str]:
    engine = AsyncEngine(Engine(lm, StreamConfig.with_cache_size(32, 4), max_streams=1))
    async with engine:
        stream = await engine.open_stream()
        outputs = [
            output
            async for output in engine.generate(stream, PROMPT, params, forced_ids=forced or ())
        ]
    ids = [token for output in outputs for token in output.token_ids]
    return ids, "".join(output.text for output in outputs)


@pytest.mark.parametrize("num_forced", [1, 7, 20])
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(max_new_tokens=20),
        SamplingParams(max_new_tokens=20, temperature=1.0, seed=3, top_p=0.9),
        SamplingParams(max_new_tokens=20, temperature=1.0, seed=4, frequency_penalty=0.5),
        SamplingParams(max_new_tokens=20, temperature=1.0, seed=5, repetition_penalty=1.2),
    ],
)
async def test_a_text_goes_on_after_forced_tokens_as_it_did(
    num_forced: int, params: SamplingParams, lm: LanguageModel
) -> None:
    expected, text = await generated(lm, params)
    assert await generated(lm, params, expected[:num_forced]) == (expected, text)


async def test_tokens_are_forced_although_others_are_probable(lm: LanguageModel) -> None:
    ids, _ = await generated(lm, SamplingParams(max_new_tokens=8), [65, 66, 67])
    assert ids[:3] == [65, 66, 67]
    assert len(ids) == 8


async def test_a_grammar_goes_on_after_forced_tokens(lm: LanguageModel) -> None:
    params = SamplingParams(max_new_tokens=30, grammar=Grammar.regex("(ab|cd)x{2}"))
    expected, text = await generated(lm, params)
    assert await generated(lm, params, expected[:2]) == (expected, text)


async def test_a_forced_token_that_is_none_is_refused(lm: LanguageModel) -> None:
    with pytest.raises(InputError, match="forced_ids contains 999"):
        await generated(lm, SamplingParams(), [999])
