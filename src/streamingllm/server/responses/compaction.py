"""Compact a history to the place in the session that has it."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

from streamingllm.server.errors import ApiError

_VERSION = 1


@dataclass(frozen=True)
class Place:
    """Name a place in a session; its owner alone can go on from there.

    Args:
        session_id: of the session.
        message_id: after which it goes on.
    """

    session_id: str
    message_id: str

    def encoded(self) -> str:
        """Return the place as opaque text."""
        facts = json.dumps([_VERSION, self.session_id, self.message_id]).encode()
        return base64.urlsafe_b64encode(facts).decode()


def place_of(text: str) -> Place:
    """Return the place that a compaction item names.

    Raises:
        ApiError: the text is not of this server (400).
    """
    try:
        version, session_id, message_id = json.loads(base64.urlsafe_b64decode(text.encode()))
        if version != _VERSION or not (isinstance(session_id, str) and isinstance(message_id, str)):
            raise ValueError(f"version {version!r}")
    except (ValueError, TypeError, binascii.Error) as error:
        raise ApiError(
            400,
            "encrypted_content of the compaction item is not of this server; compact again",
            code="invalid_value",
            param="input",
        ) from error
    return Place(session_id, message_id)
