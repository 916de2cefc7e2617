"""Every command reads a text file in the same way."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from streamingllm.cli.generate import read_prompt
from streamingllm.errors import InputError
from streamingllm.evaluation import open_documents
from streamingllm.text_files import read_text_file

PLAIN = "one\n\ntwo  \n three"
WRITTEN = {
    "plain": PLAIN.encode(),
    "mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "windows": PLAIN.replace("\n", "\r\n").encode(),
    "old mac": PLAIN.replace("\n", "\r").encode(),
    "all": b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode(),
}


@pytest.mark.parametrize("content", WRITTEN.values(), ids=WRITTEN)
def test_marks_and_line_ends_do_not_matter(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    assert read_text_file("text", str(path), "choose") == PLAIN
    assert read_prompt(None, str(path)) == PLAIN
    assert list(open_documents(str(path))) == [PLAIN]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    assert read_prompt(None, "-") == PLAIN


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b"ab\xff", "is no UTF-8 text at byte 2")],
)
def test_what_is_no_text_is_refused_in_one_form(
    content: bytes | None, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as prompt:
        read_prompt(None, str(path))
    with pytest.raises(InputError, match=reason) as text:
        list(open_documents(str(path)))
    assert str(prompt.value).startswith(f"prompt_file={str(path)!r} ")
    assert str(text.value).startswith(f"text={str(path)!r} ")
    assert all("; choose a UTF-8 file" in str(error.value) for error in (prompt, text))
