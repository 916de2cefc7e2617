"""A step is compiled once, kept, and computes what the uncompiled one does."""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm import Stream, StreamConfig
from streamingllm.errors import InputError
from streamingllm.graphs import aot_cache, decode_step
from tests.reference.streams import decode_step_of, sink_strategy
from tests.reference.tiny_lm import tiny_lm

# Views of joined weights are saved with an exported step.
pytestmark = pytest.mark.filterwarnings("ignore:No complete tensor found")

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
CONFIG = StreamConfig(num_sink_tokens=3, window_size=9, max_rewind_tokens=6, chunk_size=16)


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 257, shape, generator=torch.Generator().manual_seed(seed))


def model() -> PreTrainedModel:
    return tiny_lm().model


def stream_of(ids: Tensor, mask: Tensor | None = None, config: StreamConfig = CONFIG) -> Stream:
    stream = Stream(model(), config)
    stream.feed(ids, attention_mask=mask)
    return stream


def compiled(ids: Tensor, mask: Tensor | None = None, config: StreamConfig = CONFIG) -> Stream:
    stream = stream_of(ids, mask, config)
    assert stream.compile(wait=True)
    assert stream.is_compiled
    return stream


def steps_of(stream: Stream, ids: Tensor) -> Tensor:
    """Feed ids [..., seq] one by one."""
    return torch.cat([stream.feed(part) for part in ids.split(1, dim=-1)], dim=-2)


def test_a_compiled_step_is_kept_and_used_again(
    step_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path] = []

    class Seen(aot_cache.Compilation):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            assert self._folder is not None
            folders.append(Path(self._folder.name))

    monkeypatch.setattr(decode_step, "Compilation", Seen)
    compiled(tokens(20))
    assert len(list(step_folder.glob("*.pt2"))) in (1, 2)
    assert not [folder for folder in folders if folder.exists()]
    monkeypatch.delattr(decode_step, "Compilation")
    ids, more = tokens(20), tokens(15, seed=1)
    again = compiled(ids)
    torch.testing.assert_close(steps_of(again, more), stream_of(ids).feed(more), **CLOSE)


def test_one_artefact_serves_other_windows_and_weights(
    step_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(tokens(20))
    monkeypatch.delattr(decode_step, "Compilation")
    ids, more = tokens(40), tokens(15, seed=1)
    for config in (
        StreamConfig(0, 5),
        StreamConfig(1, 30),
        StreamConfig(2, 8, sink_positions=(4, 9)),
    ):
        stepping, chunked = compiled(ids, config=config), stream_of(ids, config=config)
        torch.testing.assert_close(steps_of(stepping, more), chunked.feed(more), **CLOSE)
    other = tiny_lm.__wrapped__().model
    for parameter in other.parameters():
        parameter.data = parameter * 1.01
    stepping, chunked = (Stream(other, CONFIG) for _ in range(2))
    for each in (stepping, chunked):
        each.feed(ids)
    assert stepping.compile()
    assert stepping.is_compiled
    torch.testing.assert_close(steps_of(stepping, more), chunked.feed(more), **CLOSE)


@pytest.mark.parametrize("num_tokens", [3, 8, 12, 40])
def test_compiled_steps_equal_chunks(step_folder: Path, num_tokens: int) -> None:
    ids, more = tokens(num_tokens), tokens(25, seed=1)
    stream = compiled(ids)
    torch.testing.assert_close(steps_of(stream, more), stream_of(ids).feed(more), **CLOSE)
    uncompiled = steps_of(stream_of(ids), more)
    torch.testing.assert_close(steps_of(compiled(ids), more), uncompiled, **CLOSE)
    assert stream.num_seen_tokens == num_tokens + 25


def test_streams_of_different_lengths_step_together(step_folder: Path) -> None:
    ids, more, mask = tokens(3, 40), tokens(3, 20, seed=1), torch.ones(3, 40)
    mask[0, :17], mask[1, :35] = 0, 0
    together = steps_of(compiled(ids, mask), more)
    torch.testing.assert_close(together, stream_of(ids, mask).feed(more), **CLOSE)
    for row, first in enumerate((17, 35, 0)):
        alone = stream_of(ids[row, first:]).feed(more[row])
        torch.testing.assert_close(together[row], alone, **CLOSE)


@pytest.mark.parametrize("batch_size", [2, 5])
def test_one_artefact_serves_any_batch(
    step_folder: Path, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(tokens(3, 12))
    monkeypatch.delattr(decode_step, "Compilation")
    ids, more = tokens(batch_size, 30), tokens(batch_size, 12, seed=1)
    torch.testing.assert_close(steps_of(compiled(ids), more), stream_of(ids).feed(more), **CLOSE)


def test_compiled_steps_can_be_taken_back(step_folder: Path) -> None:
    ids, more = tokens(30), tokens(12, seed=1)
    stream = compiled(ids)
    steps_of(stream, tokens(6, seed=2))
    stream.rewind(6)
    torch.testing.assert_close(stream.next_logits, stream_of(ids).next_logits, **CLOSE)
    torch.testing.assert_close(steps_of(stream, more), stream_of(ids).feed(more), **CLOSE)


def test_a_fork_shares_the_step_and_nothing_else(step_folder: Path) -> None:
    ids, more = tokens(30), tokens(12, seed=1)
    stream = compiled(ids)
    fork = stream.fork()
    assert fork.is_compiled
    steps_of(fork, tokens(12, seed=2))
    torch.testing.assert_close(steps_of(stream, more), stream_of(ids).feed(more), **CLOSE)


def test_a_snapshot_of_compiled_steps_is_restored(step_folder: Path, tmp_path: Path) -> None:
    stream, more = compiled(tokens(30)), tokens(12, seed=1)
    steps_of(stream, tokens(5, seed=2))
    stream.snapshot(tmp_path / "stream")
    restored = Stream.restore(model(), tmp_path / "stream")
    assert torch.equal(restored.next_logits, stream.next_logits)
    assert not restored.is_compiled
    assert restored.compile()
    assert torch.equal(steps_of(restored, more), steps_of(stream, more))


def test_logits_are_not_overwritten_by_later_steps(step_folder: Path) -> None:
    stream = compiled(tokens(30))
    first = stream.feed(tokens(1, seed=1))
    kept = first.clone()
    steps_of(stream, tokens(4, seed=2))
    assert torch.equal(first, kept)


def test_generating_takes_the_compiled_step(step_folder: Path) -> None:
    ids = tokens(2, 30)
    expected = list(stream_of(ids).generate_batch(20))
    assert list(compiled(ids).generate_batch(20)) == expected


def test_what_was_never_compiled_is_not_compiled_when_only_kept_steps_are_wanted(
    empty_folder: Path,
) -> None:
    stream = stream_of(tokens(20))
    assert not stream.compile(cached_only=True, wait=True)
    assert not empty_folder.exists()


@pytest.mark.parametrize("waits", [True, False])
def test_a_compiler_that_fails_leaves_it_uncompiled(
    empty_folder: Path,
    waits: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    ids, more = tokens(20), tokens(5, seed=1)
    stream = stream_of(ids)
    with caplog.at_level(logging.WARNING, "streamingllm"):
        assert not stream.compile(wait=waits)
        if not waits:  # steps notice by themselves
            strategy = sink_strategy(stream)
            assert strategy._decode_step is not None
            for compilation in strategy._decode_step._compilations.values():
                compilation.wait()
        torch.testing.assert_close(steps_of(stream, more), stream_of(ids).feed(more), **CLOSE)
    (record,) = caplog.records
    assert record.getMessage() == "the decode step stays uncompiled: exit code 1"
    assert not stream.is_compiled
    assert list(empty_folder.iterdir()) == []


def test_a_model_that_cannot_be_exported_stays_uncompiled(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("its experts are chosen on the host\nand more")

    monkeypatch.setattr(torch.export, "export", fail)
    ids, more = tokens(20), tokens(5, seed=1)
    stream = stream_of(ids)
    with caplog.at_level(logging.WARNING, "streamingllm"):
        assert not stream.compile(wait=True)
        assert not stream.compile()  # nor is it tried again
    message = "the decode step stays uncompiled: its experts are chosen on the host"
    assert [record.getMessage() for record in caplog.records] == [message]
    torch.testing.assert_close(steps_of(stream, more), stream_of(ids).feed(more), **CLOSE)


def test_other_threads_are_kept_out_while_a_step_is_exported(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = stream_of(tokens(20))
    lock: Any = sink_strategy(stream).cache.attachment.exclusive()
    entered: list[bool] = []

    def export(*args: object, **kwargs: object) -> None:
        thread = threading.Thread(target=lambda: entered.append(lock.acquire(blocking=False)))
        thread.start()
        thread.join()
        raise RuntimeError("not today")

    monkeypatch.setattr(torch.export, "export", export)
    assert not stream.compile()
    assert entered == [False]
    assert lock.acquire(blocking=False)
    lock.release()


def test_a_damaged_artefact_is_not_used(
    empty_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ids, more = tokens(20), tokens(3, seed=1)
    stream = stream_of(ids)
    strategy = sink_strategy(stream)
    decoding = decode_step_of(stream)
    inputs = decoding._example(False, strategy.cache.ring_buffers)
    path = aot_cache.package_path(aot_cache.fingerprint(decoding._module, inputs, decoding._config))
    assert path.parent == empty_folder
    empty_folder.mkdir(parents=True)
    path.write_bytes(b"PK\x03\x04 not much of an archive")
    with caplog.at_level(logging.WARNING, "streamingllm"):
        assert not stream.compile(cached_only=True)
    (record,) = caplog.records
    assert record.getMessage().startswith("a kept step cannot be read: ")
    assert not path.exists()
    assert not stream.is_compiled
    torch.testing.assert_close(steps_of(stream, more), stream_of(ids).feed(more), **CLOSE)


def test_an_empty_stream_has_nothing_to_compile() -> None:
    with pytest.raises(InputError, match="the stream is empty"):
        Stream(model(), CONFIG).compile()
    dense = Stream(model(), StreamConfig(strategy="dense"))
    dense.feed(tokens(3))
    assert not dense.compile(wait=True)
