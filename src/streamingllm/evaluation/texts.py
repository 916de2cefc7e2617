"""Texts by name: a file, Python's own reference, or a data set of the hub."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

from streamingllm.errors import InputError, first_line
from streamingllm.text_files import read_text_file, without_byte_order_mark

if TYPE_CHECKING:
    from torch import Tensor

    from streamingllm.models import LanguageModel

PYTHON_REFERENCE = "pydoc"
HUB_PREFIX = "hub:"
_CHOICE = "choose a UTF-8 file, `pydoc`, or `hub:DATASET`"


def open_documents(source: str) -> Iterable[str]:
    """Find a text before anything is spent on reading it.

    Args:
        source: a path, `pydoc` or `hub:DATASET`. The word `pydoc` means the language reference
            that every Python carries (465 KB). A file of that name is `./pydoc`. The `text` column
            of a data set's test split, such as `hub:emozilla/pg19-test`, is fetched document by
            document.

    Returns:
        The text as one or more documents, to be read in order.

    Raises:
        InputError: there is no such text, or it is empty or not UTF-8.
    """
    if not source:
        raise InputError(f"text='' is empty; {_CHOICE}")
    if source == PYTHON_REFERENCE:
        return [_python_reference()]
    if source.startswith(HUB_PREFIX):
        return _hub_documents(source)
    return [_file_text(source)]


def read_tokens(
    language_model: LanguageModel, documents: Iterable[str], max_tokens: int | None = None
) -> Tensor:
    """Turn documents into the token ids of one stream.

    Args:
        language_model: whose tokenizer is used; what it puts at the beginning of a stream comes
            once, before the first document.
        documents: as `open_documents` returns them; no more are drawn than are needed.
        max_tokens: cut the text here; None for all of it.

    Returns:
        LongTensor [T] on the model's device.

    Raises:
        InputError: fewer than two tokens, so nothing to predict.
    """
    import torch

    parts: list[Tensor] = []
    num_tokens = 0
    for document in documents:
        parts.append(language_model.encode(document, add_special_tokens=not parts))
        num_tokens += len(parts[-1])
        if max_tokens is not None and num_tokens >= max_tokens:
            break
    if num_tokens < 2:
        raise InputError(f"text has {num_tokens} tokens, none of them to predict; give at least 2")
    return torch.cat(parts)[:max_tokens]


def _file_text(name: str) -> str:
    text = read_text_file("text", name, _CHOICE)
    if not text.strip():
        raise InputError(f"text={name!r} is empty; choose a file with some text")
    return text


def _python_reference() -> str:
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    return "\n\n".join(topics[name] for name in sorted(topics))


def _hub_documents(source: str) -> Iterable[str]:
    try:
        datasets: Any = importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        raise InputError(
            f"text={source!r} needs the extra `hub`; pip install 'streamingllm[hub]'"
        ) from error
    with _failing_as_input_error(source):
        # Streaming: a few documents are read of what may be gigabytes.
        name = source.removeprefix(HUB_PREFIX)
        rows = iter(datasets.load_dataset(name, split="test", streaming=True))
        first: dict[str, object] = next(rows, {})
    text = first.get("text")
    if not isinstance(text, str):
        raise InputError(
            f"text={source!r} has no column of text named `text`; choose another data set"
        )
    return chain([without_byte_order_mark(text)], _texts(rows, source))


def _texts(rows: Iterator[Any], source: str) -> Iterator[str]:
    with _failing_as_input_error(source):
        for row in rows:
            yield without_byte_order_mark(row["text"])


@contextmanager
def _failing_as_input_error(source: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the library raises its own errors, the hub's and the network's
        raise InputError(
            f"text={source!r} cannot be reached ({first_line(error)}); choose a data set of the "
            "hub with a test split"
        ) from error
