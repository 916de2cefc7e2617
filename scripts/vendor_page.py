"""Fetch the libraries of the server's page from npm, check their sums, keep their licences.

The page has no build step and loads nothing from another host. Its libraries are files of this
repository, copied out of npm's packages without a change.

Run: `python scripts/vendor_page.py` fetches all; `--check` compares what is there, without network.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

VENDOR = Path(__file__).parents[1] / "src/streamingllm/server/page/vendor"
_MANIFEST = "vendor.json"
_LANGUAGES = (
    *("bash", "c", "cpp", "css", "diff", "go", "ini", "java", "javascript", "json", "markdown"),
    *("python", "rust", "sql", "typescript", "xml", "yaml"),
)


@dataclass(frozen=True)
class Package:
    """Name a package of npm and the files that the page needs of it.

    Args:
        name: in the registry.
        version: exact.
        sha256: of the package's archive.
        files: path in the package -> name in the vendor folder.
        licenses: files of the package with its licence.
    """

    name: str
    version: str
    sha256: str
    files: dict[str, str]
    licenses: tuple[str, ...] = ("LICENSE",)

    @property
    def slug(self) -> str:
        """Name of a file for the package."""
        return self.name.lstrip("@").replace("/", "-")


PACKAGES = (
    Package(
        "preact",
        "11.2.0",
        "3c4456766bd32b6b534d52bf4e9c2a29b33e7eedf6e96ed479300ba1a7888ebf",
        {"dist/preact.mjs": "preact.js", "hooks/dist/hooks.mjs": "preact-hooks.js"},
    ),
    Package(
        "htm",
        "3.1.1",
        "2425b9bee11409177bcabc7f32e319926fc6690c1701c0b257c88bdff2d5ba90",
        {"dist/htm.module.js": "htm.js"},
    ),
    Package(
        "@preact/signals",
        "2.11.4",
        "66ea8221dd8aaa0da2365d49c3f116b071d56cfb63b2e16c072c6b4e08a928b7",
        {"dist/signals.mjs": "signals.js"},
    ),
    Package(
        "@preact/signals-core",
        "1.14.5",
        "94c421ac996214c94f532fb4c43d8ede048a16df0cd9538ffb965174dbe8daba",
        {"dist/signals-core.mjs": "signals-core.js"},
    ),
    Package(
        "marked",
        "18.2.1",
        "d66c5213fc203466186060105b01f51896764ba64b3797d2620d02e28e34b8ca",
        {"lib/marked.esm.js": "marked.js"},
    ),
    Package(
        "dompurify",
        "3.4.18",
        "8b86f79c6481fec23dd81d4de32179422668912ed033c0c47e786a6e70cb3379",
        {"dist/purify.es.mjs": "dompurify.js"},
        ("LICENSE", "LICENSE-MPL"),
    ),
    Package(
        "@highlightjs/cdn-assets",
        "11.12.0",
        "b8a006d30f45afe783072569f3d69c5b60c0e7b9ca28cd474e12f2584e2a3bd9",
        {
            "es/core.min.js": "highlight/core.js",
            **{f"es/languages/{name}.min.js": f"highlight/{name}.js" for name in _LANGUAGES},
        },
    ),
)


def fetch(package: Package, folder: Path) -> Path:
    """Download a package's archive into a folder.

    Raises:
        ValueError: its sum is not the one that is written here.
    """
    command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    run = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    archive = folder / run.stdout.strip().splitlines()[-1]
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise ValueError(
            f"sha256={found} of {package.name} {package.version} is not {package.sha256}; "
            "look at what changed before you write the new sum down"
        )
    return archive


def unpack(package: Package, archive: Path, target: Path) -> Iterator[str]:
    """Copy a package's files and licences below a folder; yield their names there."""
    wanted = dict(package.files)
    wanted |= {name: f"licenses/{package.slug}.{name}.txt" for name in package.licenses}
    with tarfile.open(archive) as files:
        for source, name in wanted.items():
            member = files.extractfile(f"package/{source}")
            if member is None:
                raise FileNotFoundError(f"{source} of {package.name} is no file")
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(member.read())
            yield name


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of each vendored file, by name."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _MANIFEST
    }


def vendor(target: Path) -> None:
    """Fetch all packages and write the list of their files."""
    listed: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for package in PACKAGES:
            names = list(unpack(package, fetch(package, Path(folder)), target))
            listed[package.name] = {
                "version": package.version,
                "archive_sha256": package.sha256,
                "files": {name: digests(target)[name] for name in names},
            }
    (target / _MANIFEST).write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")


def problems(target: Path) -> Iterator[str]:
    """Compare the vendored files with their list; yield what differs."""
    manifest = json.loads((target / _MANIFEST).read_text(encoding="utf-8"))
    listed: dict[str, str] = {}
    for package in manifest.values():
        listed |= package["files"]
    found = digests(target)
    for name in sorted(listed.keys() | found.keys()):
        if listed.get(name) != found.get(name):
            yield f"{name}: sha256={found.get(name)} is not {listed.get(name)} of the list"
    for package in PACKAGES:
        entry = manifest.get(package.name, {})
        written = (entry.get("version"), entry.get("archive_sha256"))
        if written != (package.version, package.sha256):
            yield f"{package.name}: the list has {written}, not {package.version}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch or check; return 1 if a check finds a difference."""
    parser = argparse.ArgumentParser(description="Vendor the libraries of the server's page.")
    parser.add_argument("--check", action="store_true", help="compare only, without a network")
    if not parser.parse_args(arguments).check:
        vendor(VENDOR)
    found = list(problems(VENDOR))
    for problem in found:
        sys.stdout.write(f"{problem}\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
