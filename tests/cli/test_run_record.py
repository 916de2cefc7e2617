from __future__ import annotations

import json
import platform

import torch

from streamingllm.cli.run_record import package_version, run_record


def test_a_record_names_versions_hardware_and_seed() -> None:
    record = run_record(seed=7)
    assert record["seed"] == 7
    assert record["versions"]["python"] == platform.python_version()
    assert record["versions"]["torch"] == torch.__version__
    assert record["hardware"]["cpu"]
    assert record["hardware"]["cores"] >= 1
    assert record["hardware"]["torch_threads"] == torch.get_num_threads()
    assert json.loads(json.dumps(record)) == record


def test_a_missing_package_is_said_to_be_missing() -> None:
    assert package_version("no-such-package") == "not installed"
