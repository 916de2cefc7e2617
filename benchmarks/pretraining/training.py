"""Training of a tiny decoder on Python sources."""

from __future__ import annotations

import math
import sysconfig
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.pretraining.decoder import SINK_TOKEN, Arm, Decoder
from benchmarks.progress import shown

_HELD_OUT = "argparse.py"  # never trained on


def training_bytes(limit: int = 4_000_000) -> Tensor:
    """Return sources of the standard library, and then of what is installed, uint8, [bytes]."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    found = bytearray()
    for path in chain(sorted(folder.glob("*.py")), folder.glob("*/**/*.py")):
        if len(found) >= limit:
            break
        if path.name != _HELD_OUT:
            found += path.read_bytes()
    return torch.frombuffer(found[:limit], dtype=torch.uint8)


def held_out_ids(num_tokens: int) -> Tensor:
    """Return the beginning of a source that training does not see, int64, [num_tokens]."""
    return held_out_texts(1, num_tokens)[0]


def held_out_texts(num_texts: int, num_tokens: int) -> Tensor:
    """Return parts of that source, evenly apart, int64, [num_texts, num_tokens]."""
    text = (Path(sysconfig.get_paths()["stdlib"]) / _HELD_OUT).read_bytes()
    stride = (len(text) - num_tokens) // num_texts
    return torch.tensor(
        [list(text[i * stride : i * stride + num_tokens]) for i in range(num_texts)]
    )


def train(
    arm: Arm,
    *,
    steps: int,
    batch_size: int = 16,
    seed: int = 0,
    learning_rate: float = 3e-3,
    device: str = "cpu",
    num_bytes: int = 4_000_000,
) -> Decoder:
    """Train a decoder; return it ready to read.

    Args:
        arm: the choices.
        steps: of the optimiser.
        batch_size: samples of a step.
        seed: of weights and samples.
        learning_rate: at its highest; it rises for a tenth of the steps and falls as a cosine.
        device: that trains; weights and samples are those of the CPU's generator.
        num_bytes: most that is read of the sources.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        decoder = Decoder(arm).to(device)
    text, length = training_bytes(num_bytes).to(device), arm.trained_length
    optimiser = torch.optim.AdamW(decoder.parameters(), weight_decay=0.1)
    for step in shown(range(steps), f"{arm.encoding}, {arm.sink}, seed {seed}"):
        warm = min(1.0, (step + 1) / (steps / 10))
        rate = learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        first = torch.randint(len(text) - length - 1, (batch_size,), generator=generator)
        ids = text[(first[:, None] + torch.arange(length + 1)).to(device)].long()
        optimiser.zero_grad()
        with torch.enable_grad():
            sample_loss(decoder, ids).backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
    return decoder.eval()


def sample_loss(decoder: Decoder, ids: Tensor) -> Tensor:
    """Return the mean loss of samples, [batch, seq + 1]; a sink token comes before each."""
    inputs, targets = ids[:, :-1], ids[:, 1:]
    if decoder.arm.sink == "token":
        inputs = with_sink_token(inputs)
        targets = torch.cat((ids[:, :1], targets), dim=1)
    logits = decoder(inputs)
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def with_sink_token(ids: Tensor) -> Tensor:
    """Return ids [..., seq] after a sink token."""
    return functional.pad(ids, (1, 0), value=SINK_TOKEN)
