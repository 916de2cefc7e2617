"""A snapshot is exact, and what cannot be one is refused with nothing half written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from streamingllm import Stream, StreamConfig
from streamingllm.errors import SnapshotError
from tests.reference.tiny_llama import random_ids, tiny_llama

CONFIG = StreamConfig(num_sink_tokens=3, window_size=7, max_rewind_tokens=6)


def saved(
    tmp_path: Path, num_tokens: int = 40, config: StreamConfig = CONFIG
) -> tuple[Stream, Path]:
    stream = Stream(tiny_llama(), config)
    if num_tokens:
        stream.feed(random_ids(num_tokens))
    path = tmp_path / "stream.safetensors"
    stream.snapshot(path)
    return stream, path


@pytest.mark.parametrize("num_tokens", [0, 1, 8, 40])
@pytest.mark.parametrize("sinks", [None, (0, 4, 9)])
def test_a_restored_stream_is_exact_to_the_bit(
    tmp_path: Path, num_tokens: int, sinks: tuple[int, ...] | None
) -> None:
    config = StreamConfig(3, 7, sink_positions=sinks, max_rewind_tokens=6)
    stream, path = saved(tmp_path, num_tokens, config)
    restored = Stream.restore(tiny_llama(), path)
    assert restored.config == config
    assert restored.num_seen_tokens == num_tokens
    if num_tokens:
        assert torch.equal(restored.next_logits, stream.next_logits)
    more = random_ids(30, seed=1)
    assert torch.equal(restored.feed(more), stream.feed(more))


def test_a_restored_stream_can_be_rewound_and_generates_the_same(tmp_path: Path) -> None:
    stream, path = saved(tmp_path)
    restored = Stream.restore(tiny_llama(), path)
    for each in (stream, restored):
        each.rewind(5)
    assert torch.equal(restored.next_logits, stream.next_logits)
    assert list(restored.generate(20)) == list(stream.generate(20))


def test_streams_of_different_lengths_are_restored(tmp_path: Path) -> None:
    ids, mask = random_ids(2, 30), torch.ones(2, 30)
    mask[0, :11] = 0
    stream = Stream(tiny_llama(), CONFIG)
    stream.feed(ids, attention_mask=mask)
    stream.snapshot(tmp_path / "s")
    restored = Stream.restore(tiny_llama(), tmp_path / "s")
    assert restored.num_seen_tokens_per_stream.tolist() == [19, 30]
    assert torch.equal(restored.feed(ids), stream.feed(ids))


def test_another_model_is_refused(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    for other in (tiny_llama(seed=1), tiny_llama(torch.float32)):
        with pytest.raises(SnapshotError, match="another model"):
            Stream.restore(other, path)


@pytest.mark.parametrize("position", [3, 100, 4000, -1])
def test_a_flipped_byte_is_noticed(tmp_path: Path, position: int) -> None:
    _, path = saved(tmp_path)
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(bytes(content))
    with pytest.raises(SnapshotError, match=r"damaged|cannot be read|is not a snapshot"):
        Stream.restore(tiny_llama(), path)


def test_a_truncated_a_foreign_and_a_missing_file(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SnapshotError, match="cannot be read"):
        Stream.restore(tiny_llama(), path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(SnapshotError, match="is not a snapshot"):
        Stream.restore(tiny_llama(), path)
    path.write_text("hello")
    with pytest.raises(SnapshotError, match="cannot be read"):
        Stream.restore(tiny_llama(), path)
    with pytest.raises(SnapshotError, match="cannot be read"):
        Stream.restore(tiny_llama(), tmp_path / "nowhere")


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    save_file(
        {"x": torch.zeros(1)},
        tmp_path / "s",
        metadata={"format": "streamingllm-stream", "version": "99"},
    )
    with pytest.raises(SnapshotError, match="version 99"):
        Stream.restore(tiny_llama(), tmp_path / "s")


def test_a_full_disk_leaves_the_old_snapshot(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    before = path.read_bytes()
    program = f"""
        import resource, signal
        from pathlib import Path
        from streamingllm import Stream, StreamConfig
        from streamingllm.errors import SnapshotError
        from tests.reference.tiny_llama import random_ids, tiny_llama

        stream = Stream(tiny_llama(), StreamConfig(3, 7))
        stream.feed(random_ids(50, seed=5))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            stream.snapshot({str(path)!r})
        except SnapshotError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert "cannot be written" in done.stdout
    assert done.stdout.count("\n") == 1
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    stream, _ = saved(tmp_path)
    with pytest.raises(SnapshotError, match="cannot be written"):
        stream.snapshot(tmp_path / "missing" / "s")


def test_the_folder_is_on_the_disk_after_the_file_is_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def replaced(source: Path, target: Path) -> None:
        events.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    saved(tmp_path)
    assert events == ["file", "replace", "folder"]


@pytest.mark.parametrize("eviction", ["token", "turn"])
def test_turns_are_restored(tmp_path: Path, eviction: str) -> None:
    config = StreamConfig(3, 7, max_rewind_tokens=6, eviction=eviction)
    stream = Stream(tiny_llama(), config)
    for part in random_ids(40).split(5):
        stream.begin_turn()
        stream.feed(part)
    path = tmp_path / "stream.safetensors"
    stream.snapshot(path)
    restored = Stream.restore(tiny_llama(), path)
    assert restored.first_visible_position == stream.first_visible_position
    more = random_ids(12, seed=1)
    assert torch.equal(restored.feed(more), stream.feed(more))
