"""Kernels are built on first use; where they cannot be, the log says so and all still works."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from streamingllm.errors import ConfigError
from streamingllm.kernels import native

_LOAD = """
import json, logging, sys
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
from streamingllm.kernels import native
native.configure(**json.loads(sys.argv[1]))
print("loaded", native.load(), native.load())
"""
_DECODE = (
    _LOAD
    + """
import torch
from streamingllm import Stream, StreamConfig
from tests.reference.tiny_lm import tiny_lm
torch.set_num_threads(1)
ids = torch.arange(40) % 257
stepping, chunked = (Stream(tiny_lm().model, StreamConfig(3, 9)) for _ in range(2))
steps = torch.cat([stepping.feed(token) for token in ids.split(1)])
torch.testing.assert_close(steps, chunked.feed(ids), rtol=1e-4, atol=1e-4)
print("compiled", stepping.compile(wait=True))
"""
)


def run(program: str, folder: Path, settings: dict[str, object], path: str = "") -> list[str]:
    """Run a program under settings, its cache folder being `folder`; return the lines it prints."""
    paths = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder), "PYTHONPATH": _python_path()}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), json.dumps(settings)],
        env=os.environ | paths | ({"PATH": path} if path else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def _python_path() -> str:
    return os.pathsep.join([str(Path(__file__).parents[2]), *(p for p in sys.path if p)])


def fake_compiler(folder: Path, script: str) -> Path:
    path = folder / "fake-compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def warnings_of(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("WARNING")]


def test_without_a_compiler_a_stream_decodes_all_the_same(tmp_path: Path) -> None:
    lines = run(_DECODE, tmp_path, {}, path=str(tmp_path))
    assert warnings_of(lines) == [
        "WARNING no native kernels, decoding will be slower: "
        "no C++ compiler is found; install g++ or clang++, or name one by CXX"
    ]
    assert "loaded False False" in lines
    assert lines[-1] == "compiled False"


@pytest.mark.parametrize(
    ("script", "settings", "message"),
    [
        ("exit 0", {"enabled": False}, "they are switched off"),
        ('[ "$1" = --version ] || { echo "no such flag" >&2; exit 1; }', {}, "no such flag"),
        ("exit 3", {}, "CalledProcessError"),
    ],
    ids=["switched off", "a compiler that fails", "a compiler that does nothing"],
)
def test_the_reason_is_said_once(
    script: str, settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    compiler = fake_compiler(tmp_path, script)
    lines = run(_LOAD, tmp_path, {"compiler": str(compiler), **settings})
    (warning,) = warnings_of(lines)
    assert warning == f"WARNING no native kernels, decoding will be slower: {message}"
    assert lines[-1] == "loaded False False"
    assert not list(tmp_path.rglob("*.so"))


def test_a_compiler_that_is_not_there_is_named(tmp_path: Path) -> None:
    (warning,) = warnings_of(run(_LOAD, tmp_path, {"compiler": "no-such-compiler"}))
    assert warning.endswith("compiler='no-such-compiler' is not found; install it or name another")


def test_an_unknown_instruction_set_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="isa='sse2' is unknown; choose one of None, avx2, avx512"
    ):
        native.configure(isa="sse2")


@pytest.mark.usefixtures("native_kernels")
def test_settings_cannot_change_once_kernels_are_loaded() -> None:
    before = native.current_settings()
    native.configure(**dataclasses.asdict(before))
    with pytest.raises(ConfigError, match="comes too late: kernels are loaded under"):
        native.configure(enabled=not before.enabled)
    assert native.current_settings() == before


class _Library:
    """A built library that can be told which instruction set to use, or not."""

    def __init__(self, can_choose: bool) -> None:
        self.chosen: list[int] = []
        if can_choose:
            self.streamingllm_use_isa = self.chosen.append


@pytest.mark.parametrize("can_choose", [True, False])
def test_the_library_is_told_which_instruction_set_to_use(
    can_choose: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(native, "_settings", native.NativeSettings(isa="avx2"))
    library = _Library(can_choose)
    native._choose_isa(library)
    assert library.chosen == ([1] if can_choose else [])
    messages = [record.getMessage() for record in caplog.records]
    assert messages == (
        [] if can_choose else ["isa='avx2' has no effect: these kernels choose by themselves"]
    )


@pytest.mark.usefixtures("native_kernels")
def test_kernels_for_older_processors_pass_the_same_tests() -> None:
    files = [str(Path(__file__).with_name(name)) for name in ("test_decode.py", "test_linear.py")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *files],
        env={**os.environ, "STREAMINGLLM_ISA": "avx2", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.mark.usefixtures("native_kernels")
def test_what_was_built_is_found_again() -> None:
    library = native.build()
    assert library.is_file()
    stamp = library.stat().st_mtime_ns
    assert native.build() == library
    assert library.stat().st_mtime_ns == stamp


@pytest.mark.usefixtures("native_kernels")
@pytest.mark.parametrize(
    "name", ["decode_attention", "quantized_linear", "linear", "token_nll", "rotary_table"]
)
def test_the_dispatcher_knows_the_kernels(name: str) -> None:
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"streamingllm::{name}", "CPU")


def test_sources_and_compiler_name_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_SOURCES", Path(__file__).parent)
    other = native._fingerprint(sys.executable)
    monkeypatch.undo()
    assert native._fingerprint(sys.executable) != other
    monkeypatch.setattr(native, "_FLAGS", ("-O0",))
    assert native._fingerprint(sys.executable) not in (other, "")
