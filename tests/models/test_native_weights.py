"""GGUF files in their own bits compute what their dequantised weights compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from streamingllm import Stream, StreamConfig, load_model
from streamingllm.errors import ConfigError
from streamingllm.kernels.blocks import FORMATS
from streamingllm.models.block_layers import (
    BlockEmbedding,
    BlockLinear,
    JoinedLinear,
    ReorderedBlockLinear,
)
from streamingllm.models.checkpoint import Checkpoint
from streamingllm.models.progress import ignore_progress
from streamingllm.models.weight_types import num_parameters, weight_types
from tests.models.tiny_package import write_gguf
from tests.reference.family_gguf import GGUF_CASES, write_family_gguf
from tests.reference.quantised_gguf import write_quantised
from tests.reference.rounding import assert_same_logits

SMALL = ("Q4_0", "Q8_0", "Q5_0", "Q4_1", "Q5_1", "IQ4_NL", "MXFP4")  # blocks of 32 columns
CONFIG = StreamConfig(num_sink_tokens=2, window_size=6)


def read_both(path: Path) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Return the model with weights in their own bits, and the one with dequantised weights."""
    checkpoint = Checkpoint(path.parent, path.name, source="test")
    native = checkpoint.read_native(torch.float32, ignore_progress)
    return native, checkpoint.read_model(torch.float32).eval()


@pytest.mark.parametrize("case", GGUF_CASES)
def test_every_family_computes_with_blocks(tmp_path: Path, case: str) -> None:
    write_family_gguf(tmp_path / "plain.gguf", case)
    write_quantised(tmp_path / "plain.gguf", tmp_path / "blocks.gguf", SMALL)
    native, plain = read_both(tmp_path / "blocks.gguf")
    assert any(isinstance(module, BlockLinear) for module in native.modules())
    assert isinstance(native.get_input_embeddings(), BlockEmbedding)
    assert not any(tensor.is_meta for tensor in native.state_dict().values())
    for length in (3, 40):  # few and many rows have kernels of their own
        ids = torch.arange(length)[None] % 60 + 3
        with torch.no_grad():
            assert_same_logits(native(ids).logits, plain(ids).logits)


@pytest.mark.parametrize("kind", [format.name for format in FORMATS.values()])
def test_every_type_streams(tmp_path: Path, kind: str) -> None:
    write_family_gguf(tmp_path / "plain.gguf", "llama-bias", tied=True, width=256)
    write_quantised(tmp_path / "plain.gguf", tmp_path / "blocks.gguf", (kind,))
    native, plain = read_both(tmp_path / "blocks.gguf")
    assert weight_types(native)[kind] > 0.99
    ids = torch.arange(30) % 60 + 3
    expected = Stream(plain, CONFIG).feed(ids)
    stream = Stream(native, CONFIG)
    assert_same_logits(torch.cat([stream.feed(part) for part in ids.split([9, 1, 20])]), expected)


def test_a_stream_unpacks_no_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them would take longer to unpack than the file takes to load."""
    write_family_gguf(tmp_path / "plain.gguf", "llama-bias")
    write_quantised(tmp_path / "plain.gguf", tmp_path / "blocks.gguf", SMALL)
    native, _ = read_both(tmp_path / "blocks.gguf")
    unpacked: list[str] = []
    for kind in (BlockLinear, BlockEmbedding):
        whole = property(lambda self: unpacked.append(type(self).__name__))
        monkeypatch.setattr(kind, "weight", whole)
    stream = Stream(native, CONFIG)
    for part in (torch.arange(9), torch.arange(1), torch.arange(1)):
        stream.feed(part + 3)
    assert not unpacked


@pytest.mark.parametrize(
    ("case", "name", "kind"),
    [
        ("qwen35", "model.layers.0.linear_attn.out_proj", ReorderedBlockLinear),
        ("granitehybrid", "model.layers.0.shared_mlp.input_linear", JoinedLinear),
    ],
)
def test_a_layer_keeps_blocks_that_the_file_has_in_another_order_or_in_parts(
    case: str,
    name: str,
    kind: type[ReorderedBlockLinear | JoinedLinear],
    tmp_path: Path,
) -> None:
    write_family_gguf(tmp_path / "plain.gguf", case)
    write_quantised(tmp_path / "plain.gguf", tmp_path / "blocks.gguf", ("Q4_0", "Q8_0"))
    native, plain = read_both(tmp_path / "blocks.gguf")
    found, expected = native.get_submodule(name), plain.get_submodule(name)
    assert isinstance(found, kind)
    assert isinstance(expected, torch.nn.Linear)
    torch.testing.assert_close(found.weight, expected.weight.detach())
    x = torch.randn(5, found.in_features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(found(x), expected(x), rtol=1e-3, atol=1e-3)


def test_a_tied_head_shares_the_blocks_of_the_embedding(tmp_path: Path) -> None:
    write_family_gguf(tmp_path / "plain.gguf", "gemma3", tied=True)
    write_quantised(tmp_path / "plain.gguf", tmp_path / "blocks.gguf", ("Q8_0",))
    native, _ = read_both(tmp_path / "blocks.gguf")
    embedding, head = native.get_input_embeddings(), native.get_output_embeddings()
    assert isinstance(embedding, BlockEmbedding)
    assert isinstance(head, BlockLinear)
    assert head.blocks.data_ptr() == embedding.blocks.data_ptr()
    assert float(embedding.scale) == 8.0  # the root of the hidden size


def test_a_quantised_file_is_read_as_it_is_by_default(tmp_path: Path) -> None:
    write_gguf(tmp_path / "blocks.gguf", kind="Q8_0")
    write_gguf(tmp_path / "plain.gguf", kind="F32")
    lm = load_model(tmp_path / "blocks.gguf", device="cpu")
    assert lm.quantization == "native"
    assert lm.model.dtype is torch.float32
    assert lm.weights["Q8_0"] > 0.5
    assert sum(lm.weights.values()) == pytest.approx(1)
    assert load_model(tmp_path / "blocks.gguf", quantize="none").quantization == "none"
    assert load_model(tmp_path / "plain.gguf").quantization == "none"


def test_native_is_refused_for_files_without_blocks(tmp_path: Path) -> None:
    write_gguf(tmp_path / "plain.gguf", kind="F32")
    with pytest.raises(ConfigError, match="quantize='native' needs a GGUF file or safetensors"):
        load_model(tmp_path / "plain.gguf", quantize="native")


def test_a_lossy_request_says_by_how_much(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_gguf(tmp_path / "blocks.gguf", kind="Q8_0")
    rounded = load_model(tmp_path / "blocks.gguf", quantize="int4", cache_dir=tmp_path)
    assert rounded.rounding_error == pytest.approx(0.06, abs=0.03)
    assert "quantize=int4 changes the weights of" in caplog.text
    caplog.clear()
    again = load_model(tmp_path / "blocks.gguf", quantize="int4", cache_dir=tmp_path)
    assert again.rounding_error == pytest.approx(rounded.rounding_error)
    assert "quantize=int4 changes the weights of" in caplog.text
    caplog.clear()
    assert (
        load_model(tmp_path / "blocks.gguf", quantize="int8", cache_dir=tmp_path).rounding_error
        == 0
    )
    assert not caplog.text


def test_packed_weights_are_counted_by_their_bits(tmp_path: Path) -> None:
    write_gguf(tmp_path / "blocks.gguf", kind="Q8_0")
    counts = [
        num_parameters(
            load_model(tmp_path / "blocks.gguf", quantize=quantize, cache_dir=tmp_path).model
        )
        for quantize in ("none", "native", "int8")
    ]
    assert len(set(counts)) == 1
    int8 = load_model(tmp_path / "blocks.gguf", quantize="int8", cache_dir=tmp_path)
    assert set(int8.weights) == {"bfloat16", "int8"}
    assert sum(int8.weights.values()) == pytest.approx(1)
