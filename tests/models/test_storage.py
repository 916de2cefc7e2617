from __future__ import annotations

from pathlib import Path

import pytest

from streamingllm.errors import ModelLoadError
from streamingllm.models.storage import (
    has_checksum,
    replace_folder,
    sha256_of,
    staging_folder,
    writing_to,
)


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    leftover = tmp_path / "partial-abc"
    leftover.mkdir()
    (leftover / "half").touch()
    with writing_to(tmp_path):
        assert not leftover.exists()


def test_staging_goes_when_its_work_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staging_folder(tmp_path) as staging:
        (staging / "half").touch()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_system_error_while_writing_is_a_load_error(tmp_path: Path) -> None:
    with (
        pytest.raises(ModelLoadError, match=r"cache_dir=.*\(No space left\)"),
        writing_to(tmp_path),
    ):
        raise OSError(28, "No space left")


def test_a_folder_replaces_another(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    replace_folder(tmp_path / "new", tmp_path / "old")
    assert [path.name for path in tmp_path.rglob("*")] == ["old", "new"]


def test_a_checksum_is_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert not has_checksum(path, "")
    path.write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(path) == expected
    assert has_checksum(path, expected)
    assert not has_checksum(path, "0" * 64)
