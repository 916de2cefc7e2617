"""Text files, read in one way by all commands."""

from __future__ import annotations

from pathlib import Path

from streamingllm.errors import InputError

_BYTE_ORDER_MARK = "\ufeff"


def read_text_file(field: str, name: str, choice: str) -> str:
    """Return the text of a UTF-8 file, lines of which end in a newline.

    A byte order mark at the beginning is left out. Line ends of other systems become newlines.

    Args:
        field: names the option in a message.
        name: path of the file.
        choice: tells what to do instead.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        content = Path(name).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{field}={name!r} cannot be read ({reason}); {choice}") from error
    return decode_text(field, name, content, choice)


def decode_text(field: str, name: str, content: bytes, choice: str) -> str:
    """Return the text of a file's content, as `read_text_file` does."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{field}={name!r} is no UTF-8 text at byte {error.start}; {choice}"
        ) from error
    return without_byte_order_mark(text).replace("\r\n", "\n").replace("\r", "\n")


def without_byte_order_mark(text: str) -> str:
    """Return a text that was decoded from UTF-8, without the mark that some editors put first.

    The mark says nothing in UTF-8, and its tokens would take the place of the sinks.
    """
    return text.removeprefix(_BYTE_ORDER_MARK)
