"""Compiled decode steps, in the cache folder under a name of all that they depend on."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock
from torch import Tensor, nn

from streamingllm.cache_folder import cache_folder, using_cache_folder
from streamingllm.errors import first_line
from streamingllm.graphs.child_process import ChildProcess
from streamingllm.graphs.hollow_program import fill, hollowed
from streamingllm.kernels import native
from streamingllm.kernels.operators import DECODING

_CODE = ("attention", "graphs", "integration", "kernels", "positions")
_C_TYPES = {
    "Tensor": "AtenTensorHandle",
    "Optional[Tensor]": "AtenTensorHandle*",
    "float": "double",
    "int": "int64_t",
}
_PACKAGE = Path(__file__).parents[1]
_STAGING_PREFIX = "partial-"
_LEFTOVER_SECONDS = 86_400


def fingerprint(module: nn.Module, inputs: Any, model_config: dict[str, Any]) -> str:
    """Name what a compiled step depends on: model, shapes, versions, our code, the processor.

    Weights are not part of it; they are given to the step when it is loaded.
    """
    tensors = [*module.named_parameters(), *module.named_buffers()]
    facts = {
        "model": model_config,
        "tensors": sorted((name, list(t.shape), str(t.dtype)) for name, t in tensors),
        "inputs": [
            (len(x.shape), str(x.dtype)) if isinstance(x, Tensor) else None
            for x in torch.utils._pytree.tree_leaves(inputs)
        ],
        "batch": inputs[0].shape[1],
        "versions": [torch.__version__, transformers.__version__],
        "processor": torch.backends.cpu.get_cpu_capability(),
        "code": _code_digest(),
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _code_digest() -> str:
    digest = hashlib.sha256()
    for folder in _CODE:
        for path in sorted((_PACKAGE / folder).rglob("*")):
            if path.suffix in (".py", ".cpp", ".h", ".inl"):
                digest.update(path.read_bytes())
    return digest.hexdigest()


def package_path(name: str) -> Path:
    """Return where the compiled step of that fingerprint is, or will be."""
    return cache_folder() / "graphs" / f"{name}.pt2"


class Compilation:
    """Compile a step in a process of its own, so that decoding goes on meanwhile.

    The process ends with this one. A folder that cannot be written is reported by `finish`.

    Args:
        program: what to compile.
        target: where the result goes, whole or not at all.
    """

    def __init__(self, program: torch.export.ExportedProgram, target: Path) -> None:
        self.target = target
        self._child: ChildProcess | None = None
        self._failure: str | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(target.parent)
            self._folder = tempfile.TemporaryDirectory(prefix=_STAGING_PREFIX, dir=target.parent)
            self._child = _start(program, Path(self._folder.name), target)
        except (OSError, RuntimeError) as error:  # torch's writer raises the latter on a full disk
            self._failure = f"{target.parent}: cannot be written ({first_line(error)})"

    @property
    def running(self) -> bool:
        """Tell whether the compilation goes on."""
        return self._child is not None and self._child.running

    def wait(self) -> None:
        """Wait for the end."""
        if self._child is not None:
            self._child.wait()

    def finish(self) -> str | None:
        """Wait for the end; return None on success, else what the compiler said last."""
        if self._child is not None:
            self._failure = self._child.finish()
        if self._folder is not None:
            self._folder.cleanup()
        return self._failure

    def stop(self) -> None:
        """Give up."""
        if self._child is not None:
            self._child.stop()
        self.finish()


def _start(program: torch.export.ExportedProgram, folder: Path, target: Path) -> ChildProcess:
    """Begin to compile `program` by way of files in `folder`."""
    exported = folder / "step.export.pt2"
    hollow, outlines = hollowed(program)
    with warnings.catch_warnings():
        # Joined weights are views of one tensor, which on a CPU is no matter.
        warnings.filterwarnings("ignore", message="No complete tensor found")
        torch.export.save(hollow, exported)
    _outlines_of(exported).write_text(json.dumps(outlines))  # too long for a command line
    arguments = {
        "exported": str(exported),
        "target": str(target),
        "cache_dir": str(cache_folder()),
        "native_settings": asdict(native.current_settings()),
    }
    return ChildProcess(__name__, arguments, folder)


def _remove_leftovers(folder: Path) -> None:
    """Remove what compilations left whose processes were killed, once no other can be at work."""
    for leftover in folder.glob(f"{_STAGING_PREFIX}*"):
        with suppress(FileNotFoundError):  # another process has removed it
            if leftover.stat().st_mtime < time.time() - _LEFTOVER_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)


def load_package(path: Path, tensors: dict[str, Tensor]) -> Callable[[list[Tensor]], list[Tensor]]:
    """Return a compiled step that computes with `tensors`, which it shares.

    It takes all of the step's tensors in one list: calling the package itself would parse the
    nesting of its arguments anew at every step.
    """
    # What `torch._inductor.aoti_load_package` makes, without the second in which it asks the
    # compiler for what this processor can do; the fingerprint has seen to that.
    package = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
    constants = {name: tensors[name].detach() for name in package.get_constant_fqns()}
    package.load_constants(constants, False, check_full_update=True, user_managed=True)
    run: Callable[[list[Tensor]], list[Tensor]] = package.run
    return run


def _outlines_of(exported: Path) -> Path:
    return exported.with_name("outlines.json")


def main(exported: str, target: str, cache_dir: str, native_settings: dict[str, Any]) -> None:
    """Compile an exported step in a process of its own, see `Compilation`."""
    native.configure(**native_settings)
    with using_cache_folder(cache_dir):
        native.load()
    _compile(Path(exported), Path(target))


def _compile(exported: Path, target: Path) -> None:
    """Compile an exported step; one process at a time for each target."""
    with FileLock(target.with_suffix(".lock")):
        if target.is_file():
            return
        program = torch.export.load(exported)
        fill(program, json.loads(_outlines_of(exported).read_text()))
        staged = exported.with_name("compiled.pt2")
        torch._inductor.aoti_compile_and_package(
            program,
            package_path=str(staged),
            inductor_configs={
                "aot_inductor.package_constants_in_so": False,
                "aot_inductor.custom_ops_to_c_shims": {op: [_declaration(op)] for op in DECODING},
                "cpp.threads": 1,  # what lies between our operators is too small to share out
            },
        )
        staged.replace(target)


def _declaration(op: torch._ops.OpOverload) -> str:
    """Return the C signature of an operator's door; see kernels/cpu/shim.h."""
    name = op._schema.name.partition("::")[2]
    types = [str(argument.type) for argument in op._schema.arguments]
    outputs = ["AtenTensorHandle*" for _ in op._schema.returns]
    arguments = ", ".join([*(_C_TYPES[kind] for kind in types), *outputs])
    return f"AOTITorchError aoti_torch_cpu_{name}({arguments})"
