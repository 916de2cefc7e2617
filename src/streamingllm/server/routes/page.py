"""The page at `/` and its files, under a strict Content-Security-Policy."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, HTTPException
from fastapi.responses import Response

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parents[1] / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_IMPORT_MAP = re.compile(r'<script type="importmap">(.*?)</script>', re.DOTALL)


@cache
def page_files() -> dict[str, tuple[bytes, str, str]]:
    """Read the page's files once; return content, media type and tag of each, by path."""
    files = {}
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file() and path.suffix in _TYPES:
            content = path.read_bytes()
            name = path.relative_to(FOLDER).as_posix()
            files[name] = (content, _TYPES[path.suffix], _tag(content))
    return files


def content_security_policy(html: str) -> str:
    """Allow the page's own files and the import map of a page, nothing else.

    An import map has to stand in the page, so its hash is named.
    """
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in _IMPORT_MAP.findall(html)
    )
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' {hashes}",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types dompurify",
        )
    )


@router.get("/")
async def page(if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """Return the page."""
    return _answer("index.html", if_none_match)


@router.get("/page/{path:path}")
async def page_file(path: str, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """Return a file of the page."""
    return _answer(path, if_none_match)


def _answer(path: str, if_none_match: str | None) -> Response:
    if path not in page_files():
        raise HTTPException(404, f"path={path!r} is no file of the page; open /")
    content, media_type, tag = page_files()[path]
    headers = {
        "ETag": tag,
        "Cache-Control": "no-cache",  # asked for again, answered with 304 while it is the same
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    if path == "index.html":
        headers["Content-Security-Policy"] = content_security_policy(content.decode())
    if if_none_match == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)


def _tag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'
