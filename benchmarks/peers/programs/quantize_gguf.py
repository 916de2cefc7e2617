"""Write a GGUF file in another format, with llama.cpp's own quantiser.

Run by the Python of the llama.cpp peer: `python -m benchmarks.peers.programs.quantize_gguf
SOURCE TARGET Q4_0`.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def main(source: str, target: str, format_name: str) -> None:
    """Convert `source`; leave through an exception if llama.cpp cannot."""
    llama: Any = importlib.import_module("llama_cpp")
    parameters = llama.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{format_name}")
    parameters.allow_requantize = True
    status = llama.llama_model_quantize(source.encode(), target.encode(), parameters)
    if status != 0:
        raise RuntimeError(f"llama_model_quantize={status}: must be 0")


if __name__ == "__main__":
    main(*sys.argv[1:])
