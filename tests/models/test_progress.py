from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from streamingllm.models.progress import folder_bytes, watch_growth


def test_growth_is_reported_while_it_happens(tmp_path: Path) -> None:
    (tmp_path / "before").write_bytes(b"x" * 10)
    seen: list[int] = []
    half_way = threading.Event()

    def progress(stage: str, done_bytes: int, total_bytes: int) -> None:
        assert (stage, total_bytes) == ("fetch", 100)
        seen.append(done_bytes)
        if done_bytes == 50:
            half_way.set()

    with watch_growth(tmp_path, "fetch", 100, progress):
        (tmp_path / "half").write_bytes(b"x" * 50)
        assert half_way.wait(10)
        (tmp_path / "half").unlink()
    assert seen[0] == 0
    assert seen[-1] == 100
    assert seen == sorted(seen)


def test_a_failure_is_not_reported_as_done(tmp_path: Path) -> None:
    seen: list[int] = []
    with (
        pytest.raises(RuntimeError),
        watch_growth(tmp_path, "fetch", 100, lambda *event: seen.append(event[1])),
    ):
        raise RuntimeError
    assert 100 not in seen


def test_links_and_folders_count_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_bytes(b"x" * 7)
    (tmp_path / "link").symlink_to(folder / "file")
    assert folder_bytes(tmp_path) == 7
    assert folder_bytes(tmp_path / "none") == 0


def test_folders_that_vanish_count_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gone", "stays"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x" * 7)
    scandir = os.scandir

    def removing(path: Any = ".") -> Any:
        if Path(path).name == "gone":
            raise FileNotFoundError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", removing)
    assert folder_bytes(tmp_path) == 7
