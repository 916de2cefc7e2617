"""Damaged headers are read or refused in one line; `benchmarks/fuzz_gguf.py` tries many more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.reference.family_gguf import write_family_gguf
from tests.reference.gguf_mutations import mutated, outcome
from tests.reference.gguf_sample import write_sample

NUM_MUTANTS = 1000


@pytest.mark.parametrize("name", ["sample", "gemma3", "gemma4", "kimi-linear"])
def test_a_damaged_header_is_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    whole, mutant = tmp_path / "whole.gguf", tmp_path / "mutant.gguf"
    if name == "sample":
        write_sample(whole, num_tokens=1100)
    else:
        write_family_gguf(whole, name)
    content, generator = whole.read_bytes(), random.Random(0)
    outcomes = set()
    for _ in range(NUM_MUTANTS):
        mutant.write_bytes(mutated(content, 3000, generator))
        outcomes.add(outcome(mutant))
    assert "refused" in outcomes
    assert (name != "sample") == ("read" in outcomes)
