"""A PostgreSQL server of one's own, in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)
_PLAIN_USER = "nobody"  # PostgreSQL refuses to run as root


def _binary(name: str) -> str | None:
    return shutil.which(name) or next(
        (str(folder / name) for folder in reversed(_BINARIES) if (folder / name).exists()), None
    )


@contextmanager
def postgres_server() -> Iterator[str]:
    """Run a server that listens on a socket file only, and yield the address of its database.

    The test is skipped where PostgreSQL or psycopg is not installed.
    """
    pytest.importorskip("psycopg")
    initdb, control = _binary("initdb"), _binary("pg_ctl")
    if initdb is None or control is None:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    user = pwd.getpwnam(_PLAIN_USER) if os.getuid() == 0 else None
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)

    def run(*command: str) -> None:
        subprocess.run(
            command,
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            user=None if user is None else user.pw_uid,
            group=None if user is None else user.pw_gid,
            extra_groups=None if user is None else [],
        )

    data, options = str(folder / "data"), f"-k {folder} -c listen_addresses=''"
    try:
        run(initdb, "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync")
        run(control, "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            run(control, "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fresh_schema(url: str, name: str) -> str:
    """Make an empty schema, and return the address under which its tables are found."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}".encode())
    return f"{url}&options=-csearch_path%3D{name}"
