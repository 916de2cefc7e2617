from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from streamingllm.errors import InputError
from streamingllm.evaluation import open_documents, read_tokens
from streamingllm.models import LanguageModel, load_model
from tests.reference.tiny_folder import write_tiny_folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(write_tiny_folder(tmp_path_factory.mktemp("tiny"), beginning=True))


def test_a_file_is_one_document(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("Grüße\n", encoding="utf-8")
    assert list(open_documents(str(path))) == ["Grüße\n"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b"ab\xff", "is no UTF-8 text at byte 2"), (b" \n", "is empty")],
)
def test_a_file_that_is_no_text_is_refused(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as error:
        open_documents(str(path))
    assert repr(str(path)) in str(error.value)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbfThe harbour\xef\xbb\xbf")
    assert list(open_documents(str(path))) == ["The harbour\ufeff"]
    path.write_bytes(b"\xef\xbb\xbf")
    with pytest.raises(InputError, match="is empty"):
        open_documents(str(path))


def test_an_empty_name_is_called_so() -> None:
    with pytest.raises(InputError, match="text='' is empty"):
        open_documents("")


@pytest.mark.parametrize("name", ["", "a\0b", "."])
def test_a_name_of_no_file_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="choose a UTF-8 file, `pydoc`, or `hub:DATASET`"):
        open_documents(name)


def test_the_python_reference_is_always_there_and_always_the_same() -> None:
    (first,) = open_documents("pydoc")
    (second,) = open_documents("pydoc")
    assert first == second
    assert len(first) > 300_000


def hub(monkeypatch: pytest.MonkeyPatch, load: Callable[..., Any]) -> None:
    """Put a `datasets` library in place whose `load_dataset` is `load`."""
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))


def test_a_hub_data_set_is_read_document_by_document(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def load(name: str, split: str, streaming: bool) -> Iterator[dict[str, str]]:
        assert (name, split, streaming) == ("someone/books", "test", True)
        for number in count():
            drawn.append(number)
            yield {"text": f"book {number}"}

    hub(monkeypatch, load)
    documents = iter(open_documents("hub:someone/books"))
    assert [next(documents), next(documents)] == ["book 0", "book 1"]
    assert drawn == [0, 1]


def test_marks_of_a_hub_data_set_are_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f"\ufeffbook {number}"} for number in range(3)]
    hub(monkeypatch, lambda *args, **kwargs: rows)
    assert list(open_documents("hub:someone/books")) == ["book 0", "book 1", "book 2"]


def test_a_hub_data_set_without_the_extra_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'streamingllm\[hub\]'"):
        open_documents("hub:someone/books")


@pytest.mark.parametrize("rows", [[], [{"title": "a"}], [{"text": 3}]])
def test_a_hub_data_set_without_text_is_refused(
    monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, object]]
) -> None:
    hub(monkeypatch, lambda *args, **kwargs: rows)
    with pytest.raises(InputError, match="no column of text named `text`"):
        open_documents("hub:someone/books")


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route to the hub\ndetails")

    hub(monkeypatch, load)
    with pytest.raises(InputError, match=r"cannot be reached \(no route to the hub\)") as error:
        open_documents("hub:someone/books")
    assert "\n" not in str(error.value)


def test_a_hub_that_goes_away_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: object, **kwargs: object) -> Iterator[dict[str, str]]:
        yield {"text": "first"}
        raise ConnectionError("gone")

    hub(monkeypatch, load)
    documents = iter(open_documents("hub:someone/books"))
    assert next(documents) == "first"
    with pytest.raises(InputError, match="gone"):
        next(documents)


def test_tokens_begin_once_and_end_where_they_should(tiny: LanguageModel) -> None:
    ids = read_tokens(tiny, ["abc", "de"])
    assert ids.dtype == torch.int64
    assert ids[0] == tiny.tokenizer.bos_token_id
    assert tiny.decode(ids[1:]) == "abcde"
    assert tiny.decode(read_tokens(tiny, ["abc", "de"], max_tokens=5)[1:]) == "abcd"


def test_no_more_documents_are_drawn_than_needed(tiny: LanguageModel) -> None:
    drawn: list[int] = []

    def documents() -> Iterator[str]:
        for number in count():
            drawn.append(number)
            yield "0123456789"

    assert len(read_tokens(tiny, documents(), max_tokens=25)) == 25
    assert drawn == [0, 1, 2]


def test_a_text_past_the_trained_length_is_no_reason_to_warn(
    tiny: LanguageModel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert len(read_tokens(tiny, ["x" * 1000])) == 1001
    assert not caplog.records


def test_a_text_with_nothing_to_predict_is_refused(tiny: LanguageModel) -> None:
    with pytest.raises(InputError, match="text has 1 tokens, none of them to predict"):
        read_tokens(tiny, [""])
