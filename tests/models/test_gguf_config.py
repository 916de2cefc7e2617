"""What a file must state to be a model, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest

from streamingllm import load_model
from streamingllm.errors import ModelLoadError
from streamingllm.models.gguf.config import gguf_config, gguf_fields
from streamingllm.models.gguf.header import read_gguf_header
from tests.reference.family_gguf import GGUF_CASES, write_family_gguf
from tests.reference.gguf_case import GgufFamilyCase


def stated(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    facts: dict[str, Any],
    name: str = "llama",
    **more: Any,
) -> Path:
    """Write the file of a case with other facts."""
    case = GGUF_CASES[name]
    changed = {**case.facts, **facts}
    monkeypatch.setitem(
        GGUF_CASES, name, GgufFamilyCase(case.model_type, case.fields, changed, **more)
    )
    write_family_gguf(path, name)
    return path


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"attention.key_length": 0}, r"attention\.key_length=0 does not describe a model"),
        ({"embedding_length": 0}, r"embedding_length=0 does not describe a model"),
        ({"block_count": 400_000_000}, r"block_count=400000000 but there are tensors of 4 blocks"),
        ({"attention.head_count": "four"}, r"head_count='four' is not an integer"),
        ({"attention.head_count": [4, 4]}, r"head_count=\[4, 4\] is not an integer"),
        ({"rope.freq_base": -1.0}, r"rope\.freq_base=-1\.0 does not describe a model"),
        ({"rope.freq_base": float("nan")}, r"rope\.freq_base=nan is not a finite number"),
        ({"rope.scaling.type": "ntk", "rope.scaling.factor": 2.0}, r"type='ntk' is not known"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(
    facts: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stated(tmp_path / "odd.gguf", monkeypatch, facts)
    with pytest.raises(ModelLoadError, match=message) as caught:
        gguf_fields(read_gguf_header(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"attention.causal": False}, r"causal=False describes an encoder"),
        ({"attention.sliding_window": 8}, r"sliding_window describes local layers"),
        ({"attention.head_count_kv": 2}, r"head_count_kv=2 is not an array"),
        ({"attention.head_count_kv": [0, 2, 0, 4]}, r"kv=\[0, 2, 0, 4\] does not describe a model"),
        ({"attention.head_count_kv": [0, 2]}, r"kv=\[0, 2\] does not describe a model"),
    ],
)
def test_an_lfm2_that_transformers_does_not_have_is_refused(
    facts: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stated(tmp_path / "odd.gguf", monkeypatch, facts, "lfm2")
    with pytest.raises(ModelLoadError, match=message):
        gguf_fields(read_gguf_header(path))


@pytest.mark.parametrize("row", [[0.0, 1.0, 1.0, 1.0], [float("inf"), 1.0, 1.0, 1.0]])
def test_factors_of_frequencies_are_above_zero(
    row: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = {"rope_freqs.weight": row}
    path = stated(tmp_path / "odd.gguf", monkeypatch, {}, tensors=tensors)
    with pytest.raises(ModelLoadError, match="has a factor that is not above zero"):
        gguf_fields(read_gguf_header(path))


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "unheard-of")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelLoadError, match=r"general\.architecture='unheard-of' is not known"):
        gguf_fields(read_gguf_header(tmp_path / "other.gguf"))


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ("llama4", "attends in fixed chunks"),
        ("mamba2", "has no attention"),
        ("t5", "reads its whole input at once"),
    ],
)
def test_what_cannot_stream_is_refused_by_its_reason(
    architecture: str, reason: str, tmp_path: Path
) -> None:
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", architecture)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelLoadError, match=f"'{architecture}' {reason}.*; choose another model"):
        load_model(tmp_path / "other.gguf")


@pytest.mark.parametrize(
    ("tokens", "types", "stated_ids", "expected"),
    [
        (["a", "<|im_end|>"], [1, 3], {}, [2, 1]),
        (["a", "<|im_end|>"], [1, 1], {}, 2),
        (["a", "<|im_end|>"], None, {}, [2, 1]),
        (["a", "b"], [1, 1], {"eot_token_id": 5, "eom_token_id": 2}, [2, 5]),
    ],
)
def test_marks_that_end_a_turn_end_it_whatever_the_file_calls_eos(
    tokens: list[str],
    types: list[int] | None,
    stated_ids: dict[str, int],
    expected: int | list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = gguf.GGUFWriter.write_header_to_file

    def with_tokens(writer: gguf.GGUFWriter) -> None:
        writer.add_token_list(tokens)
        if types is not None:
            writer.add_token_types(types)
        for name, token_id in stated_ids.items():
            writer.add_uint32(f"tokenizer.ggml.{name}", token_id)
        original(writer)

    monkeypatch.setattr(gguf.GGUFWriter, "write_header_to_file", with_tokens)
    write_family_gguf(tmp_path / "small.gguf", "llama")
    assert gguf_config(read_gguf_header(tmp_path / "small.gguf")).eos_token_id == expected
