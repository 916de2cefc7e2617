"""The C++ kernels under AddressSanitizer and UndefinedBehaviorSanitizer, with hostile calls."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamingllm.kernels import native

FLAGS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")


def runtime_of(compiler: str) -> str | None:
    """Return the libraries that a program must load before all others; None if there are none.

    The sanitizer follows exceptions of C++, so that library comes along.
    """
    paths = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    return " ".join(paths) if all(Path(path).is_absolute() for path in paths) else None


def test_no_call_reaches_memory_that_is_not_its_own(tmp_path: Path) -> None:
    if not native.load():
        pytest.skip("needs a C++ compiler and a processor with AVX2")
    compiler = native._compiler()
    runtime = runtime_of(compiler)
    if runtime is None:
        pytest.skip(f"{compiler} has no AddressSanitizer")
    library = native._compile(compiler, tmp_path, FLAGS)
    environment = {
        **os.environ,
        "LD_PRELOAD": runtime,
        # torch and Python keep memory until the end, and torch throws across libraries.
        "ASAN_OPTIONS": "detect_leaks=0:detect_odr_violation=0",
        "OMP_NUM_THREADS": "2",
    }
    run = subprocess.run(
        [sys.executable, "-m", "tests.kernels.hostile_calls", str(library)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stdout + run.stderr[:4000]
    assert "rotary_table hostile" in run.stdout
