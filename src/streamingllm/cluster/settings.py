"""Settings of a cluster, apart from those of each server in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamingllm.errors import ConfigError

if TYPE_CHECKING:
    from streamingllm.server.settings import ServerSettings

_LEAST = {
    "replicas": 1,
    "gateways": 1,
    "cpus_per_replica": 0.0,
    "gpus_per_replica": 0.0,
    "lease_seconds": 0.1,
    "failover_seconds": 1.0,
    "resident_bytes": 1,
    "object_store_bytes": 80_000_000,
}


@dataclass(frozen=True)
class ClusterSettings:
    """Decide how many engines serve, and how a turn survives the death of one.

    Args:
        replicas: engines at the start, and the least number of them.
        max_replicas: the greatest number; None keeps `replicas`.
        gateways: processes that take requests.
        cpus_per_replica: processors that an engine reserves.
        gpus_per_replica: GPUs that an engine reserves.
        resident_bytes: of caches that one engine is to hold; more engines are started beyond it.
        lease_seconds: a turn of an engine that does not answer bars others for so long.
        failover_seconds: a turn is repeated elsewhere for so long.
        ray_address: of a cluster that runs; "" starts one on this machine.
        object_store_bytes: of the object store of a cluster that is started here.

    Raises:
        ConfigError: a value is out of range.
    """

    replicas: int = 2
    max_replicas: int | None = None
    gateways: int = 1
    cpus_per_replica: float = 1.0
    gpus_per_replica: float = 0.0
    resident_bytes: int = 4 << 30
    lease_seconds: float = 6.0
    failover_seconds: float = 60.0
    ray_address: str = ""
    object_store_bytes: int = 100_000_000

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(
                    f"{name}={getattr(self, name)} is less than {least}; choose a greater"
                )
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ConfigError(
                f"max_replicas={self.max_replicas} is less than replicas={self.replicas}; choose "
                "a greater"
            )


def check_for_cluster(settings: ServerSettings) -> None:
    """Refuse settings that several engines on one store cannot honour.

    Raises:
        ConfigError: a memory is asked for, whose index one process keeps, or any free port.
    """
    if settings.port == 0:
        raise ConfigError("port=0 is not supported in a cluster; choose a port")
    if settings.memory:
        raise ConfigError("memory=True is not supported in a cluster; leave it out")


def cluster_settings(fields: Mapping[str, Any]) -> ClusterSettings:
    """Return settings from options, whose bytes may be written as 500MB or 2GB.

    Raises:
        ConfigError: a value is out of range.
    """
    from pydantic import ByteSize, TypeAdapter, ValidationError

    values = dict(fields)
    if "resident_bytes" in values:
        try:
            values["resident_bytes"] = int(
                TypeAdapter(ByteSize).validate_python(values["resident_bytes"])
            )
        except ValidationError as error:
            raise ConfigError(
                f"resident_bytes={values['resident_bytes']!r} is no size; write 500MB or 2GB"
            ) from error
    return ClusterSettings(**values)
