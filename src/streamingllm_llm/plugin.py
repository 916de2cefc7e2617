"""Models of `llm` that a server answers for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Literal

import llm
from pydantic import Field

from streamingllm_llm.client import ServerClient, ServerError
from streamingllm_llm.turns import RESULT_FIELD, chat_messages, unseen

PREFIX = "streamingllm"
DEFAULT_URL = "http://127.0.0.1:8080"
_END = object()


class _Options(llm.Options):
    temperature: float | None = Field(None, ge=0, description="0 always takes the likeliest token")
    max_tokens: int | None = Field(None, ge=1, description="longest answer in tokens")
    eviction: Literal["token", "turn"] | None = Field(
        None, description="forget by token or by whole turns"
    )


class _ServedModel:
    """Hold what the models for synchronous and asynchronous use have in common.

    Args:
        served: id of the model on the server; None for the one that it serves.
    """

    can_stream = True
    supports_schema = True

    def __init__(self, served: str | None) -> None:
        self._served = served
        self.model_id = PREFIX if served is None else f"{PREFIX}/{served}"

    def _answer(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> Iterator[str]:
        client = server_client()
        try:
            messages, headers = unseen(client, conversation, chat_messages(prompt))
            body = _body(self._served, prompt, messages)
            if stream:
                chunks = client.stream(
                    {**body, "stream": True, "stream_options": {"include_usage": True}}, headers
                )
            else:
                chunks = iter((client.answer(body, headers),))
            last: dict[str, Any] = {}
            for chunk in chunks:
                last.update({name: chunk[name] for name in _KEPT if chunk.get(name) is not None})
                for choice in chunk.get("choices", ()):
                    last["finish_reason"] = choice.get("finish_reason")
                    text = (choice.get("delta") or choice.get("message") or {}).get("content")
                    if text:
                        yield text
        except (ServerError, ValueError) as error:
            raise llm.ModelError(str(error)) from error
        _record(response, last)


class StreamingModel(_ServedModel, llm.Model):
    """Answer in the session that a conversation has on the server."""

    class Options(_Options):
        """Options of an answer."""

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> Iterator[str]:
        """Yield the answer's text; `response.response_json` says what is forgotten."""
        yield from self._answer(prompt, stream, response, conversation)


class AsyncStreamingModel(_ServedModel, llm.AsyncModel):
    """Answer as `StreamingModel` does, in a thread."""

    class Options(_Options):
        """Options of an answer."""

    async def execute(
        self, prompt: Any, stream: bool, response: Any, conversation: Any
    ) -> AsyncGenerator[str, None]:
        """Yield the answer's text."""
        texts = self._answer(prompt, stream, response, conversation)
        while (text := await asyncio.to_thread(next, texts, _END)) is not _END:
            yield str(text)


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Register the models of the server, and `streamingllm`, which is whichever it serves."""
    register(StreamingModel(None), AsyncStreamingModel(None))
    try:
        served = server_client().models()
    except ServerError:
        return  # `llm -m streamingllm` says that there is no server
    for name in served:
        register(StreamingModel(name), AsyncStreamingModel(name))


def server_client() -> ServerClient:
    """Return a client of the server that the environment names."""
    key = llm.get_key(alias=PREFIX, env="STREAMINGLLM_API_KEY")
    return ServerClient(os.environ.get("STREAMINGLLM_URL", DEFAULT_URL), key)


_KEPT = ("id", "model", "usage", RESULT_FIELD)


def _body(served: str | None, prompt: Any, messages: list[dict[str, str]]) -> dict[str, Any]:
    options = prompt.options
    body: dict[str, Any] = {"messages": messages}
    if served is not None:
        body["model"] = served
    for name in ("temperature", "max_tokens"):
        if (value := getattr(options, name)) is not None:
            body[name] = value
    if options.eviction is not None:
        body[RESULT_FIELD] = {"eviction": options.eviction}
    if prompt.schema is not None:
        schema = {"name": "answer", "schema": prompt.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _record(response: Any, last: dict[str, Any]) -> None:
    response.response_json = last
    usage = last.get("usage") or {}
    details = usage.get("prompt_tokens_details") or {}
    response.set_usage(
        input=usage.get("prompt_tokens"),
        output=usage.get("completion_tokens"),
        details={"cached_tokens": details.get("cached_tokens", 0)},
    )
    if last.get("model"):
        response.set_resolved_model(last["model"])
