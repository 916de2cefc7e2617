from __future__ import annotations

from pathlib import Path

import gguf
import pytest

from streamingllm.errors import ModelLoadError
from streamingllm.models.gguf.header import read_gguf_header
from streamingllm.models.gguf.reader import UnreadArray
from tests.reference.gguf_sample import write_sample


@pytest.mark.parametrize("num_tokens", [3, 5000])
def test_it_is_what_the_gguf_package_reads(num_tokens: int, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_sample(path, num_tokens)
    header, reader = read_gguf_header(path), gguf.GGUFReader(path)
    expected = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    assert header.metadata.keys() == expected.keys()
    for key, value in header.metadata.items():
        if isinstance(value, UnreadArray):
            assert (num_tokens, len(value)) == (5000, len(expected[key])), key
            assert header.array(key) == expected[key]
        else:
            assert value == expected[key], key
    assert header.num_parts == 1
    for ours, theirs in zip(header.tensors, reader.tensors, strict=True):
        assert (ours.name, ours.shape) == (theirs.name, tuple(reversed(theirs.shape.tolist())))
        assert (ours.offset, ours.num_bytes) == (theirs.data_offset, theirs.n_bytes)
        assert ours.ggml_type.number == theirs.tensor_type


@pytest.mark.parametrize("length", [6, 30, 200])
def test_a_header_that_is_cut_short_is_refused(length: int, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_sample(path, 3)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelLoadError, match=r"damaged header .*; fetch the file again"):
        read_gguf_header(path)


def test_an_unknown_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes([0, 0, 0, 3]) + bytes(32))  # big-endian
    with pytest.raises(ModelLoadError, match="is big-endian; convert it"):
        read_gguf_header(path)
