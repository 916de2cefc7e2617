"""Every family's file is read as the model that it was written from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from streamingllm.models.gguf.config import gguf_config
from streamingllm.models.gguf.families import GGUF_FAMILIES
from streamingllm.models.gguf.parts import read_gguf_model
from streamingllm.models.gguf.weights import read_gguf_weights
from tests.reference.family_gguf import GGUF_CASES, architecture_of, write_family_gguf


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("case", GGUF_CASES)
def test_logits_are_those_of_the_model_that_was_written(
    case: str, tied: bool, tmp_path: Path
) -> None:
    if GGUF_CASES[case].tied not in (None, tied):
        pytest.skip("its output layer has only one form")
    written = write_family_gguf(tmp_path / "small.gguf", case, tied=tied)
    header = read_gguf_model(tmp_path / "small.gguf")
    read = read_gguf_weights(header, gguf_config(header), torch.float32).eval()
    assert type(read) is type(written)
    state = read.state_dict()
    assert state.keys() == written.state_dict().keys()
    for name, tensor in written.state_dict().items():
        if GGUF_CASES[case].is_factored:
            continue
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=2.4e-7, msg=name)
    ids = torch.randint(72, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, logits = written(ids).logits, read(ids).logits
    assert expected.std() > 1e-2
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 * float(expected.std()))


def test_every_family_is_tried() -> None:
    assert {architecture_of(case) for case in GGUF_CASES} == set(GGUF_FAMILIES)
