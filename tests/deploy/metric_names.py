"""Metrics and labels in queries of Prometheus."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WORDS = {"by", "without", "on", "ignoring", "and", "or", "unless", "bool", "offset"}


@dataclass(frozen=True)
class Used:
    """A metric of a query, with the labels that its selector has."""

    name: str
    labels: frozenset[str]


def metrics_of(query: str) -> set[Used]:
    """The metrics of a query: names that are no function, no word and no label."""
    plain = re.sub(r'"(?:[^"\\]|\\.)*"', '""', query)
    plain = re.sub(r"\[[^\]]*\]", "", plain)
    plain = re.sub(r"\b(?:by|without|on|ignoring)\s*\([^)]*\)", "", plain)
    found = set()
    for match in re.finditer(r"\b([a-z_:][\w:]*)\s*(\{[^}]*\}|\()?", plain, re.IGNORECASE):
        name, rest = match[1], match[2] or ""
        if rest == "(" or name in _WORDS:
            continue
        found.add(Used(name, frozenset(re.findall(r"(\w+)\s*[=!]", rest))))
    return found


def grouped_labels(query: str) -> set[str]:
    """The labels by which a query groups."""
    return {
        label
        for group in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", query)
        for label in re.findall(r"\w+", group)
    }
