"""The newest snapshot of each session: a row, and its content in a file or in rows."""

from __future__ import annotations

from functools import partial

from streamingllm.errors import InputError
from streamingllm.sessions.database import Database
from streamingllm.sessions.session_rows import digest_of
from streamingllm.sessions.snapshot_files import SnapshotFiles
from streamingllm.sessions.store import Snapshot, SnapshotRecord

_PART_BYTES = 4 << 20  # a row holds less than a gigabyte


class SnapshotRows:
    """Put, get and delete snapshots within a transaction.

    Args:
        database: of the sessions.
        files: where contents go; None keeps them in the database.
    """

    def __init__(self, database: Database, files: SnapshotFiles | None) -> None:
        self._database = database
        self._files = files
        if files is not None:
            named = database.run("SELECT file FROM snapshots WHERE file IS NOT NULL")
            files.sweep([name for (name,) in named])

    def write_file(self, session_id: str, content: bytes) -> str | None:
        """Write a file, outside any transaction, and return its name; None without files."""
        return None if self._files is None else self._files.write(session_id, content)

    def delete_file(self, name: str | None) -> None:
        """Delete a file that no row names."""
        if self._files is not None and name is not None:
            self._files.delete(name)

    def put(self, session_id: str, snapshot: Snapshot, file: str | None) -> None:
        """Replace the snapshot of a session."""
        self.delete(session_id)
        self._database.run(
            "INSERT INTO snapshots VALUES (?, ?, ?, ?, ?)",
            session_id,
            snapshot.num_tokens,
            _digest(snapshot),
            len(snapshot.content),
            file,
        )
        content = snapshot.content if file is None else b""
        for number, first in enumerate(range(0, len(content), _PART_BYTES)):
            part = content[first : first + _PART_BYTES]
            self._database.run("INSERT INTO parts VALUES (?, ?, ?)", session_id, number, part)

    def get(self, session_id: str) -> Snapshot | None:
        """Return the snapshot of a session.

        Raises:
            InputError: its checksum does not fit.
            SnapshotError: its file cannot be read.
        """
        find = "SELECT num_tokens, digest, file FROM snapshots WHERE session = ?"
        for num_tokens, digest, file in self._database.run(find, session_id):
            snapshot = Snapshot(num_tokens, self._content(session_id, file))
            if _digest(snapshot) != digest:
                raise InputError("the checksum of its snapshot does not fit")
            return snapshot
        return None

    def delete(self, session_id: str) -> None:
        """Delete the snapshot of a session, if there is one, and its file once that is durable."""
        gone = "DELETE FROM snapshots WHERE session = ? RETURNING file"
        for (file,) in self._database.run(gone, session_id):
            self._database.after_commit(partial(self.delete_file, file))
        self._database.run("DELETE FROM parts WHERE session = ?", session_id)

    def delete_beyond(self, session_id: str, num_tokens: int) -> None:
        """Delete the snapshot of a session if it has seen more tokens."""
        find = "SELECT 1 FROM snapshots WHERE session = ? AND num_tokens > ?"
        if self._database.run(find, session_id, num_tokens):
            self.delete(session_id)

    def record(self, session_id: str) -> SnapshotRecord | None:
        """Describe the snapshot of a session; None if there is none."""
        find = "SELECT session, num_tokens, num_bytes FROM snapshots WHERE session = ?"
        for row in self._database.run(find, session_id):
            return SnapshotRecord(*row)
        return None

    def records(self) -> list[SnapshotRecord]:
        """Return what snapshots there are, those of sessions that changed last at the end."""
        rows = self._database.run(
            "SELECT session, snapshots.num_tokens, num_bytes FROM snapshots "
            "JOIN sessions ON id = session ORDER BY updated_seconds"
        )
        return [SnapshotRecord(*row) for row in rows]

    def _content(self, session_id: str, file: str | None) -> bytes:
        if self._files is not None and file is not None:
            return self._files.read(file)
        find = "SELECT content FROM parts WHERE session = ? ORDER BY number"
        return b"".join(part for (part,) in self._database.run(find, session_id))


def _digest(snapshot: Snapshot) -> bytes:
    return digest_of(str(snapshot.num_tokens).encode(), snapshot.content)
