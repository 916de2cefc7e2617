"""Measure what one PostgreSQL and one disk take, for the simulation's store.

Run: `python -m benchmarks.scale.store_speed --json benchmarks/results/scale-store.json`

A transaction is that of a turn: it compares the epoch of a session, sets its number of turns, and
inserts ids and text of 260 tokens. pgbench runs it from some connections, with fsync on. A snapshot
of the default model is written with fsync. It is read after the page cache has dropped it.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.scale.calibration import calibration
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record

BINARIES = Path("/usr/lib/postgresql/15/bin")
_SESSIONS, _TURN_TOKENS = 10_000, 260
_SCHEMA = f"""
create table sessions (id int primary key, epoch int not null, turns int not null);
create table turns (session int, number int, ids bytea, text text, primary key (session, number));
insert into sessions select k, 1, 0 from generate_series(1, {_SESSIONS}) k;
"""
_TRANSACTION = f"""
\\set id random(1, {_SESSIONS})
begin;
update sessions set turns = turns + 1 where id = :id and epoch = 1;
insert into turns select id, turns, decode(repeat('00', {4 * _TURN_TOKENS}), 'hex'),
    repeat('word', {_TURN_TOKENS}) from sessions where id = :id;
commit;
"""


@contextmanager
def postgresql(binaries: Path) -> Iterator[Path]:
    """Run PostgreSQL in a folder of its own, without a port; yield the folder of its socket."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        as_user: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            as_user = ["setpriv", "--reuid", "nobody", "--clear-groups"]
            folder.chmod(0o777)
        data, log = folder / "data", folder / "log"
        make = [str(binaries / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres"]
        subprocess.run([*as_user, *make], check=True, capture_output=True)
        options = f"-k {folder} -c listen_addresses=''"
        control = [*as_user, str(binaries / "pg_ctl"), "-D", str(data), "-w", "-l", str(log)]
        subprocess.run([*control, "-o", options, "start"], check=True, stdout=subprocess.DEVNULL)
        try:
            yield folder
        finally:
            stop = [*control, "-m", "immediate", "stop"]
            subprocess.run(stop, check=True, stdout=subprocess.DEVNULL)


def commits(binaries: Path, connections: int, seconds: int) -> dict[str, Any]:
    """Return transactions per second and their latency."""
    with postgresql(binaries) as socket:
        client = ["-h", str(socket), "-U", "postgres"]
        schema = [str(binaries / "psql"), *client, "-q", "-v", "ON_ERROR_STOP=1", "-c", _SCHEMA]
        subprocess.run(schema, check=True)
        script = socket / "turn.sql"
        script.write_text(_TRANSACTION)
        run = [str(binaries / "pgbench"), *client, "-n", "-f", str(script)]
        run += ["-c", str(connections), "-j", "1", "-T", str(seconds), "postgres"]
        done = subprocess.run(run, check=True, capture_output=True, text=True)
    (rate,) = re.findall(r"tps = ([\d.]+)", done.stdout)
    (latency,) = re.findall(r"latency average = ([\d.]+) ms", done.stdout)
    return {
        "connections": connections,
        "seconds": seconds,
        "commits_per_second": float(rate),
        "latency_milliseconds": float(latency),
    }


def disk(nbytes: int, times: int) -> dict[str, Any]:
    """Return the bytes per second of whole snapshots, written and read."""
    content = os.urandom(nbytes)
    written = read = 0.0
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        for number in range(times):
            path = Path(folder) / str(number)
            start = time.perf_counter()
            with path.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            written += time.perf_counter() - start
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            start = time.perf_counter()
            path.read_bytes()
            read += time.perf_counter() - start
    total = nbytes * times
    return {
        "snapshot_bytes": nbytes,
        "snapshots": times,
        "written_bytes_per_second": total / written,
        "read_bytes_per_second": total / read,
    }


def main(
    json: Annotated[str, typer.Option(help="File of the results, - for standard output.")] = "-",
    binaries: Annotated[Path, typer.Option(help="Folder of initdb and pgbench.")] = BINARIES,
    connections: Annotated[int, typer.Option(help="Of pgbench.")] = 16,
    seconds: Annotated[int, typer.Option(help="Of pgbench.")] = 15,
) -> None:
    """Measure one PostgreSQL and one disk of this machine."""
    load = os.getloadavg()[0]
    payload = {
        "postgresql": commits(binaries, connections, seconds),
        "disk": disk(round(calibration().state_bytes.value), 20),
        "load_average_before": load,
    }
    write_json(json, {**payload, **run_record()})


if __name__ == "__main__":
    typer.run(main)
