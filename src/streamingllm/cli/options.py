"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streamingllm.cache_folder import using_cache_folder
from streamingllm.config import CACHE_QUANTIZATIONS, WEIGHT_QUANTIZATIONS

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="A catalog name, a hub id, a folder or a .gguf file.",
    ),
]
DtypeOption = Annotated[
    str,
    typer.Option(help="auto, float64, float32, bfloat16 or float16."),
]
DeviceOption = Annotated[
    str,
    typer.Option(help="auto, cpu, cuda, cuda:0 or mps."),
]


def _use_cache_dir(context: typer.Context, folder: Path | None) -> Path | None:
    if folder is not None:
        context.with_resource(using_cache_folder(folder))
    return folder


CacheDirOption = Annotated[
    Path | None,
    typer.Option(
        envvar="STREAMINGLLM_CACHE",
        metavar="FOLDER",
        callback=_use_cache_dir,
        help="Where packaged models, kernels and compiled steps are kept; by default the user's "
        "cache folder.",
    ),
]
QuantizeOption = Annotated[
    str,
    typer.Option(
        "--quantize",
        help=f"Weights: one of {', '.join(WEIGHT_QUANTIZATIONS)}. Auto takes a quantised GGUF file "
        "in its own bits (native), and all else as stored (none).",
    ),
]
QuantizeCacheOption = Annotated[
    str,
    typer.Option(
        "--quantize-cache",
        help=f"The window: one of {', '.join(CACHE_QUANTIZATIONS)}; sinks stay exact.",
    ),
]
CompileOption = Annotated[
    bool,
    typer.Option(
        "--compile/--no-compile", help="Decode by a compiled step, which is kept for later."
    ),
]
TextOption = Annotated[
    str,
    typer.Option(
        "--text",
        metavar="TEXT",
        help="A UTF-8 file, `pydoc` (Python's own reference), or `hub:DATASET`.",
    ),
]
SinksOption = Annotated[
    int, typer.Option("--num-sink-tokens", help="First tokens kept for ever (`sinks`).")
]
WindowOption = Annotated[
    int,
    typer.Option("--window-size", help="Most recent tokens that a token sees, itself included."),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", help="Processor threads; torch's own choice if not given."),
]
