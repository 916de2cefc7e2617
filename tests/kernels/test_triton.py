"""Run what tests Triton's kernels, each file in a process of its own.

Triton decides when it is imported whether it compiles or interprets, and importing transformers
imports it.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs triton: pip install triton"
)


@pytest.mark.parametrize(
    "name", ["triton_cases.py", "triton_refusals.py", "triton_steps.py", "triton_compiles.py"]
)
def test_kernels(name: str, tmp_path: Path) -> None:
    interprets = name != "triton_compiles.py" and not torch.cuda.is_available()
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TRITON_CACHE_DIR": str(tmp_path / "compiled"),
        "TRITON_INTERPRET": "1" if interprets else "0",
    }
    path = Path(__file__).with_name(name)
    options = ["-q", "--tb=short", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, str(path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
