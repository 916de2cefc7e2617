"""The native scores and choices of text against torch's cross entropy in float64."""

from __future__ import annotations

import pytest
import torch

from streamingllm.kernels import native, operators, reference

pytestmark = pytest.mark.skipif(not native.load(), reason="needs the native kernels")


@pytest.mark.parametrize("vocab", [1, 7, 16, 63, 64, 1000, 49_152])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_the_reference(vocab: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(vocab)
    logits = (torch.randn(9, vocab + 3, generator=generator) * 8).to(dtype)[:, 3:]
    targets = torch.randint(0, vocab, (9,), generator=generator)
    found = operators.token_nll(logits, targets)
    expected = reference.token_nll(logits.double(), targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=4e-6)


@pytest.mark.parametrize("vocab", [1, 7, 16, 63, 64, 1000, 49_152])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_the_first_of_the_greatest_is_likeliest(vocab: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(vocab)
    logits = torch.randn(5, vocab + 3, generator=generator).to(dtype)[:, 3:]
    logits[1] = -torch.inf
    logits[2] = 0.5  # all equal
    logits[3, vocab // 2 :] = 9.0
    found = operators.argmax(logits)
    assert found.tolist() == [int(logits[0].argmax()), 0, 0, vocab // 2, int(logits[4].argmax())]


def test_words_that_cannot_be_have_no_share() -> None:
    logits = torch.tensor([[1.0, -torch.inf, 2.0], [3.0, torch.nan, 0.0]])
    targets = torch.tensor([0, 0])
    found = operators.token_nll(logits, targets)
    torch.testing.assert_close(found, reference.token_nll(logits, targets), equal_nan=True)
    assert operators.token_nll(logits[:1], torch.tensor([1])).isinf().all()


def test_targets_out_of_the_vocabulary_are_refused() -> None:
    with pytest.raises(RuntimeError, match="=5 is not in the vocabulary; it must be from 0 to 4"):
        operators.token_nll(torch.zeros(1, 5), torch.tensor([5]))
