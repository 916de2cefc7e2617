"""A session as one JSON document, to take it to another server."""

from __future__ import annotations

import base64
import binascii
import json
from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from streamingllm.errors import InputError
from streamingllm.inputs import vocab_size_of
from streamingllm.models import LanguageModel
from streamingllm.sessions.facts import Fact, fact_of
from streamingllm.sessions.message_json import message_from_json, message_to_json
from streamingllm.sessions.plain_json import check_json
from streamingllm.sessions.session import Session
from streamingllm.sessions.token_log import ids_from_bytes, ids_to_bytes
from streamingllm.sessions.transcript import Message, Transcript

_FORMAT = "streamingllm-session"
_VERSION = 1
_NOT_A_DOCUMENT = (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error)


@dataclass(frozen=True)
class SessionArchive:
    """Hold what a document says of a session.

    Args:
        system_prompt: pinned.
        facts: pinned after it.
        tools: pinned.
        variables: of the chat template.
        eviction: by token or by turn.
        metadata: of its makers.
        messages: all, the system prompt first.
        num_unfed: last messages that no token stands for.
        token_ids: of the stream; none if the document is of another model.
    """

    system_prompt: str
    facts: tuple[Fact, ...]
    tools: tuple[Mapping[str, Any], ...]
    variables: Mapping[str, Any]
    eviction: Literal["token", "turn"]
    metadata: Mapping[str, Any]
    messages: tuple[Message, ...]
    num_unfed: int
    token_ids: array[int] = field(default_factory=lambda: array("I"))


def export_session(session: Session, lm: LanguageModel) -> bytes:
    """Return a document of messages, token ids and settings, as JSON."""
    document = {
        "format": _FORMAT,
        "version": _VERSION,
        "session_id": session.id,
        "model": lm.name,
        "system_prompt": session.system_prompt,
        "facts": [asdict(fact) for fact in session.facts],
        "tools": list(session.tools),
        "variables": dict(session.variables),
        "eviction": session.eviction,
        "metadata": session.metadata,
        "num_unfed": session.num_unfed,
        "messages": [json.loads(message_to_json(message)) for message in session.transcript],
        "token_ids": base64.b64encode(ids_to_bytes(session.token_log)).decode(),
    }
    return json.dumps(document, ensure_ascii=False).encode()


def import_session(data: bytes, lm: LanguageModel) -> SessionArchive:
    """Return what a document says; ids of another model's tokens are left out.

    Raises:
        InputError: the data is no document of a session, or does not fit together.
    """
    try:
        document = json.loads(data)
        check_json("data", document)
        if document["format"] != _FORMAT or document["version"] != _VERSION:
            raise ValueError(f"format={document['format']!r}, version={document['version']!r}")
        messages = tuple(message_from_json(json.dumps(m)) for m in document["messages"])
        ids = ids_from_bytes(base64.b64decode(document["token_ids"], validate=True))
        archive = SessionArchive(
            str(document["system_prompt"]),
            tuple(fact_of(fact) for fact in document.get("facts", ())),
            tuple(dict(tool) for tool in document["tools"]),
            dict(document["variables"]),
            _eviction(document["eviction"]),
            dict(document["metadata"]),
            messages,
            int(document["num_unfed"]),
            ids if document["model"] == lm.name else array("I"),
        )
        _check(archive, vocab_size_of(lm.model))
    except InputError:
        raise
    except _NOT_A_DOCUMENT as error:
        raise InputError(
            f"data is no exported session ({error}); send what an export returned"
        ) from error
    return archive


def _eviction(value: object) -> Literal["token", "turn"]:
    if value == "turn":
        return "turn"
    if value == "token":
        return "token"
    raise ValueError(f"eviction={value!r}")


def _check(archive: SessionArchive, vocab_size: int) -> None:
    if not 0 <= archive.num_unfed <= len(archive.messages):
        raise ValueError(f"num_unfed={archive.num_unfed}")
    if any(token >= vocab_size for token in archive.token_ids):
        raise ValueError("token_ids has an id out of the vocabulary")
    transcript = Transcript()
    for message in archive.messages:
        transcript.append(message)
    if archive.token_ids and len(transcript) and transcript[-1].stop > len(archive.token_ids):
        raise ValueError("messages stand after the last token id")
