"""Write a reproduction as Markdown, HTML and JSON."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

from streamingllm.evaluation.reproduce.exhibit import Exhibit, as_text

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .6rem;text-align:right;"
    "border-bottom:1px solid #ccc}td:first-child,th:first-child{text-align:left}img{max-width:100%}"
)
Block = tuple[str, Any]


def blocks_of(
    exhibits: Mapping[str, tuple[str, Exhibit | str]], heading: str, setting: str
) -> list[Block]:
    """Return the report as blocks, which both formats write.

    Args:
        exhibits: title and exhibit, or the reason why it was not run, by name.
        heading: of the report.
        setting: model, hardware and versions, in a sentence.
    """
    blocks: list[Block] = [("h1", heading), ("p", setting)]
    rows = [
        [name, claim.text, _verdict(claim.holds), claim.evidence]
        for name, (_, exhibit) in exhibits.items()
        if isinstance(exhibit, Exhibit)
        for claim in exhibit.claims
    ]
    blocks += [("h2", "Claims"), ("table", (["exhibit", "claim", "here", "evidence"], rows))]
    for name, (title, exhibit) in exhibits.items():
        blocks.append(("h2", title))
        if isinstance(exhibit, str):
            blocks.append(("p", f"Not run: {exhibit}."))
            continue
        blocks.append(("p", exhibit.setup))
        blocks.append(("table", _ours(exhibit)))
        if exhibit.printed is not None:
            blocks.append(("p", "The paper:"))
            printed = exhibit.printed
            cells = [[row, *(f"{v:.7g}" for v in values)] for row, values in printed.rows.items()]
            blocks.append(("table", (["", *printed.columns], cells)))
        if exhibit.plot is not None:
            blocks.append(("image", (f"{name}.png", exhibit.plot)))
    return blocks


def to_markdown(blocks: Sequence[Block]) -> str:
    """Write blocks as Markdown; images are files next to it."""
    parts = []
    for kind, content in blocks:
        if kind in ("h1", "h2"):
            parts.append(f"{'#' * int(kind[1])} {content}")
        elif kind == "table":
            header, rows = content
            lines = [header, ["---"] * len(header), *rows]
            parts.append("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines))
        elif kind == "image":
            parts.append(f"![{content[0]}]({content[0]})")
        else:
            parts.append(content)
    return "\n\n".join(parts) + "\n"


def to_html(blocks: Sequence[Block]) -> str:
    """Write blocks as one HTML page, images included."""
    parts = []
    for kind, content in blocks:
        if kind == "table":
            header, rows = content
            lines = [_line("th", header), *(_line("td", row) for row in rows)]
            parts.append(f"<table>{''.join(lines)}</table>")
        elif kind == "image":
            data = base64.b64encode(content[1]).decode()
            parts.append(f'<img alt="{content[0]}" src="data:image/png;base64,{data}">')
        else:
            parts.append(f"<{kind}>{html.escape(content)}</{kind}>")
    title = html.escape(str(blocks[0][1]))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style>{''.join(parts)}</html>\n"
    )


def to_json(exhibits: Mapping[str, tuple[str, Exhibit | str]]) -> dict[str, Any]:
    """Return exhibits for programs."""
    return {name: _fields(title, exhibit) for name, (title, exhibit) in exhibits.items()}


def _fields(title: str, exhibit: Exhibit | str) -> dict[str, Any]:
    if isinstance(exhibit, str):
        return {"title": title, "not_run": exhibit}
    return {
        "title": title,
        "setup": exhibit.setup,
        "columns": list(exhibit.columns),
        "rows": {
            row: [None if cell is None else cell.to_json() for cell in cells]
            for row, cells in exhibit.rows.items()
        },
        "claims": [
            {"text": claim.text, "holds": claim.holds, "evidence": claim.evidence}
            for claim in exhibit.claims
        ],
        "paper": None
        if exhibit.printed is None
        else {
            "columns": list(exhibit.printed.columns),
            "rows": {row: list(values) for row, values in exhibit.printed.rows.items()},
        },
        "reports": exhibit.reports,
    }


def _ours(exhibit: Exhibit) -> tuple[list[str], list[list[str]]]:
    rows = [
        [row, *("" if cell is None else as_text(cell) for cell in cells)]
        for row, cells in exhibit.rows.items()
    ]
    return ["here", *exhibit.columns], rows


def _line(tag: str, cells: Sequence[object]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(str(c))}</{tag}>" for c in cells) + "</tr>"


def _verdict(holds: bool | None) -> str:
    return "not decided" if holds is None else "holds" if holds else "does not hold"
