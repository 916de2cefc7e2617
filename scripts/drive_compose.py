"""Start what deploy/compose.yaml starts, without containers, and drive it once.

Run: `python scripts/drive_compose.py --prometheus $(which prometheus) --json drive.json`

Commands and variables are those of the file. Addresses of other services become local ports. The
gateway stands in front of the server, because vLLM is another installation. Grafana is not started:
the queries of its dashboard are asked of Prometheus. Programs that are missing are named.
"""

from __future__ import annotations

import contextlib
import json as json_format
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer
import yaml

from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record

DEPLOY = Path(__file__).parents[1] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
POSTGRESQL = Path("/usr/lib/postgresql/15/bin")
_KEY, _METRICS_KEY = "drive-key", "drive-metrics-key"
_SCRAPES = 3


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program; afterwards send SIGTERM and wait for its end."""
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(120)


def until_ready(url: str, process: subprocess.Popen[bytes], seconds: float) -> float:
    """Ask an address until it answers 200, and return how long that took.

    Raises:
        RuntimeError: the program has ended, or the time is over.
    """
    start = time.monotonic()
    while time.monotonic() < start + seconds:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(url, timeout=5).status_code == 200:
                return time.monotonic() - start
        time.sleep(0.3)
    raise RuntimeError(f"{url} was not ready within {seconds} s")


def ours(name: str, port: int, folder: Path, changes: list[str]) -> tuple[list[str], Any]:
    """Return the command and the environment of one of our services, on a local port."""
    program = [sys.executable, "-m", "streamingllm", "serve" if name == "server" else name]
    given = COMPOSE["services"][name]
    command = [*program, *given["command"], "--host", "127.0.0.1", "--port", str(port), *changes]
    keys = {"STREAMINGLLM_API_KEY": _KEY, "STREAMINGLLM_METRICS_KEY": _METRICS_KEY}
    environment = {**os.environ, **given.get("environment", {})}
    environment |= {name: keys[name] for name in given.get("environment", {}) if name in keys}
    return [*command, "--data-dir", str(folder / name)], environment


def talk(url: str, session: str) -> dict[str, Any]:
    """Have two turns of one session."""
    counts: list[dict[str, Any]] = []
    for text in ("My name is Ada.", "What is my name?"):
        answer = httpx2.post(
            f"{url}/v1/chat/completions",
            json={"messages": [{"role": "user", "content": text}], "max_tokens": 16},
            headers={"authorization": f"Bearer {_KEY}", "x-session-id": session},
            timeout=300,
        )
        answer.raise_for_status()
        counts.append(answer.json()["usage"])
    return {"turns": len(counts), "prompt_tokens": [c["prompt_tokens"] for c in counts]}


def prometheus_files(folder: Path, server: int) -> Path:
    """Write Prometheus' files with local addresses, and return the configuration."""
    shutil.copytree(DEPLOY / "prometheus", folder / "prometheus")
    (folder / "metrics-key").write_text(_METRICS_KEY)
    config = folder / "prometheus" / "prometheus.yml"
    text = config.read_text().replace("server:8080", f"127.0.0.1:{server}")
    text = text.replace("/run/secrets/metrics-key", str(folder / "metrics-key"))
    config.write_text(text.replace("15s", "2s"))
    return config


def ask_dashboard(url: str) -> dict[str, Any]:
    """Ask Prometheus each query of the dashboard, and return which had no answer."""
    board = json_format.loads((DEPLOY / "grafana/dashboards/streamingllm.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    empty = []
    for query in queries:
        plain = query.replace("$__rate_interval", "1m").replace("$instance", ".*")
        answer = httpx2.get(f"{url}/api/v1/query", params={"query": plain}).json()
        if answer["status"] != "success":
            raise RuntimeError(f"{plain}: {answer}")
        if not answer["data"]["result"]:
            empty.append(query)
    return {"queries": len(queries), "without_a_sample": empty}


def drive_prometheus(program: str, folder: Path, server: int) -> dict[str, Any]:
    """Start Prometheus in front of a server, wait for scrapes, and ask it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        program, f"--config.file={prometheus_files(folder, server)}",
        f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with running(command, stderr=subprocess.DEVNULL) as process:
        ready = until_ready(f"{url}/-/ready", process, 60)
        for _ in range(_SCRAPES):
            talk(f"http://127.0.0.1:{server}", "scraped")
            time.sleep(3)
        up = httpx2.get(f"{url}/api/v1/query", params={"query": "up"}).json()["data"]["result"]
        rules = httpx2.get(f"{url}/api/v1/rules").json()["data"]["groups"]
        health = {rule["health"] for group in rules for rule in group["rules"]}
        return {
            "ready_seconds": ready,
            "up": {found["metric"]["job"]: int(found["value"][1]) for found in up},
            "alert_rules": sum(len(group["rules"]) for group in rules),
            "health_of_rules": sorted(health),
            "dashboard": ask_dashboard(url),
        }


def drive_postgresql(folder: Path) -> dict[str, Any]:
    """Start PostgreSQL as its image does, and run the check of its health."""
    from benchmarks.scale.store_speed import postgresql

    check = COMPOSE["services"]["postgres"]["healthcheck"]["test"][1:]
    with postgresql(POSTGRESQL) as socket_folder:
        done = subprocess.run(
            [POSTGRESQL / check[0], *check[1:], "-h", socket_folder], capture_output=True, text=True
        )
    return {"health_check": done.returncode, "says": done.stdout.partition(" - ")[2].strip()}


def main(
    json: Annotated[str, typer.Option(help="File of the results, - for standard output.")] = "-",
    prometheus: Annotated[str, typer.Option(help="The program.")] = "prometheus",
    compile: Annotated[bool, typer.Option(help="Compile steps, as the server does.")] = False,
) -> None:
    """Start and drive the services of the compose file that this machine has programs for."""
    found: dict[str, Any] = {"compiled": compile, "not_started": ["grafana", "vllm", "cluster"]}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder, port = Path(name), free_port()
        command, environment = ours("server", port, folder, [] if compile else ["--no-compile"])
        server = stack.enter_context(running(command, env=environment))
        url = f"http://127.0.0.1:{port}"
        found["server"] = {"ready_seconds": until_ready(f"{url}/ready", server, 600)}
        found["server"] |= talk(url, "driven")
        behind = free_port()
        command, environment = ours("gateway", behind, folder, ["--upstream", url])
        gateway = stack.enter_context(running(command, env=environment))
        through = f"http://127.0.0.1:{behind}"
        found["gateway"] = {"ready_seconds": until_ready(f"{through}/ready", gateway, 300)}
        found["gateway"] |= talk(through, "driven-through")
        if shutil.which(prometheus):
            found["prometheus"] = drive_prometheus(prometheus, folder, port)
        else:
            found["not_started"].append("prometheus")
        if (POSTGRESQL / "initdb").exists():
            found["postgres"] = drive_postgresql(folder)
        else:
            found["not_started"].append("postgres")
        server.terminate()
        found["server"]["exit_after_sigterm"] = server.wait(120)
    write_json(json, {**found, **run_record()})


if __name__ == "__main__":
    typer.run(main)
