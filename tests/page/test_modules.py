"""Modules of the page alone, in the browser that runs them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.page.driver import Driver

pytest.importorskip("playwright", reason="playwright drives the browser")

Info = dict[str, Any]
EVENTS = ': ping\n\nevent: x\ndata: {"a": "ü🌊"}\n\ndata:{"b": 1}\n\ndata: [DONE]\n\n'


def info(name: str, parent: str | None, shared: int, messages: int, created: int) -> Info:
    return {
        "id": name,
        "parent_id": parent,
        "num_shared_messages": shared,
        "num_messages": messages,
        "created_at": created,
    }


def arrows(page: Driver, current: str, *family: Info) -> dict[int, list[Any]]:
    """Position, total, previous, next of the arrows, by number of the message."""
    found = page.page.evaluate(
        """async ([current, family]) => {
          const { branchArrows } = await import("/page/js/branches.js");
          const own = family.find(({ id }) => id === current);
          return [...branchArrows(own, family.filter((other) => other !== own))];
        }""",
        [current, list(family)],
    )
    return {n: [a["position"], a["total"], a["previous"], a["next"]] for n, a in found}


def test_arrows_join_branches_of_branches(page: Driver) -> None:
    page.open()
    # a: 0 1 2 3 4 5; b parts at 3; c parts from b at 3 again; d parts from b at 5.
    a = info("a", None, 0, 6, 1)
    b = info("b", "a", 3, 7, 2)
    c = info("c", "b", 3, 5, 3)
    d = info("d", "b", 5, 7, 4)
    assert arrows(page, "a", a, b, c, d) == {3: [0, 3, None, "b"]}
    assert arrows(page, "b", a, b, c, d) == {3: [1, 3, "a", "c"], 5: [0, 2, None, "d"]}
    assert arrows(page, "c", a, b, c, d) == {3: [2, 3, "b", None]}
    assert arrows(page, "d", a, b, c, d) == {3: [1, 3, "a", "c"], 5: [1, 2, "b", None]}


def test_a_branch_without_a_message_of_its_own_has_no_arrows(page: Driver) -> None:
    page.open()
    assert arrows(page, "b", info("a", None, 0, 5, 1), info("b", "a", 3, 3, 2)) == {}
    assert arrows(page, "a", info("a", None, 0, 3, 1), info("b", "a", 3, 5, 2)) == {}
    assert arrows(page, "a", info("a", None, 0, 3, 1)) == {}


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 7, 1000])
def test_events_are_read_however_they_are_cut(page: Driver, chunk_bytes: int) -> None:
    page.open()
    read = page.page.evaluate(
        """async ([text, size]) => {
          const { events } = await import("/page/js/sse.js");
          const bytes = new TextEncoder().encode(text);
          const body = new ReadableStream({
            start(controller) {
              for (let at = 0; at < bytes.length; at += size) {
                controller.enqueue(bytes.slice(at, at + size));
              }
              controller.close();
            },
          });
          const found = [];
          for await (const event of events(new Response(body))) found.push(event);
          return found;
        }""",
        [
            ': ping\n\nevent: x\ndata: {"a": "ü🌊"}\n\ndata:{"b": 1}\n\ndata: [DONE]\n\n',
            chunk_bytes,
        ],
    )
    assert read == [{"a": "ü🌊"}, {"b": 1}]


@pytest.mark.parametrize(
    "text",
    [
        "<script>window.broken = 1</script>",
        "<img src=x onerror='window.broken = 1'>",
        "![x](https://other.test/x.png)",
        '![x](x" onerror="window.broken=1)',
        "[a](javascript:window.broken=1)",
        "[a](data:text/html,<script>1</script>)",
        "<svg onload='window.broken = 1'></svg>",
        "<iframe src='https://other.test'></iframe>",
        "<form action='https://other.test'><button>Go</button></form>",
        "<style>body { display: none }</style>",
        '```x" onclick="window.broken=1\ncode\n```',
        "```html\n<script>window.broken = 1</script>\n```",
        "<a id='app' name='composer' style='position:fixed'>x</a>",
    ],
)
def test_text_of_a_model_cannot_act(page: Driver, text: str) -> None:
    page.open()
    found = page.page.evaluate(
        """async (text) => {
          const { markdown } = await import("/page/js/markdown.js");
          const box = document.createElement("div");
          document.body.append(box);
          box.innerHTML = markdown(text);
          await new Promise((resolve) => setTimeout(resolve, 50));
          const all = [...box.querySelectorAll("*")];
          return {
            tags: all.map((e) => e.localName),
            names: all.flatMap((e) => e.getAttributeNames()),
            targets: all.map((e) => e.getAttribute("href")).filter(Boolean),
            broken: window.broken ?? null,
          };
        }""",
        text,
    )
    assert found["broken"] is None
    harmless = {"p", "a", "pre", "code", "span", "br"}
    assert set(found["tags"]) <= harmless
    assert set(found["names"]) <= {"href", "class", "target", "rel", "data-language"}
    assert all(target.startswith("https:") or ":" not in target for target in found["targets"])
