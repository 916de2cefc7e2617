"""Build the C++ kernels on first use and load them.

Built kernels stay in the cache folder, under a name that depends on sources, compiler, torch and
processor. The command `streamingllm compile` builds them ahead. Function `configure` switches them
off or names another compiler.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock

from streamingllm.cache_folder import cache_folder
from streamingllm.checks import check_choice
from streamingllm.errors import ConfigError, first_line
from streamingllm.kernels import operators  # noqa: F401  (their signatures come before their code)

_TORCH = Path(torch.__file__).parent
_SOURCES = Path(__file__).parent / "cpu"
_COMPILERS = ("c++", "g++", "clang++")
_FLAGS = ("-O3", "-std=c++20", "-fPIC", "-fopenmp", "-fno-math-errno")
_FLAGS_OF = {
    "kernels_avx512.cpp": (
        "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mavx512bf16",
        "-mavx2", "-mfma", "-mf16c",
    ),
    "kernels_avx2.cpp": ("-mavx2", "-mfma", "-mf16c"),
    "pack_blocks.cpp": ("-mavx2",),
}  # fmt: skip
_ISAS = {"avx2": 1, "avx512": 2}  # what `streamingllm_use_isa` takes; see cpu/dispatch.h
_log = logging.getLogger("streamingllm")
_loaded: list[ctypes.CDLL] = []


@dataclass(frozen=True)
class NativeSettings:
    """Say which native kernels a process uses.

    Args:
        enabled: False for the plain PyTorch operators.
        compiler: name or path of a C++ compiler; None for the first of c++, g++ and clang++.
        isa: "avx2" for the kernels of older processors, "avx512", or None for the processor's best.

    Raises:
        ConfigError: `isa` is another word.
    """

    enabled: bool = True
    compiler: str | None = None
    isa: str | None = None

    def __post_init__(self) -> None:
        check_choice("isa", self.isa, (None, *_ISAS))


_settings = NativeSettings()
_is_switched_off = False


def configure(*, enabled: bool = True, compiler: str | None = None, isa: str | None = None) -> None:
    """Choose the native kernels of this process, before anything loads them.

    The arguments are those of `NativeSettings`; one that is left out is set to its default.

    Raises:
        ConfigError: `isa` is unknown, or `load` has been called under other settings.
    """
    global _settings
    settings = NativeSettings(enabled, compiler, isa)
    if settings != _settings and _load.cache_info().currsize:
        raise ConfigError(
            f"{settings} comes too late: kernels are loaded under {_settings}; call "
            "native.configure before the first stream"
        )
    _settings = settings


def current_settings() -> NativeSettings:
    """Return what `configure` has chosen."""
    return _settings


@contextmanager
def switched_off() -> Iterator[None]:
    """Let the body do without native kernels, unless they are loaded already."""
    global _is_switched_off
    before, _is_switched_off = _is_switched_off, not _load.cache_info().currsize
    try:
        yield
    finally:
        _is_switched_off = before


def load() -> bool:
    """Make the C++ kernels known to torch, building them if need be; tell whether there are any.

    Without a compiler, or on a processor they were not written for, the plain PyTorch operators
    stay in charge. That is logged once.
    """
    return not _is_switched_off and _load()


@cache
def _load() -> bool:
    reason = _unsupported_reason()
    if reason is None:
        try:
            path = build()
            library = ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)  # compiled steps look there
            torch.ops.load_library(path)
            _choose_isa(library)
            _loaded.append(library)
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            reason = first_line(error)
    if reason is not None:
        _log.warning("no native kernels, decoding will be slower: %s", reason)
    return reason is None


def loaded() -> ctypes.CDLL | None:
    """Return the library if `load` has been called and there is one."""
    return _loaded[0] if _loaded else None


def build() -> Path:
    """Return the built library, compiled now unless the cache folder has it.

    Raises:
        OSError: no compiler is found, or the folder cannot be written.
        subprocess.CalledProcessError: the compiler refuses.
    """
    compiler = _compiler()
    folder = cache_folder() / "kernels"
    library = folder / f"{_fingerprint(compiler)}.so"
    if library.is_file():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not library.is_file():
            _log.info("building kernels for this processor, once (about 15 seconds)")
            with tempfile.TemporaryDirectory(dir=folder) as name:
                _compile(compiler, Path(name)).replace(library)
    return library


def _unsupported_reason() -> str | None:
    if not _settings.enabled:
        return "they are switched off"
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"{platform.machine()} is not a processor they are written for"
    capability = torch.backends.cpu.get_cpu_capability()
    if capability not in ("AVX2", "AVX512"):
        return f"this processor offers {capability}, not AVX2"
    return None


def _choose_isa(library: ctypes.CDLL) -> None:
    if _settings.isa is None:
        return
    use_isa = getattr(library, "streamingllm_use_isa", None)
    if use_isa is None:
        _log.warning("isa=%r has no effect: these kernels choose by themselves", _settings.isa)
    else:
        use_isa(_ISAS[_settings.isa])


def _compiler() -> str:
    chosen = _settings.compiler
    if chosen is not None:
        if shutil.which(chosen) is None:
            raise FileNotFoundError(f"compiler={chosen!r} is not found; install it or name another")
        return chosen
    for name in _COMPILERS:
        if shutil.which(name):
            return name
    raise FileNotFoundError("no C++ compiler is found; install g++ or clang++, or name one by CXX")


def _fingerprint(compiler: str) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    digest = hashlib.sha256(version)
    for part in (torch.__version__, platform.machine(), str(_FLAGS), str(_FLAGS_OF)):
        digest.update(part.encode())
    for path in sorted(_SOURCES.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:24]


def _compile(compiler: str, folder: Path, flags: tuple[str, ...] = ()) -> Path:
    """Compile all sources at once and link them in `folder`; `flags` come after our own."""

    def to_object(source: Path) -> str:
        target = str(folder / f"{source.stem}.o")
        own = _FLAGS_OF.get(source.name, ())
        command = [compiler, *_FLAGS, *own, *_includes(), *flags]
        _run([*command, "-c", str(source), "-o", target])
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(to_object, sorted(_SOURCES.glob("*.cpp"))))
    library = folder / "kernels.so"
    linked = [
        *objects,
        f"-L{_TORCH / 'lib'}",
        "-ltorch_cpu",
        "-ltorch",
        "-lc10",
        "-o",
        str(library),
    ]
    _run([compiler, "-shared", "-fopenmp", *flags, *linked])
    return library


def _includes() -> tuple[str, ...]:
    # What torch.utils.cpp_extension would say, which brings setuptools and its warnings along.
    headers = _TORCH / "include"
    return f"-I{headers}", f"-I{headers / 'torch' / 'csrc' / 'api' / 'include'}"


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)
