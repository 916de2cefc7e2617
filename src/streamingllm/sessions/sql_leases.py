"""Keep leases and journalled turns in the database of a store."""

from __future__ import annotations

from collections.abc import Collection
from uuid import uuid4

from streamingllm.errors import ConfigError, SessionBusyError, StaleLeaseError
from streamingllm.sessions.session_lease import DEFAULT_LEASE_SECONDS, JournalledTurn
from streamingllm.sessions.sql_store import SqlStore

_TABLES = (
    "CREATE TABLE IF NOT EXISTS leases (session TEXT PRIMARY KEY NOT NULL, holder TEXT NOT NULL, "
    "busy_until DOUBLE PRECISION NOT NULL)",
    "CREATE TABLE IF NOT EXISTS turns (id TEXT PRIMARY KEY NOT NULL, session TEXT NOT NULL, "
    "num_messages BIGINT NOT NULL, num_kept BIGINT NOT NULL, num_new BIGINT NOT NULL, "
    "is_edit BIGINT NOT NULL, created_seconds DOUBLE PRECISION NOT NULL)",
    "CREATE INDEX IF NOT EXISTS turns_by_age ON turns (created_seconds)",
)


class SqlLeases:
    """Keep leases next to the sessions; a `SessionLeases`.

    Times are those of the database, so that clocks of machines may differ.

    Args:
        store: that all holders share.
        holder: name of this process; "" makes one.
        lease_seconds: a turn of a holder that does not renew its leases bars others for so long.
        journal_seconds: a turn can be repeated for so long.

    Raises:
        ConfigError: `lease_seconds` is not greater than 0.
    """

    def __init__(
        self,
        store: SqlStore,
        holder: str = "",
        *,
        lease_seconds: float = DEFAULT_LEASE_SECONDS,
        journal_seconds: float = 86400.0,
    ) -> None:
        if not lease_seconds > 0:
            raise ConfigError(f"lease_seconds={lease_seconds} is not greater than 0; choose 6")
        self.holder = holder or f"holder_{uuid4().hex}"
        self.lease_seconds = lease_seconds
        self._journal_seconds = journal_seconds
        self._store = store
        self._database = store.database
        with self._database.transaction():
            for statement in _TABLES:
                self._database.run(statement)

    def hold(self, session_id: str, dead_holders: Collection[str] = ()) -> int:
        """Take the lease of a session unless it is there; see `SessionLeases`."""
        with self._database.reading():
            epoch = self._store.summary(session_id).epoch
            if self._lease(session_id)[0] == self.holder:
                return epoch
        with self._database.transaction():
            self._database.lock(session_id)
            holder, busy_until = self._lease(session_id)
            if holder == self.holder:
                return self._store.summary(session_id).epoch
            if holder not in dead_holders and busy_until > self._database.seconds():
                raise SessionBusyError(
                    f"session_id={session_id!r} has a turn that runs on {holder}; retry when it "
                    "has ended"
                )
            self._database.run(
                "INSERT INTO leases VALUES (?, ?, 0) ON CONFLICT (session) DO UPDATE SET "
                "holder = excluded.holder, busy_until = 0",
                *(session_id, self.holder),
            )
            return self._store.raise_epoch(session_id)

    def begin_turn(
        self, session_id: str, epoch: int, turn: JournalledTurn | None, *, is_running: bool = True
    ) -> None:
        """Compare the lease and the epoch, and journal a turn; see `SessionLeases`."""
        with self._database.transaction():
            self._database.lock(session_id)
            holder, _ = self._lease(session_id)
            stored = self._store.summary(session_id).epoch
            if holder != self.holder or stored != epoch:
                raise StaleLeaseError(
                    f"epoch={epoch} of session {session_id!r} is not {stored}, the stored one, or "
                    f"{holder or 'nobody'} has its lease; read it again"
                )
            now = self._database.seconds()
            if is_running:
                until = "UPDATE leases SET busy_until = ? WHERE session = ?"
                self._database.run(until, now + self.lease_seconds, session_id)
            if turn is not None:
                self._journal(turn, now)

    def end_turn(self, session_id: str) -> None:
        """Let others take the lease."""
        free = "UPDATE leases SET busy_until = 0 WHERE session = ? AND holder = ?"
        with self._database.transaction():
            self._database.run(free, session_id, self.holder)

    def find_turn(self, turn_id: str) -> JournalledTurn | None:
        """Return where a turn began; None if it is not journalled."""
        find = (
            "SELECT id, session, num_messages, num_kept, num_new, is_edit FROM turns WHERE id = ?"
        )
        with self._database.reading():
            found = self._database.run(find, turn_id)
        for *facts, is_edit in found:
            session_id, num_messages, num_kept, num_new = facts[1:]
            return JournalledTurn(
                turn_id, session_id, num_messages, num_kept, num_new, bool(is_edit)
            )
        return None

    def renew(self) -> None:
        """Bar others for the turns that run here, as long again."""
        renew = "UPDATE leases SET busy_until = ? WHERE holder = ? AND busy_until > 0"
        with self._database.transaction():
            self._database.run(renew, self._database.seconds() + self.lease_seconds, self.holder)

    def _lease(self, session_id: str) -> tuple[str, float]:
        find = "SELECT holder, busy_until FROM leases WHERE session = ?"
        for holder, busy_until in self._database.run(find, session_id):
            return holder, busy_until
        return "", 0.0

    def _journal(self, turn: JournalledTurn, now: float) -> None:
        """Keep where the first attempt began; a later one begins there as well."""
        facts = (turn.num_messages, turn.num_kept, turn.num_new, int(turn.is_edit))
        self._database.run(
            "INSERT INTO turns VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
            *(turn.turn_id, turn.session_id, *facts, now),
        )
        self._database.run(
            "DELETE FROM turns WHERE created_seconds < ?", now - self._journal_seconds
        )
