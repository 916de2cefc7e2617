"""A tool by which a model searches the memory of its session while it answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from streamingllm.sessions.recall import Recaller, Search
from streamingllm.sessions.session import Session, StreamPlace
from streamingllm.sessions.template_cache import TemplateCache
from streamingllm.sessions.transcript import ContentPart, Message

SEARCH_MEMORY = "search_memory"
MAX_SEARCHES = 3  # of one answer
_NOTHING = "Nothing was found."
_TOOL: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": SEARCH_MEMORY,
        "description": "Search what was said earlier in this conversation, no longer in view.",
        "parameters": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "Words to look for.", "maxLength": 200}
            },
            "required": ["query"],
            "additionalProperties": False,
        },
    },
}
Tools = Sequence[Mapping[str, Any]]


class MemoryTool:
    """Declare the search to templates, run its calls, and encode their results.

    A call and its result are part of the answer: they have tokens, and no message of their own.
    A client sees the searches in the fields of the answer.

    Args:
        recaller: the memory.
        templates: encodes results.
        budget_tokens: bound on the tokens of one result, the marks of the template included.
    """

    def __init__(self, recaller: Recaller, templates: TemplateCache, budget_tokens: int) -> None:
        self._recaller = recaller
        self._templates = templates
        self._budget_tokens = budget_tokens

    async def results(
        self, session: Session, call: Message, first: int
    ) -> tuple[list[int], list[Search]]:
        """Run the searches of an answer.

        Args:
            session: whose log ends with the calls.
            call: the answer so far.
            first: stream position of its first token.

        Returns:
            ids to feed before the answer goes on, and what was found.
        """
        searches = [
            await self._found(session, _query_of(made.arguments)) for made in call.tool_calls
        ]
        draft = replace(
            session,
            transcript=session.transcript.fork(),
            token_log=session.token_log.fork(),
            place=StreamPlace(),
        )
        draft.transcript.append(replace(call, first=first, stop=len(session.token_log)))
        while True:
            results = [
                Message(
                    "tool",
                    (ContentPart(self._text(search)),),
                    tool_call_id=made.id,
                    name=SEARCH_MEMORY,
                )
                for made, search in zip(call.tool_calls, searches, strict=True)
            ]
            ids = (await self._templates.encode(draft, results)).ids
            longest = max(searches, key=lambda search: len(search.texts))
            if len(ids) <= self._budget_tokens or not longest.texts:
                return list(ids), searches
            at = searches.index(longest)
            searches[at] = replace(longest, texts=longest.texts[:-1])

    async def _found(self, session: Session, query: str) -> Search:
        recall = await asyncio.to_thread(
            self._recaller.recall,
            session.memory_key or session.key,
            query,
            session.visible_positions,
            self._budget_tokens,
        )
        return Search(query, recall.texts)

    def _text(self, search: Search) -> str:
        return self._recaller.listed(search.texts) or _NOTHING


def with_search(tools: Tools, *, is_on: bool) -> tuple[Mapping[str, Any], ...]:
    """Return the tools of a session with the search, or without it.

    A client's own tool of that name takes its place.

    Args:
        tools: of a client or a session.
        is_on: whether the model may search.
    """
    others = tuple(tool for tool in tools if tool != _TOOL)
    return (*others, _TOOL) if is_on and not has_own_search(others) else others


def has_own_search(tools: Tools) -> bool:
    """Tell whether a client has a tool of the same name."""
    return any(tool != _TOOL and _name_of(tool) == SEARCH_MEMORY for tool in tools)


def may_search(tools: Tools) -> bool:
    """Tell whether the tools of a session have the search."""
    return _TOOL in tools


def _name_of(tool: Mapping[str, Any]) -> Any:
    function = tool.get("function")
    return function.get("name") if isinstance(function, Mapping) else None


def _query_of(arguments: str) -> str:
    """Return the query of a call; what a model wrote wrong is searched as it is."""
    try:
        query = json.loads(arguments)["query"]
    except (ValueError, KeyError, TypeError):
        return arguments
    return query if isinstance(query, str) else arguments
