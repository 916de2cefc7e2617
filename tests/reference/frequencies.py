"""Frequencies and slopes of position encodings, from the papers, as float32 models hold them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.reference.family import HEAD_DIM


def frequencies(dim: int = HEAD_DIM, theta: float = 10_000.0) -> Tensor:
    """RoPE (Su et al., arXiv 2104.09864): theta^(-2i/dim)."""
    exponents = torch.arange(0, dim, 2, dtype=torch.float32) / dim
    return (1.0 / theta**exponents).double()


def dynamic_ntk(length: int, trained: int, factor: float) -> Tensor:
    """Dynamic NTK: theta grows with the text once it is longer than what was trained."""
    stretch = factor * max(length, trained) / trained - (factor - 1)
    return frequencies(theta=10_000.0 * stretch ** (HEAD_DIM / (HEAD_DIM - 2)))


def yarn(theta: float, trained: int, factor: float, truncate: bool = True) -> Tensor:
    """YaRN (Peng et al., arXiv 2309.00071, section 3.2), with 32 and 1 rotations as bounds."""

    def pair_that_turns(rotations: float) -> float:
        wavelength = trained / (rotations * 2 * math.pi)
        return HEAD_DIM * math.log(wavelength) / (2 * math.log(theta))

    low, high = pair_that_turns(32), pair_that_turns(1)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, HEAD_DIM - 1)
    ramp = ((torch.arange(HEAD_DIM // 2) - low) / (high - low)).clamp(0, 1).double()
    plain = frequencies(theta=theta)
    return (plain / factor * ramp + plain * (1 - ramp)).float().double()


def llama3(trained: int, factor: float, low: float, high: float) -> Tensor:
    """Llama 3.1: long waves are stretched, short ones kept, those between mixed."""
    plain = frequencies(theta=500_000.0)
    turns = trained * plain / (2 * math.pi)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return (plain * (smooth + (1 - smooth) / factor)).float().double()


def longrope(length: int) -> Tensor:
    """LongRoPE (Ding et al., arXiv 2402.13753): one factor per pair, from one of two lists."""
    factors = LONG_FACTORS if length > LONGROPE_TRAINED else SHORT_FACTORS
    return (frequencies().float() / torch.tensor(factors)).double()


LONGROPE_TRAINED = 20
SHORT_FACTORS = [1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5]
LONG_FACTORS = [1.0, 1.2, 1.6, 2.0, 2.5, 3.0, 4.0, 5.0]


def alibi_slopes(num_heads: int, ratio: float = 8.0) -> Tensor:
    """ALiBi (Press et al., arXiv 2108.12409): a geometric sequence, for a power of two of heads."""
    return 2.0 ** (-ratio / num_heads * torch.arange(1, num_heads + 1, dtype=torch.float64))
