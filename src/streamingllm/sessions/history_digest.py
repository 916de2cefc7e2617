"""Digests of histories: each of a message, as it was sent, and all before it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import blake2b

from streamingllm.sessions.transcript import Message


def history_digests(messages: Iterable[Message]) -> list[bytes]:
    """Return a digest of each beginning of a history, by which a store finds its session.

    Ids of messages and calls are left out, because clients make their own. So is white space at the
    end of a text, which some of them strip.
    """
    digests, digest = [], b""
    for message in messages:
        digest = next_digest(digest, message)
        digests.append(digest)
    return digests


def next_digest(digest: bytes, message: Message) -> bytes:
    """Return the digest of a history that goes on with a message.

    Args:
        digest: of what came before; empty at the beginning.
        message: that follows.
    """
    facts = [
        message.role,
        message.text.rstrip(),
        [[call.name, _canonical(call.arguments)] for call in message.tool_calls],
    ]
    said = json.dumps(facts, ensure_ascii=False).encode(errors="surrogatepass")
    return blake2b(digest + said, digest_size=16).digest()


def _canonical(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except ValueError:
        return arguments
