"""Files of families with shared keys or recurrent states stream in their own bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from streamingllm import Stream, StreamConfig
from streamingllm.models.checkpoint import Checkpoint
from streamingllm.models.progress import ignore_progress
from tests.reference.family_gguf import GGUF_CASES, write_family_gguf
from tests.reference.quantised_gguf import write_quantised

CASES = (
    *("gemma3n", "gemma4", "gemma4-sparse", "qwen3next", "qwen35", "qwen35moe"),
    *("granitehybrid", "granitehybrid-sparse", "falcon-h1", "nemotron_h", "nemotron_h_moe"),
    *("jamba", "kimi-linear"),
)
TYPES = ("Q4_0", "Q8_0", "Q5_0", "Q4_1", "Q5_1", "IQ4_NL", "MXFP4")  # blocks of 32 columns
CONFIG = StreamConfig(num_sink_tokens=2, window_size=16)
NUM_TOKENS = 60


def relative_error(found: Tensor, expected: Tensor) -> Tensor:
    return (found - expected).norm(dim=-1) / expected.norm(dim=-1)


@pytest.mark.parametrize("case", CASES)
def test_blocks_stream_as_their_numbers_do_however_the_text_is_split(
    case: str, tmp_path: Path
) -> None:
    write_family_gguf(tmp_path / "plain.gguf", case, tied=bool(GGUF_CASES[case].tied))
    write_quantised(tmp_path / "plain.gguf", tmp_path / "blocks.gguf", TYPES)
    checkpoint = Checkpoint(tmp_path, "blocks.gguf", source="test")
    native = checkpoint.read_native(torch.float32, ignore_progress)
    plain = checkpoint.read_model(torch.float32).eval()
    ids = torch.randint(3, 72, (NUM_TOKENS,), generator=torch.Generator().manual_seed(3))
    expected = Stream(plain, CONFIG).feed(ids)
    whole = Stream(native, CONFIG).feed(ids)
    stream = Stream(native, CONFIG)
    split = torch.cat([stream.feed(part) for part in (ids[:25], *ids[25:].split(1))])
    for found in (whole, split):
        error = relative_error(found, expected)
        # Activations have 16 bits; a random model makes much of that for some tokens.
        assert float(error.median()) < 1e-3
        assert float(error.max()) < 0.03
    assert stream.num_cached_tokens == CONFIG.cache_size
