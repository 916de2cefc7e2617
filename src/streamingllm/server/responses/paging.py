"""Cut lists of items into pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from streamingllm.server.errors import ApiError

Order = Literal["asc", "desc"]


def page_of(
    items: Sequence[dict[str, Any]], order: Order, limit: int, after: str | None
) -> dict[str, Any]:
    """Return a page of items as the API lists them.

    Args:
        items: all, the oldest first.
        order: "desc" begins with the newest.
        limit: of the page.
        after: id of the last item that is known.

    Raises:
        ApiError: there is no item of that id (404).
    """
    ordered = list(items) if order == "asc" else list(reversed(items))
    first = 0
    if after is not None:
        ids = [item["id"] for item in ordered]
        if after not in ids:
            raise ApiError(
                404,
                f"Item with id {after[:128]!r} not found.",
                code="item_not_found",
                param="after",
            )
        first = ids.index(after) + 1
    page = ordered[first : first + limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": first + limit < len(ordered),
    }
