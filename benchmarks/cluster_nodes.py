"""A cluster of Ray with two nodes for engines on one machine, whose processes can be killed."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psutil

from streamingllm.cluster.settings import ClusterSettings
from streamingllm.server.settings import ServerSettings

APP = "streamingllm"
_ENGINE = re.compile(r"ray::ServeReplica:streamingllm:engines")
_RESTORED = re.compile(r"a session of (\d+) tokens was restored in ([0-9.]+) ms")
_MEMORY = 80_000_000
_CPUS_OF_ENGINE = 0.5


class TwoNodes:
    """Run engines on two nodes, with the head of Ray on a third.

    Args:
        settings: of each engine.
    """

    def __init__(self, settings: ServerSettings) -> None:
        import ray
        from ray.cluster_utils import Cluster

        self._settings = settings
        head = {"num_cpus": 0, "object_store_memory": _MEMORY, "include_dashboard": False}
        self._ray = ray
        self._cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        self._nodes = [self._add_node(), self._add_node()]
        ray.init(address=self._cluster.address, log_to_driver=False, logging_level="warning")
        self.folder = Path(ray._private.worker._global_node.get_session_dir_path())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        from ray import serve

        serve.shutdown()
        self._ray.shutdown()
        self._cluster.shutdown()

    def scale(self, num_engines: int) -> float:
        """Let so many engines run; return the seconds until they do."""
        from streamingllm.cluster.running import deploy

        began = time.perf_counter()
        deploy(
            self._settings, ClusterSettings(replicas=num_engines, cpus_per_replica=_CPUS_OF_ENGINE)
        )
        self.wait(num_engines)
        return time.perf_counter() - began

    def wait(self, num_engines: int, max_seconds: float = 600.0) -> float:
        """Wait until so many engines are ready; return the seconds."""
        from ray import serve

        began = time.perf_counter()
        while time.perf_counter() - began < max_seconds:
            states = serve.status().applications[APP].deployments["engines"].replica_states
            counts = {str(getattr(state, "value", state)): count for state, count in states.items()}
            # Ray learns of a death later than the processes show it.
            if counts == {"RUNNING": num_engines} and len(list(_engines())) == num_engines:
                return time.perf_counter() - began
            time.sleep(0.1)
        raise TimeoutError(f"{num_engines} engines are not ready: {states}")

    def kill_engine(self, rng: random.Random) -> None:
        """Kill the process of an engine without a warning."""
        rng.choice(sorted(_engines(), key=lambda process: process.pid)).kill()

    def kill_node(self, rng: random.Random) -> None:
        """Kill all processes of a node without a warning, and start another node."""
        node = self._nodes.pop(rng.randrange(2))
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._add_node())

    def restores(self) -> list[float]:
        """Return the seconds that restores of sessions took, of all engines that ever ran."""
        found = []
        for log in self.folder.glob("logs/*.err"):
            found += [float(ms) / 1000 for _, ms in _RESTORED.findall(log.read_text())]
        return found

    def _add_node(self) -> Any:
        return self._cluster.add_node(num_cpus=1, object_store_memory=_MEMORY)


def _engines() -> Iterator[psutil.Process]:
    """Yield the processes of engines that this process has started."""
    for process in psutil.process_iter(["cmdline"]):
        if _ENGINE.search(" ".join(process.info["cmdline"] or ())):
            yield process
