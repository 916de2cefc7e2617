"""Compiled decode steps, kept in the user's cache folder under all that they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock
from platformdirs import user_cache_path
from torch import Tensor, nn

from streamingllm.kernels import native
from streamingllm.kernels.operators import DECODING

_CODE = ("attention", "graphs", "integration", "kernels", "positions")
_C_TYPES = {
    "Tensor": "AtenTensorHandle",
    "Optional[Tensor]": "AtenTensorHandle*",
    "float": "double",
}
_PACKAGE = Path(__file__).parents[1]


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
    return user_cache_path("streamingllm") / "graphs" / f"{name}.pt2"


class Compilation:
    """A compilation in a process of its own, so that decoding can go on meanwhile.

    Args:
        program: what to compile.
        target: where the result goes, whole or not at all.
    """

    def __init__(self, program: torch.export.ExportedProgram, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self.target = target
        self._folder = tempfile.TemporaryDirectory(dir=target.parent)
        exported = Path(self._folder.name) / "step.export.pt2"
        with warnings.catch_warnings():
            # Joined weights are views of one tensor, which on a CPU is no matter.
            warnings.filterwarnings("ignore", message="No complete tensor found")
            torch.export.save(program, exported)
        command = [
            sys.executable,
            "-m",
            "streamingllm.graphs.aot_cache",
            *map(str, (exported, target)),
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def finish(self) -> str | None:
        """Wait for the end; return None on success, else what the compiler said last."""
        _, errors = self._process.communicate()
        self._folder.cleanup()
        if self._process.returncode == 0:
            return None
        lines = errors.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}"

    def stop(self) -> None:
        """Give up."""
        self._process.kill()
        self.finish()


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


def _compile(exported: Path, target: Path) -> None:
    """Compile an exported step; one process at a time for each target."""
    native.load()
    with FileLock(target.with_suffix(".lock")):
        if target.is_file():
            return
        program = torch.export.load(exported)
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


if __name__ == "__main__":
    _compile(Path(sys.argv[1]), Path(sys.argv[2]))
