from __future__ import annotations

from pathlib import Path

import pytest
from platformdirs import user_cache_path

from streamingllm.cache_folder import cache_folder, using_cache_folder
from streamingllm.graphs import aot_cache
from streamingllm.kernels import native
from tests.cli.terminal import run_command


def test_the_folder_is_the_users_unless_another_is_named(tmp_path: Path) -> None:
    assert cache_folder() == user_cache_path("streamingllm")
    assert cache_folder(str(tmp_path)) == tmp_path
    assert cache_folder("~/cache") == Path.home() / "cache"


def test_the_innermost_choice_wins_and_is_undone(tmp_path: Path) -> None:
    with using_cache_folder(tmp_path):
        with using_cache_folder("~/inner"):
            assert cache_folder() == Path.home() / "inner"
            assert cache_folder(tmp_path / "argument") == tmp_path / "argument"
        assert cache_folder() == tmp_path
    with pytest.raises(RuntimeError, match="work failed"), using_cache_folder(tmp_path):
        raise RuntimeError("work failed")
    assert cache_folder() == user_cache_path("streamingllm")


def test_kernels_and_compiled_steps_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile(compiler: str, folder: Path) -> Path:
        library = folder / "kernels.so"
        library.touch()
        return library

    monkeypatch.setattr(native, "_compile", compile)
    monkeypatch.setattr(native, "_compiler", lambda: "true")
    with using_cache_folder(tmp_path):
        assert aot_cache.package_path("name") == tmp_path / "graphs" / "name.pt2"
        assert native.build().parent == tmp_path / "kernels"
    assert not aot_cache.package_path("name").is_relative_to(tmp_path)


@pytest.mark.parametrize("by_option", [True, False])
def test_the_command_line_moves_it_for_one_command(
    by_option: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def load(model: str, **options: object) -> None:
        seen.append(cache_folder())
        raise SystemExit(3)

    monkeypatch.setattr("streamingllm.models.load.load_model", load)
    if not by_option:
        monkeypatch.setenv("STREAMINGLLM_CACHE", str(tmp_path))
    arguments = ["--cache-dir", str(tmp_path)] if by_option else []
    assert run_command("generate", "The sea", *arguments) == 3
    assert seen == [tmp_path]
    assert cache_folder() == user_cache_path("streamingllm")
