from __future__ import annotations

import importlib
import importlib.resources
import subprocess
import sys

import pytest

import streamingllm

PACKAGES = (
    "streamingllm",
    "streamingllm.models",
    "streamingllm.evaluation",
    "streamingllm.sessions",
)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert name in dir(module)


@pytest.mark.parametrize("package", PACKAGES)
def test_other_names_are_refused_as_usual(package: str) -> None:
    module = importlib.import_module(package)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing


def test_the_names_of_the_readme_are_exported() -> None:
    names = "AsyncEngine Engine Grammar LanguageModel SamplingParams SinkCache Stream StreamConfig"
    assert {*names.split(), "load_model"} <= set(streamingllm.__all__)


def test_importing_the_packages_imports_no_torch() -> None:
    program = f"import sys, {', '.join(PACKAGES)}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_the_package_says_that_it_is_typed() -> None:
    assert (importlib.resources.files("streamingllm") / "py.typed").is_file()
