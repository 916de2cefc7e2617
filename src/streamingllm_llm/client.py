"""Ask a server over HTTP, with the standard library alone."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

_LIST_SECONDS = 2
_ANSWER_SECONDS = 600
_DATA = "data: "
_DONE = "[DONE]"


class ServerError(Exception):
    """Report that a server refused a request or is not there.

    Args:
        message: what is wrong, and what to do.
        status: of HTTP; None if there was no answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ServerClient:
    """Send requests to a server.

    Args:
        url: of the server, without a path.
        key: of the client; None if the server needs none.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"content-type": "application/json"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"

    def models(self) -> list[str]:
        """Return the ids of the models that are served."""
        with self._open("/v1/models", seconds=_LIST_SECONDS) as answer:
            return [str(model["id"]) for model in json.load(answer)["data"]]

    def num_messages(self, session_id: str) -> int | None:
        """Return how many messages a session has; None if it is not there."""
        try:
            with self._open(f"/v1/sessions/{quote(session_id, safe='')}") as answer:
                return int(json.load(answer)["num_messages"])
        except ServerError as error:
            if error.status == 404:
                return None
            raise

    def answer(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        """Return a chat completion."""
        with self._open("/v1/chat/completions", body, headers) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def stream(
        self, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Iterator[dict[str, Any]]:
        """Yield the chunks of a chat completion; closing the iterator cancels the answer."""
        with self._open("/v1/chat/completions", body, headers) as answer:
            for line in answer:
                text = line.decode().rstrip("\n")
                if not text.startswith(_DATA):
                    continue
                if text == _DATA + _DONE:
                    return
                chunk = json.loads(text.removeprefix(_DATA))
                if "error" in chunk:
                    raise ServerError(str(chunk["error"]["message"]))
                yield chunk

    def _open(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = _ANSWER_SECONDS,
    ) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._url + path, data=data, headers={**self._headers, **(headers or {})}
        )
        try:
            return urllib.request.urlopen(request, timeout=seconds)
        except urllib.error.HTTPError as error:
            raise ServerError(_message_of(error), error.code) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise ServerError(
                f"No server answers at {self._url} ({reason}); run `streamingllm serve`, or set "
                "STREAMINGLLM_URL to its address"
            ) from error


def _message_of(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"The server answered with status {error.code}."
