"""Models that are split into several files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from streamingllm.errors import ModelLoadError
from streamingllm.models import locate_checkpoint
from streamingllm.models.gguf.parts import part_paths, read_gguf_model
from tests.reference.family_gguf import write_family_gguf


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    write_family_gguf(tmp_path / "small.gguf", "llama", split_tensors=20)
    paths = sorted(tmp_path.iterdir())
    assert [path.name for path in paths] == [
        f"small-{number:05}-of-00002.gguf" for number in (1, 2)
    ]
    return paths


def test_any_part_stands_for_the_model(parts: list[Path], tmp_path: Path) -> None:
    whole = tmp_path / "whole" / "small.gguf"
    whole.parent.mkdir()
    write_family_gguf(whole, "llama")
    expected = locate_checkpoint(whole).read_model(torch.float32).state_dict()
    for part in parts:
        checkpoint = locate_checkpoint(part)
        assert checkpoint.path == parts[0]
        state = checkpoint.read_model(torch.float32).state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_a_change_to_any_part_is_noticed(parts: list[Path]) -> None:
    checkpoint = locate_checkpoint(parts[0])
    before = checkpoint.fingerprint
    parts[1].write_bytes(parts[1].read_bytes() + b"0")
    assert checkpoint.fingerprint != before


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_part_is_named(parts: list[Path], missing: int) -> None:
    parts[missing].unlink()
    with pytest.raises(ModelLoadError, match=f"is one of 2 files .*put {parts[missing].name}"):
        locate_checkpoint(parts[1 - missing])


def test_a_part_under_another_name_is_told_its_own(parts: list[Path]) -> None:
    renamed = parts[1].rename(parts[1].with_name("other.gguf"))
    with pytest.raises(ModelLoadError, match=r"is one of 2 files .*NAME-00002-of-00002\.gguf"):
        locate_checkpoint(renamed)


def test_parts_in_the_wrong_order_are_refused(parts: list[Path], tmp_path: Path) -> None:
    parts[0].rename(tmp_path / "aside")
    parts[1].rename(parts[0])
    (tmp_path / "aside").rename(parts[1])
    with pytest.raises(ModelLoadError, match="states that it is part 2 of 2; fetch it again"):
        locate_checkpoint(parts[0])


def test_parts_of_two_models_are_refused(parts: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_family_gguf(other / "small.gguf", "llama-bias", split_tensors=40)
    (other / parts[1].name).rename(parts[1])
    with pytest.raises(ModelLoadError, match=r"hold \d+ tensors of \d+|hold a tensor twice"):
        read_gguf_model(parts[0])


@pytest.mark.parametrize("name", ["model.gguf", "a-00003-of-00002.gguf", "a-00000-of-00002.gguf"])
def test_other_names_are_those_of_whole_models(name: str) -> None:
    assert part_paths(Path(name)) == (Path(name),)
