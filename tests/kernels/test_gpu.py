"""Who serves CUDA tensors."""

from __future__ import annotations

import logging

import pytest
import torch

from streamingllm.kernels import gpu, reference


def test_without_a_gpu_nothing_is_loaded_and_nothing_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.WARNING):
        assert not gpu.load.__wrapped__()
    assert not caplog.records


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels work here")
def test_kernels_that_do_not_work_stay_out_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with caplog.at_level(logging.WARNING, logger="streamingllm"):
        assert not gpu.load.__wrapped__()
    assert "no Triton kernels, decoding will be slower" in caplog.text
    assert len(caplog.text.splitlines()) == 1


def test_doubles_go_to_the_truth() -> None:
    served_by = gpu._choose(lambda q: torch.tensor(1), lambda q: torch.tensor(2))
    assert served_by(torch.zeros(1)) == 1
    assert served_by(torch.zeros(1, dtype=torch.float64)) == 2


def test_products_with_weights_are_the_truth() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(rows, 32, generator=generator) for rows in (3, 5))
    found = gpu._linear(x[:, None], weight)
    torch.testing.assert_close(found, reference.linear(x[:, None], weight))
