"""Sampling fields of the APIs become sampling parameters."""

from __future__ import annotations

import json

import pytest

from streamingllm.errors import InputError
from streamingllm.server.sampling import json_grammar, requested_params, sampling_params
from streamingllm.server.schemas.chat import ChatRequest
from streamingllm.stream.sampling import SamplingParams

DEFAULTS = SamplingParams(temperature=0.7, top_p=0.9, max_new_tokens=100)


def test_what_a_request_does_not_say_is_the_operators() -> None:
    assert sampling_params(DEFAULTS) == DEFAULTS


def test_each_field_has_its_parameter() -> None:
    params = sampling_params(
        DEFAULTS,
        temperature=0.0,
        top_k=5,
        min_p=0.1,
        repetition_penalty=1.1,
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        logit_bias={"7": -100},
        seed=-1,
        stop=["a", "b"],
        n=3,
        logprobs=0,
    )
    assert params.temperature == 0.0
    assert params.top_k == 5
    assert params.min_p == 0.1
    assert params.repetition_penalty == 1.1
    assert (params.frequency_penalty, params.presence_penalty) == (0.5, -0.5)
    assert params.logit_bias == {7: -100}
    assert params.seed == 2**63 - 1
    assert params.stop_strings == ("a", "b")
    assert (params.n, params.logprobs) == (3, 0)


@pytest.mark.parametrize(("asked", "most"), [(None, 100), (5, 5), (500, 500)])
def test_the_operators_number_of_tokens_is_a_default(asked: int | None, most: int) -> None:
    assert sampling_params(DEFAULTS, max_tokens=asked).max_new_tokens == most


def test_top_p_0_keeps_one_token() -> None:
    assert 0 < sampling_params(DEFAULTS, top_p=0.0).top_p < 1e-6


def test_response_formats_become_grammars() -> None:
    assert json_grammar("text") is None
    any_object = json_grammar("json_object")
    assert any_object is not None
    assert json.loads(any_object.definition) == {"type": "object"}
    schema = {"type": "array"}
    of_schema = json_grammar("json_schema", schema)
    assert of_schema is not None
    assert json.loads(of_schema.definition) == schema
    with pytest.raises(InputError, match="no schema"):
        json_grammar("json_schema")


def test_a_chat_request_is_mapped_whole() -> None:
    body = ChatRequest.model_validate(
        {
            "messages": [{"role": "user", "content": "Hi"}],
            "stop": "END",
            "response_format": {"type": "json_object"},
            "ignore_eos": False,
            "stop_token_ids": [3],
        }
    )
    params = requested_params(body, DEFAULTS, max_tokens=9, logprobs=2)
    assert params.stop_strings == ("END",)
    assert params.stop_token_ids == (3,)
    assert params.grammar is not None
    assert (params.max_new_tokens, params.logprobs) == (9, 2)
