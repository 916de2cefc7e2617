"""A server for the checks of health."""

from __future__ import annotations

from tests.server.conftest import server, tiny_chat

__all__ = ["server", "tiny_chat"]
