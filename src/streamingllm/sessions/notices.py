"""Texts of the operator that clients show: a disclosure at first, a reminder again and again."""

from __future__ import annotations

import time

from streamingllm.sessions.session import Session
from streamingllm.sessions.session_settings import SessionSettings


def notices_due(session: Session, settings: SessionSettings) -> tuple[str, ...]:
    """Return the texts that are due now, and note that they were shown."""
    now = time.time()
    notices = []
    if settings.disclosure and not session.reminded_seconds:
        notices.append(settings.disclosure)
    elif settings.reminder and now - session.reminded_seconds >= settings.reminder_seconds:
        notices.append(settings.reminder)
    if notices or not session.reminded_seconds:
        session.reminded_seconds = now
    return tuple(notices)
