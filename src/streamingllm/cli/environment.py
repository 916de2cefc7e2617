"""The environment variables of the command line; the library reads none."""

from __future__ import annotations

import os
import shutil

NATIVE = "STREAMINGLLM_NATIVE"  # 0 for the plain PyTorch operators
ISA = "STREAMINGLLM_ISA"  # avx2 or avx512
COMPILER = "CXX"


def configure_kernels() -> None:
    """Choose the native kernels as the environment says; to be called before they are loaded.

    Raises:
        ConfigError: a variable has a value that is not allowed.
    """
    compiler = os.environ.get(COMPILER)
    if not compiler or shutil.which(compiler) is None:
        compiler = None  # CXX is set for others as well, sometimes to a command with arguments
    enabled, isa = os.environ.get(NATIVE) != "0", os.environ.get(ISA) or None
    if compiler is not None or isa is not None or not enabled:
        from streamingllm.kernels import native

        native.configure(enabled=enabled, compiler=compiler, isa=isa)
