from __future__ import annotations

from pathlib import Path

import pytest

from streamingllm import StreamConfig, load_model
from streamingllm.errors import ConfigError, ModelLoadError
from streamingllm.models.tuned_config import (
    read_tuned_config,
    save_tuned_config,
    tuned_config_file,
)
from tests.reference.tiny_folder import write_tiny_folder

SOURCE = "hub:org/name@0123abc"


def test_a_recommendation_is_read_again(tmp_path: Path) -> None:
    path = save_tuned_config(SOURCE, tmp_path, StreamConfig(2, 62), {"above_best": 0.1})
    assert path.parent == tmp_path / "tuned"
    assert read_tuned_config(SOURCE, tmp_path) == StreamConfig(2, 62)
    save_tuned_config(SOURCE, tmp_path, StreamConfig(1, 63), {})
    assert read_tuned_config(SOURCE, tmp_path) == StreamConfig(1, 63)
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_sources_that_differ_in_one_sign_have_files_of_their_own(tmp_path: Path) -> None:
    sources = [f"folder:/models/{name}" for name in ("a b", "a-b", "a+b")]
    assert len({tuned_config_file(source, tmp_path) for source in sources}) == 3


def test_a_model_without_a_recommendation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tuned=True has no recommendation for hub:org"):
        read_tuned_config(SOURCE, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"source": "hub:other", "num_sink_tokens": 1, "window_size": 9}',
        f'{{"source": "{SOURCE}", "num_sink_tokens": -1, "window_size": 9}}',
        f'{{"source": "{SOURCE}", "num_sink_tokens": 1}}',
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tuned_config_file(SOURCE, tmp_path)
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ModelLoadError, match="is no recommendation") as caught:
        read_tuned_config(SOURCE, tmp_path)
    assert str(path) in str(caught.value)


def test_a_loaded_model_has_it_when_asked(tmp_path: Path) -> None:
    folder, cache_dir = tmp_path / "model", tmp_path / "cache"
    folder.mkdir()
    write_tiny_folder(folder)
    plain = load_model(folder)
    assert plain.stream_config is None
    save_tuned_config(plain.source, cache_dir, StreamConfig(8, 24), {})
    assert load_model(folder, tuned=True, cache_dir=cache_dir).stream_config == StreamConfig(8, 24)
    with pytest.raises(ConfigError, match="tune --save"):
        load_model(folder, tuned=True, cache_dir=tmp_path / "other")
