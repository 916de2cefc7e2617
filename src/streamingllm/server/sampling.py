"""Map the sampling fields of the APIs to sampling parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from streamingllm.errors import InputError
from streamingllm.server.schemas.generation import GenerationRequest
from streamingllm.stream.grammar import Grammar
from streamingllm.stream.sampling import SamplingParams

_NUM_SEEDS = 2**63
_LEAST_TOP_P = 1e-9  # only the most probable token has room below it


def sampling_params(
    defaults: SamplingParams,
    *,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    logit_bias: Mapping[str, float] | None = None,
    max_tokens: int | None = None,
    seed: int | None = None,
    stop: Sequence[str] | None = None,
    stop_token_ids: Collection[int] | None = None,
    ignore_eos: bool | None = None,
    grammar: Grammar | None = None,
    n: int | None = None,
    logprobs: int | None = None,
) -> SamplingParams:
    """Return the parameters of a request; a field that is None keeps the operator's default.

    Args:
        defaults: of the operator.
        temperature: 0 is greedy.
        top_p: 0 keeps the most probable token alone.
        top_k: 0 for all.
        min_p: share of the greatest probability.
        repetition_penalty: 1 for none.
        frequency_penalty: each time that a token was generated lowers its score by this.
        presence_penalty: a token that was generated has its score lowered by this.
        logit_bias: by token id in decimal digits.
        max_tokens: to generate at most.
        seed: any 64-bit integer.
        stop: stop strings.
        stop_token_ids: tokens that end the text.
        ignore_eos: whether the model's eos is no end.
        grammar: that the text follows.
        n: number of samples.
        logprobs: number of most probable tokens to report for each token.

    Raises:
        ConfigError: a value is out of range.
    """
    given: dict[str, Any] = {
        "temperature": temperature,
        "top_p": None if top_p is None else max(top_p, _LEAST_TOP_P),
        "top_k": top_k,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "frequency_penalty": frequency_penalty,
        "presence_penalty": presence_penalty,
        "logit_bias": None if logit_bias is None else {int(t): b for t, b in logit_bias.items()},
        "max_new_tokens": max_tokens,
        "seed": None if seed is None else seed % _NUM_SEEDS,
        "stop_strings": None if stop is None else tuple(stop),
        "stop_token_ids": None if stop_token_ids is None else tuple(stop_token_ids),
        "ignore_eos": ignore_eos,
        "grammar": grammar,
        "n": n,
        "logprobs": logprobs,
    }
    return replace(defaults, **{name: value for name, value in given.items() if value is not None})


def json_grammar(format_type: str, schema: Mapping[str, Any] | None = None) -> Grammar | None:
    """Return the grammar of a response format, None for plain text.

    Args:
        format_type: "text", "json_object" or "json_schema".
        schema: of "json_schema".

    Raises:
        InputError: a JSON schema is missing.
    """
    if format_type == "text":
        return None
    if format_type == "json_object":
        return Grammar.json_schema({"type": "object"})
    if schema is None:
        raise InputError("json_schema has no schema; send one, or use type='json_object'")
    return Grammar.json_schema(dict(schema))


def requested_params(
    body: GenerationRequest,
    defaults: SamplingParams,
    *,
    max_tokens: int | None,
    logprobs: int | None,
) -> SamplingParams:
    """Return the parameters of a chat completion or a completion; see `sampling_params`."""
    grammar, format_ = None, body.response_format
    if format_ is not None:
        schema = None if format_.json_schema is None else format_.json_schema.schema_
        grammar = json_grammar(format_.type, schema)
    return sampling_params(
        defaults,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        logit_bias=body.logit_bias,
        max_tokens=max_tokens,
        seed=body.seed,
        stop=body.stop,
        stop_token_ids=body.stop_token_ids,
        ignore_eos=body.ignore_eos,
        grammar=grammar,
        n=body.n,
        logprobs=logprobs,
    )
