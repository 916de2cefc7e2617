"""Requests to a server of the tiny chat model, and what their answers say."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import httpx2

from streamingllm.server.token_texts import TokenTexts
from tests.reference.tiny_folder import byte_tokenizer


class Api:
    """Send requests to a server.

    Args:
        url: of the server.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx2.Client(base_url=url, timeout=120)

    @property
    def model(self) -> str:
        """The id of the model."""
        return str(self.get("/v1/models").json()["data"][0]["id"])

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Any:
        return self._client.get(path, headers=headers)

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Any:
        return self._client.post(path, json=body, headers=headers)

    def patch(self, path: str, body: Any) -> Any:
        return self._client.patch(path, json=body)

    def delete(self, path: str) -> Any:
        return self._client.delete(path)

    def raw(self, method: str, path: str, content: bytes | None) -> Any:
        """Send a body as it is, as JSON."""
        headers = {"content-type": "application/json"}
        return self._client.request(method.upper(), path, content=content, headers=headers)

    def events_of(self, path: str) -> list[Any]:
        """The data of the events of a stream that is fetched, `[DONE]` as it is."""
        return _events_in(self.get(path))

    def send(self, path: str, body: bytes) -> Any:
        """Post bytes that are called JSON."""
        headers = {"content-type": "application/json"}
        return self._client.post(path, content=body, headers=headers)

    def stream(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> list[Any]:
        """The data of the events of a stream, `[DONE]` as it is."""
        return _events_in(self.post(path, body, headers))

    def leave(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """Begin to read an answer, and go away."""
        if body.get("stream"):
            with self._client.stream("POST", path, json=body, headers=headers) as response:
                next(response.iter_bytes())
            return
        with contextlib.suppress(httpx2.ReadTimeout):
            self._client.post(path, json=body, headers=headers, timeout=0.5)

    def token_id(self, token_bytes: bytes) -> int:
        """The token of some bytes."""
        return _token_ids()[token_bytes]

    def close(self) -> None:
        self._client.close()


def _events_in(response: Any) -> list[Any]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = response.text.split("\n")
    found = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [data if data == "[DONE]" else json.loads(data) for data in found]


def text_of(chunks: Sequence[Any]) -> str:
    """The text of the first sample of a stream of chat completions."""
    choices = [choice for chunk in chunks[:-1] for choice in chunk.get("choices", [])]
    return "".join(c["delta"].get("content") or "" for c in choices if c["index"] == 0)


@cache
def _token_ids() -> dict[bytes, int]:
    tokenizer = byte_tokenizer()
    texts = TokenTexts(tokenizer)
    return {texts.bytes_of(i): i for i in range(len(tokenizer))}
