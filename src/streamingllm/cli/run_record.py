"""Record what a result depends on in addition to its settings."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).parents[3]


def run_record(seed: int | None = None) -> dict[str, Any]:
    """Return the versions, the hardware, the git commit (in a checkout) and the seed of a run."""
    import torch

    return {
        "versions": {
            "python": platform.python_version(),
            **{name: package_version(name) for name in ("streamingllm", "torch", "transformers")},
        },
        "hardware": {
            "cpu": _cpu_model(),
            "cores": _usable_cores(),
            "torch_threads": torch.get_num_threads(),
            "accelerator": _accelerator(),
        },
        "git_commit": _git_commit(),
        "seed": seed,
    }


def package_version(name: str) -> str:
    """Return the installed version of a package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _accelerator() -> str | None:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "mps" if torch.backends.mps.is_available() else None


def _git_commit() -> str | None:
    """Return the commit of the checkout that this file is in, marked if it has local changes."""
    if not (_CHECKOUT / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    try:
        result = subprocess.run(command, cwd=_CHECKOUT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
