"""Say what a model sees of a session, and what it has forgotten."""

from __future__ import annotations

from typing import Any

from streamingllm.sessions.recall import Recall, RecalledText
from streamingllm.sessions.turn import SessionView


def view_fields(view: SessionView) -> dict[str, Any]:
    """Return the field `streamingllm` of an answer."""
    fields = {
        "session_id": view.session_id,
        "seen_tokens": view.num_seen_tokens,
        "visible_tokens": view.num_visible_tokens,
        "forgotten_tokens": view.num_forgotten_tokens,
        "pinned_tokens": view.num_pinned_tokens,
        "first_visible_message": view.first_visible_message,
        "first_visible_message_id": view.first_visible_message_id,
        "notices": list(view.notices),
    }
    return fields if view.recall is None else {**fields, **recall_fields(view.recall)}


def recall_fields(recall: Recall) -> dict[str, Any]:
    """Return what a memory has put back into the window, and what it did not find."""
    return {
        "recalled": [_part_fields(part) for part in recall.texts],
        "unknown_words": list(recall.unknown_words),
        "not_found": recall.is_not_found,
        "searches": [
            {"query": search.query, "recalled": [_part_fields(part) for part in search.texts]}
            for search in recall.searches
        ],
        "evicted_results": [
            {"message_id": r.message_id, "tool": r.tool, "tokens": r.num_tokens}
            for r in recall.evicted_results
        ],
    }


def _part_fields(part: RecalledText) -> dict[str, Any]:
    return {
        "message_id": part.message_id,
        "position": part.position,
        "text": part.text,
        "score": round(part.score, 4),
        "speaker": part.speaker,
        "said_at": part.seconds,
        "words": list(part.words),
    }


def view_headers(view: SessionView) -> dict[str, str]:
    """Return the headers of an answer that say the same; a text without a session names none."""
    first = view.first_visible_message
    counts = {
        "seen": view.num_seen_tokens,
        "visible": view.num_visible_tokens,
        "forgotten": view.num_forgotten_tokens,
        "first-visible-message": "none" if first is None else first,
    }
    visible = "; ".join(f"{name}={value}" for name, value in counts.items())
    session = {"x-session-id": view.session_id} if view.session_id else {}
    return {**session, "x-streamingllm-visible": visible}
