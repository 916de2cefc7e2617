"""llama.cpp computes the same from the same file, where its bindings are installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers.activations import GELUTanh

from streamingllm import load_model
from tests.reference.family_gguf import GGUF_CASES, write_family_gguf
from tests.reference.llama_cpp_answer import answer

pytest.importorskip("xllamacpp")
CASES = (
    *("lfm2", "lfm2-adjusted", "lfm2moe", "llama-yarn", "qwen2-yarn", "qwen3", "qwen3moe"),
    *("gemma3", "glm4moe", "deepseek2", "phi2", "command-r", "mistral3", "mistral3-scaled"),
    *("gemma3n-unshared", "gemma4", "gemma4-sparse", "qwen3next", "qwen35", "qwen35moe"),
    *("granitehybrid", "granitehybrid-sparse", "falcon-h1", "falcon-h1-normalised"),
    *(
        "nemotron_h",
        "nemotron_h_moe",
        "nemotron_h_moe-latent",
        "jamba",
        "jamba-dense",
        "kimi-linear",
    ),
)


class TableGelu(nn.Module):
    """Look GELU up in a table of half precision, as llama.cpp does on CPUs."""

    def forward(self, x: Tensor) -> Tensor:
        """Return GELU of [...], zero below -10 and the identity above 10."""
        looked_up = nn.functional.gelu(x.half().float(), approximate="tanh").half().float()
        return torch.where(x.abs() < 10, looked_up, x.clamp(min=0))


@pytest.mark.parametrize("case", CASES)
def test_log_probabilities_are_those_of_llama_cpp(case: str, tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    write_family_gguf(path, case, tied=bool(GGUF_CASES[case].tied), has_tokens=True)
    prompt = (torch.randperm(69, generator=torch.Generator().manual_seed(2))[:24] + 3).tolist()
    tokens, theirs = answer(path, prompt, num_tokens=6, vocab_size=72)
    model = load_model(path).model
    for module in model.modules():
        if isinstance(getattr(module, "act_fn", None), GELUTanh):
            module.act_fn = TableGelu()
    with torch.no_grad():
        logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
    torch.testing.assert_close(logits.log_softmax(-1), torch.tensor(theirs), rtol=0, atol=1e-2)
