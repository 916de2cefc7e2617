"""Finished samples and the one under way, on disk, so that a run can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamingllm.errors import ConfigError, SnapshotError, UnsupportedFeatureError
from streamingllm.evaluation.tasks.base import Job, Part

if TYPE_CHECKING:
    from streamingllm.models import LanguageModel
    from streamingllm.stream import Stream

_KEY = "evaluation"


class Records:
    """Finished samples in a file of JSON lines; without a file, in memory only.

    The sample under way is a snapshot of its stream next to the file, if its cache can be saved.

    Args:
        path: of the file; None keeps nothing.
        fingerprint: what the scores depend on. A file with another one is refused.

    Raises:
        ConfigError: the file belongs to another run, or cannot be read or written.
    """

    def __init__(self, path: Path | None, fingerprint: Mapping[str, Any]) -> None:
        self.path = path
        self._samples: dict[tuple[str, int], list[Part]] = {}
        self._fingerprint = json.loads(json.dumps(fingerprint))
        if path is None:
            return
        try:
            self._load(path)
        except OSError as error:
            raise ConfigError(
                f"resume={str(path)!r} cannot be used ({error.strerror}); choose another file"
            ) from error

    def get(self, label: str, sample: int) -> list[Part] | None:
        """Return the parts of a finished sample, None if it is not finished."""
        return self._samples.get((label, sample))

    def put(self, label: str, sample: int, parts: Sequence[Part]) -> None:
        """Keep a finished sample and drop the snapshot of its stream."""
        self._samples[label, sample] = list(parts)
        if self.path is None:
            return
        line = {"cache": label, "sample": sample, "parts": [part.to_json() for part in parts]}
        _append(self.path, line)
        self._snapshot_path.unlink(missing_ok=True)

    def save_running(self, job: Job) -> None:
        """Keep the state of a sample under way, where its cache allows it."""
        if self.path is None or not job.has_stream:
            return
        stream = job.stream
        stream.metadata[_KEY] = {
            "fingerprint": self._fingerprint,
            "cache": job.cache.label,
            "sample": job.sample,
            "parts": [part.to_json() for part in job.parts],
        }
        try:
            stream.snapshot(self._snapshot_path)
        except UnsupportedFeatureError:
            return  # dense and the like: the sample begins again

    def restore_running(
        self, lm: LanguageModel, label: str, sample: int
    ) -> tuple[list[Part], Stream] | None:
        """Return parts and stream of a sample that an earlier run was stopped in."""
        from streamingllm.stream import Stream

        if self.path is None or not self._snapshot_path.exists():
            return None
        try:
            stream = Stream.restore(lm.model, self._snapshot_path)
        except SnapshotError:
            return None  # of another model, or damaged
        saved = stream.metadata.pop(_KEY, {})
        wanted = {"fingerprint": self._fingerprint, "cache": label, "sample": sample}
        if {name: saved.get(name) for name in wanted} != wanted:
            return None
        return [Part.from_json(part) for part in saved["parts"]], stream

    @property
    def _snapshot_path(self) -> Path:
        assert self.path is not None
        return self.path.with_name(self.path.name + ".running.safetensors")

    def _load(self, path: Path) -> None:
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        if len(whole) < len(lines):  # a write that was cut short
            path.write_bytes(b"".join(whole))
        if not whole:
            _append(path, {"fingerprint": self._fingerprint})
            return
        try:
            header, *rows = [json.loads(line) for line in whole]
            found = header["fingerprint"]
            for row in rows:
                parts = [Part.from_json(part) for part in row["parts"]]
                self._samples[row["cache"], row["sample"]] = parts
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"resume={str(path)!r} is no file of this command; choose another file"
            ) from error
        if found != self._fingerprint:
            names = sorted(_differences(found, self._fingerprint))
            raise ConfigError(
                f"resume={str(path)!r} belongs to a run with other settings "
                f"({', '.join(names)}); choose another file"
            )


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("ab") as file:
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _differences(found: Any, wanted: Any, prefix: str = "") -> set[str]:
    """Return the names of fields that differ."""
    if not isinstance(found, dict) or not isinstance(wanted, dict):
        return set() if found == wanted else {prefix or "all"}
    names = found.keys() | wanted.keys()
    return set().union(
        *(_differences(found.get(n), wanted.get(n), f"{prefix}.{n}".strip(".")) for n in names)
    )
