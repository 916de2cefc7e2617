"""The model that a server serves, by its names."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from starlette.requests import HTTPConnection

from streamingllm import __version__
from streamingllm.server.errors import ApiError

_LOCAL_SOURCES = ("folder:", "gguf:")


def served_model_id(request: HTTPConnection) -> str:
    """Return the id of the model that is served; that of a file is its name, not its path."""
    lm = request.app.state.manager.lm
    is_local = lm.source.startswith(_LOCAL_SOURCES)
    return Path(lm.name).name.removesuffix(".gguf") if is_local else str(lm.name)


def model_names(request: HTTPConnection) -> tuple[str, ...]:
    """Return the names that requests may use for the model, its id first, each once."""
    aliases = request.app.state.settings.model_aliases
    return tuple(dict.fromkeys((served_model_id(request), *aliases)))


def check_model(request: HTTPConnection, name: str | None) -> str:
    """Return the id of the served model for a name that a request uses.

    Raises:
        ApiError: no model of that name is served (404).
    """
    names = model_names(request)
    if name is not None and name not in names:
        shown = name[:128]
        raise ApiError(
            404,
            f"model={shown!r} is not served here; use {' or '.join(map(repr, names))}",
            code="model_not_found",
            param="model",
        )
    return names[0]


def fingerprint(request: HTTPConnection) -> str:
    """Return a name for what decides an answer: the weights and the version of the program."""
    lm = request.app.state.manager.lm
    facts = f"{lm.source} {lm.model.dtype} {__version__}"
    return f"fp_{blake2b(facts.encode(), digest_size=5).hexdigest()}"
