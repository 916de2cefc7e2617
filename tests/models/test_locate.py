from __future__ import annotations

from pathlib import Path

import pytest

from streamingllm.errors import ModelLoadError
from streamingllm.models import CATALOG, locate_checkpoint


def test_a_folder_and_a_file_are_taken_as_they_are(tiny_folder: Path, tiny_gguf: Path) -> None:
    assert locate_checkpoint(tiny_folder).source == f"folder:{tiny_folder}"
    checkpoint = locate_checkpoint(str(tiny_gguf))
    assert checkpoint.source == f"gguf:{tiny_gguf}"
    assert checkpoint.path == tiny_gguf


def test_a_path_may_be_relative_or_in_the_home_folder(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_folder.parent)
    monkeypatch.setenv("HOME", str(tiny_folder.parent))
    assert locate_checkpoint("tiny").folder == tiny_folder
    assert locate_checkpoint("~/tiny").folder == tiny_folder


@pytest.mark.parametrize("name", ["nothing", "/no/such/folder", "a/b/c", "org/file.gguf", ""])
def test_an_unknown_name_says_what_is_known(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError) as caught:
        locate_checkpoint(name or str(tmp_path / "none"))
    for word in (*CATALOG, "hub id", "folder", ".gguf"):
        assert word in str(caught.value)


def test_a_hub_id_without_a_hub_is_one_line() -> None:
    with pytest.raises(ModelLoadError, match="the hub cannot be reached") as caught:
        locate_checkpoint("organisation/model")
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"has no config\.json; choose a folder"):
        locate_checkpoint(tmp_path)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"not a model")
    with pytest.raises(ModelLoadError, match="does not begin like a GGUF file"):
        locate_checkpoint(path)
