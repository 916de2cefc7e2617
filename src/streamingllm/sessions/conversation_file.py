"""Save a conversation to one file: a database that grows by what is new."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamingllm.errors import (
    SessionConflictError,
    SessionNotFoundError,
    SnapshotError,
    StreamingLLMError,
)
from streamingllm.files import fsync_folder
from streamingllm.sessions.sqlite_schema import is_database
from streamingllm.sessions.sqlite_store import SqliteStore
from streamingllm.sessions.store import Snapshot, StoredSession, TurnCommit
from streamingllm.sessions.token_log import TokenLog
from streamingllm.sessions.transcript import Transcript


@dataclass(frozen=True)
class SavedState:
    """Describe the part of a conversation that a file holds.

    Args:
        path: of the file.
        epoch: of the session in it.
        num_messages: first messages that are there and are still those of the conversation.
        num_tokens: first token ids of which the same is true.
    """

    path: Path
    epoch: int
    num_messages: int
    num_tokens: int

    def after_rewind(self, num_messages: int, num_tokens: int) -> SavedState:
        """Return what is left of it when a conversation has gone back to these counts."""
        return SavedState(
            self.path,
            self.epoch,
            min(self.num_messages, num_messages),
            min(self.num_tokens, num_tokens),
        )


def save_session(
    path: Path,
    session_id: str,
    metadata: Mapping[str, Any],
    transcript: Transcript,
    token_log: TokenLog,
    snapshot: Snapshot,
    saved: SavedState | None,
) -> SavedState:
    """Write what a file does not hold yet, and the newest snapshot, whole or not at all.

    A file of another conversation is replaced.

    Args:
        path: of the file.
        session_id: of the conversation.
        metadata: JSON-able facts for a new file.
        transcript: all messages.
        token_log: all token ids.
        snapshot: of the stream.
        saved: what was saved last, if anything was.

    Raises:
        SnapshotError: the file cannot be written, is no saved conversation, or was changed by
            another writer; it is as it was before.
    """
    path = path.resolve()
    if path.exists() and not is_database(path):
        raise SnapshotError(f"{path}: is no saved conversation; save under another name")
    if saved is not None and saved.path == path and path.exists():
        try:
            with SqliteStore(path, mode="write", journal="delete", is_searchable=False) as store:
                return _commit(store, session_id, transcript, token_log, snapshot, saved)
        except SessionConflictError as error:
            raise SnapshotError(
                f"{path}: was saved by another writer since; save under another name"
            ) from error
        except SessionNotFoundError:
            pass  # another conversation has taken the name
    with (
        _replacing(path) as partial,
        SqliteStore(partial, journal="delete", is_searchable=False) as store,
    ):
        epoch = store.create(session_id, metadata)
        nothing = SavedState(path, epoch, 0, 0)
        return _commit(store, session_id, transcript, token_log, snapshot, nothing)


def load_session(path: Path) -> tuple[StoredSession, Snapshot, SavedState]:
    """Return what `save_session` wrote.

    Raises:
        SnapshotError: the file is missing, damaged, or no saved conversation.
    """
    with SqliteStore(path, mode="read") as store:
        summaries = store.list(limit=2)
        if len(summaries) != 1:
            raise SnapshotError(
                f"{path}: holds {len(summaries)} sessions; name a file that /save wrote"
            )
        (summary,) = summaries
        session = store.get(summary.id)
        snapshot = store.get_snapshot(summary.id)
    if snapshot is None:
        raise SnapshotError(f"{path}: has no snapshot; name a file that /save wrote")
    saved = SavedState(path.resolve(), summary.epoch, summary.num_messages, summary.num_tokens)
    return session, snapshot, saved


@contextmanager
def temporary_file(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """Yield the path of a file in a new folder, which goes at the end.

    Args:
        path: which the file stands for; messages name it instead.
        folder: where the new folder is made; None for the system's own.

    Raises:
        SnapshotError: the file cannot be made, or the body fails with it.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=folder) as made:
            temporary = Path(made) / path.name
            try:
                yield temporary
            except StreamingLLMError as error:
                raise SnapshotError(str(error).replace(str(temporary), str(path))) from error
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be written ({error.strerror or error})") from error


def _commit(
    store: SqliteStore,
    session_id: str,
    transcript: Transcript,
    token_log: TokenLog,
    snapshot: Snapshot,
    saved: SavedState,
) -> SavedState:
    turn = TurnCommit(
        num_messages_before=saved.num_messages,
        num_tokens_before=saved.num_tokens,
        messages=tuple(transcript[i] for i in range(saved.num_messages, len(transcript))),
        token_ids=token_log[saved.num_tokens :],
    )
    with store.transaction():
        epoch = store.commit_turn(session_id, saved.epoch, turn)
        store.put_snapshot(session_id, epoch, snapshot)
    return SavedState(saved.path, epoch, len(transcript), len(token_log))


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Put the file that the body writes into the place of another one, durably."""
    with temporary_file(path, path.parent) as partial:
        yield partial
        os.replace(partial, path)
        fsync_folder(path.parent)
