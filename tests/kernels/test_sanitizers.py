"""The C++ kernels, built with AddressSanitizer and UndefinedBehaviorSanitizer, on hostile calls.

The first access out of bounds, and the first undefined operation, ends the process that runs the
tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from streamingllm.kernels import native

FLAGS = (
    "-O1",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined,float-cast-overflow",
    "-fno-sanitize-recover=all",
)
FILES = (
    "test_hostile.py",
    "test_decode.py",
    "test_windowed.py",
    "test_linear.py",
    "test_blocks.py",
)
FEW = "hostile or any_step or take_turns or wraps or views or equals_the_reference or a_product"
RUNTIMES = ("libasan.so", "libstdc++.so.6")  # exceptions are thrown through the second

_FAULTY = """
extern "C" int read_past_the_end(int n) {
  int* x = new int[n]{};
  const int y = x[n];
  delete[] x;
  return y;
}
extern "C" int overflow(int n) { return n + 2147483647; }
"""


def _runtimes(compiler: str) -> list[str]:
    """Where the compiler has the libraries that must be loaded before all others."""
    paths = []
    for name in RUNTIMES:
        command = [compiler, f"-print-file-name={name}"]
        path = Path(subprocess.run(command, capture_output=True, text=True).stdout.strip())
        if not path.is_absolute():
            pytest.skip(f"{compiler} has no {name}")
        paths.append(str(path))
    return paths


@pytest.fixture(scope="module")
def environment(shared_folder: Path) -> dict[str, str]:
    """What a process needs to run on kernels that are built with sanitizers."""
    if not native.load():
        pytest.skip("needs a C++ compiler and a processor with AVX2")
    compiler = native._compiler()
    runtimes = _runtimes(compiler)
    folder = shared_folder / "sanitized"
    folder.mkdir(exist_ok=True)
    library = folder / "kernels.so"
    with FileLock(folder / ".lock"):
        if not library.is_file():
            native._compile(compiler, folder, FLAGS)
    return {
        **os.environ,
        "STREAMINGLLM_TEST_LIBRARY": str(library),
        "LD_PRELOAD": ":".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.parametrize("isa", ["avx512", "avx2"])
def test_hostile_calls_touch_no_memory_but_their_own(isa: str, environment: dict[str, str]) -> None:
    chosen = "hostile" if isa == "avx2" else FEW
    paths = [str(Path(__file__).with_name(name)) for name in FILES]
    options = ["-q", "-x", "--tb=short", "-p", "no:cacheprovider", "--capture=sys", "-k", chosen]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *paths],
        env={**environment, "STREAMINGLLM_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


@pytest.mark.parametrize(
    ("fault", "report"),
    [("read_past_the_end", "heap-buffer-overflow"), ("overflow", "signed integer overflow")],
)
def test_a_fault_ends_the_process(
    fault: str, report: str, environment: dict[str, str], tmp_path: Path
) -> None:
    source, library = tmp_path / "faulty.cpp", tmp_path / "faulty.so"
    source.write_text(_FAULTY)
    command = [native._compiler(), "-shared", "-fPIC", *FLAGS, str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    program = f"import ctypes; ctypes.CDLL({str(library)!r}).{fault}(4)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert report in done.stderr
