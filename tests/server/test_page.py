"""The page's files: complete, vendored as listed, under a strict policy."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from scripts import vendor_page
from streamingllm.server.routes import page

OURS = [
    path
    for path in sorted(page.FOLDER.rglob("*"))
    if path.is_file() and "vendor" not in path.relative_to(page.FOLDER).parts
]
MODULES = [path for path in OURS if path.suffix == ".js"]
_IMPORT = re.compile(r"""^import\b(?:[\w\s{},*]*?\bfrom)?\s*["']([^"']+)["'];""", re.MULTILINE)


@pytest.fixture
def client() -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(page.router)
    with TestClient(app) as client:
        yield client


def _directives(policy: str) -> dict[str, list[str]]:
    return {(parts := part.split())[0]: parts[1:] for part in policy.split(";")}


def test_the_page_is_served_with_a_policy_that_names_the_import_map_only(
    client: TestClient,
) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    inline = re.findall(r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", answer.text, re.DOTALL)
    assert len(inline) == 1
    digest = base64.b64encode(hashlib.sha256(inline[0].encode()).digest()).decode()
    directives = _directives(answer.headers["content-security-policy"])
    assert directives["default-src"] == ["'none'"]
    assert directives["script-src"] == ["'self'", f"'sha256-{digest}'"]
    assert directives["style-src"] == directives["connect-src"] == ["'self'"]
    assert "unsafe" not in answer.headers["content-security-policy"]


def test_every_file_that_the_page_names_is_served_with_its_type(client: TestClient) -> None:
    html = client.get("/").text
    named = re.findall(r'"(/page/[^"]+)"', html)
    assert len(named) > 10
    for name in named:
        answer = client.get(name)
        assert answer.status_code == 200, name
        assert answer.headers["x-content-type-options"] == "nosniff"
        kind = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
        assert answer.headers["content-type"].startswith(kind[name.rsplit(".", 1)[1]])


def test_a_file_is_not_sent_again_while_it_is_the_same(client: TestClient) -> None:
    first = client.get("/page/js/main.js")
    again = client.get("/page/js/main.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get("/page/js/main.js", headers={"if-none-match": '"other"'})
    assert other.content == first.content


@pytest.mark.parametrize(
    "path", ["nothing.js", "../routes/page.py", "%2e%2e/routes/page.py", "js", "", "/etc/passwd"]
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(f"/page/{path}").status_code == 404


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_the_imports_of_a_module_are_there(path: Path) -> None:
    html = (page.FOLDER / "index.html").read_text()
    mapped = set(re.findall(r'"([^"]+)": "/page/', html))
    for name in _IMPORT.findall(path.read_text()):
        if name.startswith("."):
            assert (path.parent / name).resolve().is_file(), name
        else:
            assert name in mapped


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_a_file_is_short_and_names_no_other_host(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    hosts = set(re.findall(r"https?://([^/\"'\s]+)", text)) - {"www.w3.org"}
    assert hosts == set()


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_a_module_is_valid(path: Path) -> None:
    command = ["node", "--check", "--input-type=module", "-"]
    run = subprocess.run(command, input=path.read_bytes(), capture_output=True)
    assert run.returncode == 0, run.stderr.decode()


def test_vendored_files_are_those_of_the_list() -> None:
    assert list(vendor_page.problems(vendor_page.VENDOR)) == []


def test_a_changed_vendored_file_is_found(tmp_path: Path) -> None:
    copy = tmp_path / "vendor"
    shutil.copytree(vendor_page.VENDOR, copy)
    (copy / "htm.js").write_text("changed")
    (copy / "more.js").write_text("added")
    found = list(vendor_page.problems(copy))
    assert [problem.split(":")[0] for problem in found] == ["htm.js", "more.js"]


def test_every_package_keeps_its_licence() -> None:
    for package in vendor_page.PACKAGES:
        for name in package.licenses:
            text = (vendor_page.VENDOR / f"licenses/{package.slug}.{name}.txt").read_text()
            assert "Permission" in text or "License" in text
