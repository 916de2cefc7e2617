"""Let a stream of events that begins again elsewhere go on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from streamingllm.errors import StreamingLLMError

_TEXTS = frozenset(
    ("content", "text", "delta", "reasoning_content", "arguments", "thinking", "partial_json")
)
_DONE = b"data: [DONE]"


class StreamDiffersError(StreamingLLMError):
    """A repeated answer is not the one whose beginning was sent."""


class StreamSplice:
    """Drop the events of a repeated stream that an earlier attempt has sent.

    An engine makes the same events for the same tokens. Their texts are compared all the same.

    Attributes:
        num_sent: events that were sent.
    """

    def __init__(self) -> None:
        self.num_sent = 0
        self._sent = blake2b()
        self._num_dropped = 0
        self._dropped = blake2b()

    def begin_again(self) -> None:
        """Begin the stream of another attempt."""
        self._num_dropped, self._dropped = 0, blake2b()

    def take(self, event: bytes) -> bool:
        """Tell whether an event is to be sent.

        Raises:
            StreamDiffersError: the text so far is not the one that was sent.
        """
        if is_comment(event):
            return True
        if self._num_dropped == self.num_sent:
            self._note(self._sent, event)
            self.num_sent += 1
            self._num_dropped += 1
            return True
        self._note(self._dropped, event)
        self._num_dropped += 1
        if self._num_dropped == self.num_sent and self._dropped.digest() != self._sent.digest():
            raise StreamDiffersError(
                "The engine died, and the repeated answer differs from what was sent; ask again"
            )
        return False

    def _note(self, digest: blake2b, event: bytes) -> None:
        for text in _texts_of(event):
            digest.update(text.encode(errors="surrogatepass"))


def is_comment(event: bytes) -> bool:
    """Tell whether an event says nothing, such as a ping."""
    return not event.strip() or event.startswith(b":")


def _texts_of(event: bytes) -> Iterator[str]:
    """Yield the texts of an answer in an event."""
    for line in event.split(b"\n"):
        if line.startswith(b"data:") and line != _DONE:
            try:
                yield from _texts_in(json.loads(line[5:]))
            except ValueError:
                yield line.decode(errors="replace")


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, str):
                if name in _TEXTS:
                    yield inner
            else:
                yield from _texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts_in(inner)
