"""Check docstrings and pages for the rules of prose that a program can hold.

Rule 1: a docstring starts with an imperative or with a noun that the project uses; neither it nor
a heading nor the first sentence below a heading starts with a question word.
Rule 4: one word for one thing: because, except, compared with, each.
Sentences of more than 25 words (rule 2) are counted, and listed with --long; they are no errors.

Run: `python scripts/check_prose.py [--long] [PATH ...]`
The words of rule 1 are in prose_verbs.txt and prose_nouns.txt.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[1]
DEFAULT_PATHS = ("src", "docs", "README.md", "CONTRIBUTING.md")
MAX_WORDS = 25

QUESTION_WORDS = {"what", "who", "whose", "whom", "how", "which", "where", "why", "when"}
DETERMINERS = {"a", "an", "the", "one", "two", "three", "each", "every", "all", "both", "many"}
NOT_BEFORE_A_NOUN = {
    *("it", "its", "they", "their", "this", "that", "these", "those", "there", "here", "nothing"),
    *("nobody", "none", "no", "not", "if", "because", "so", "as", "whether", "only", "is", "are"),
    *("for", "from", "to", "in", "on", "of", "with", "by", "at", "while", "until", "after", "and"),
}


def _word_list(name: str) -> frozenset[str]:
    return frozenset(Path(__file__).with_name(f"prose_{name}.txt").read_text().split())


VERBS, NOUNS = _word_list("verbs"), _word_list("nouns")

_AUXILIARY = (
    r"(?:is|are|was|were|has|have|had|can|cannot|could|must|may|might|will|would|does|do)\b"
)
_NOUN_PHRASE = (
    r"(?:(?!(?:that|which|who|whose|where|when|of|example|what|whatever)\b)[\w'’-]+\s+){1,4}?"
)
_QUANTITY = r"(?:all|everything|everyone|nothing|none|anything|nobody|nowhere|(?:no|every)\s+\w+)"
WORDINGS = {
    name: re.compile(pattern, re.IGNORECASE)
    for name, pattern in {
        "because, not for": (
            r"[,;:]\s+for\s+"
            rf"(?:(?:it|they|we|there)\s+[a-z]{{2,}}\b(?!\s+and\b)|{_NOUN_PHRASE}{_AUXILIARY})"
        ),
        "except, not but": rf"\bbut\s+for\b|\b{_QUANTITY}\s+but\b(?!\s+(?:it|they|also|not)\b)",
        "compared with or next to, not beside": r"\bbeside\b",
        "also or in the same way, not likewise": r"\blikewise\b",
        "a number, not so many": r"\bso\s+many\b",
        "the same number of, not as many as": r"\bas\s+many\s+(?:[\w'’-]+\s+){0,5}as\b",
        "bit-identical, not to the bit": r"\bto\s+the\s+(?:last\s+)?bit\b",
        "none, not none such": r"\bnone\s+such\b",
        "a plain verb, not lets expect": r"\blets?\s+(?:us\s+|one\s+)?expect\b",
    }.items()
}
_SENTENCE_END = re.compile(
    r"(?<!e\.g\.)(?<!i\.e\.)(?<!vs\.)(?<!al\.)(?<=[.!?])\s+(?=[\"'`(\[]?[A-Z`*])"
)
# A blank line, or a new line with an item or with an argument and its colon.
_BLOCK_END = re.compile(r"\n\s*\n\s*|\n\s*(?=[-*]\s)|\n\s*(?=\w[\w ,]*:\s)")

Kind = Literal["docstring", "heading", "opening", "page"]


@dataclass(frozen=True)
class Prose:
    """A text of a file.

    Args:
        path: the file.
        line: the number of its first line.
        text: as it is written, with its line breaks.
        kind: an opening is the first paragraph below a heading, a page any other.
    """

    path: Path
    line: int
    text: str
    kind: Kind


@dataclass(frozen=True)
class Finding:
    """A sentence that breaks a rule."""

    path: Path
    line: int
    rule: str
    sentence: str

    def __str__(self) -> str:
        path = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        return f"{path}:{self.line}: {self.rule}: {self.sentence}"


def docstrings(path: Path) -> Iterator[Prose]:
    """Yield the docstrings of a module, its classes and its functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        text = ast.get_docstring(node, clean=False)
        if text is not None:
            yield Prose(path, node.body[0].lineno, text, "docstring")


def paragraphs(path: Path) -> Iterator[Prose]:
    """Yield the headings and paragraphs of a page in Markdown, without its code."""
    text = path.read_text(encoding="utf-8")
    blank = re.compile(r"^(```|~~~).*?^\1|<!--.*?-->", re.DOTALL | re.MULTILINE)
    text = blank.sub(lambda match: "\n" * match[0].count("\n"), text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)\s]*\)", r"\1", text)
    block: list[str] = []
    kind: Kind = "opening"
    start = 1
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        is_heading, item = line.startswith("#"), re.match(r"\s*([-*]\s|\||\d+\.\s)\s*", line)
        if block and (not line.strip() or is_heading or item):
            yield Prose(path, start, "\n".join(block), kind)
            kind, block = "page", []
        if is_heading:
            yield Prose(path, number, line.lstrip("# "), "heading")
            kind = "opening"
        elif line.strip():
            kind = "page" if item else kind
            start = start if block else number
            block.append(line[item.end() :] if item else line)


def check(prose: Prose) -> Iterator[Finding]:
    """Yield what a text breaks of rules 1 and 4."""
    first = next(iter(sentences(prose.text)), "")
    if prose.kind != "page" and first and (problem := opening_problem(first, prose.kind)):
        offset = len(prose.text) - len(prose.text.lstrip())
        yield _finding(prose, offset, f"rule 1: {problem}", first)
    plain = _without_code(prose.text)
    for wanted, pattern in WORDINGS.items():
        for match in pattern.finditer(plain):
            sentence = _sentence_at(prose.text, match.start())
            yield _finding(prose, match.start(), f"rule 4: say {wanted}", sentence)


def opening_problem(sentence: str, kind: Kind = "docstring") -> str | None:
    """Return the reason why a sentence may not be the first of a text, or None."""
    words = re.findall(r"[\w'’-]+", sentence.replace("`", ""))
    lowered = [word.lower() for word in words]
    if lowered and lowered[0] in QUESTION_WORDS:
        return f"{words[0]!r} starts a question, not a statement"
    if kind != "docstring" or not lowered or lowered[0] in VERBS or sentence.startswith("`"):
        return None
    if lowered[0].removesuffix("s") in VERBS and lowered[1:] and lowered[1] in DETERMINERS:
        return f"{words[0]!r} is no imperative"
    for word in lowered[1:4] if lowered[0] in DETERMINERS else lowered[:3]:
        if word in NOT_BEFORE_A_NOUN:
            break
        if any(part in NOUNS for part in _singulars(word)):
            return None
    return f"{words[0]!r} starts neither an imperative nor a noun of the glossary"


def _singulars(word: str) -> Iterator[str]:
    word = re.sub(r"['’]s?$", "", word)
    for part in (word, *word.split("-")):
        yield part
        for ending, instead in (("s", ""), ("es", ""), ("ies", "y"), ("ces", "x")):
            if part.endswith(ending):
                yield part.removesuffix(ending) + instead


def sentences(text: str) -> list[str]:
    """Split a text at the ends of its sentences and paragraphs; spaces become single ones."""
    found = [part for block in _BLOCK_END.split(text) for part in _SENTENCE_END.split(block)]
    return [" ".join(part.split()) for part in found if part.strip()]


def long_sentences(prose: Prose) -> Iterator[Finding]:
    """Yield sentences of more than `MAX_WORDS` words; rows of a table are none."""
    for sentence in sentences(_without_code(prose.text)):
        count = len(re.findall(r"\w[\w'’-]*", sentence))
        if count > MAX_WORDS and "|" not in sentence:
            yield Finding(prose.path, prose.line, f"rule 2: {count} words", sentence)


def _without_code(text: str) -> str:
    return re.sub(r"`[^`]*`", lambda match: re.sub(r"\S", "x", match[0]), text)


def _sentence_at(text: str, offset: int) -> str:
    ends = [m.end() for pattern in (_SENTENCE_END, _BLOCK_END) for m in pattern.finditer(text)]
    start = max((end for end in ends if end <= offset), default=0)
    stop = min((end for end in ends if end > offset), default=len(text))
    return " ".join(text[start:stop].split())


def _finding(prose: Prose, offset: int, rule: str, sentence: str) -> Finding:
    return Finding(prose.path, prose.line + prose.text.count("\n", 0, offset), rule, sentence)


def prose_of(paths: Iterable[Path]) -> Iterator[Prose]:
    """Yield all prose of files and folders."""
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix == ".py":
                yield from docstrings(file)
            elif file.suffix == ".md":
                yield from paragraphs(file)


def _group(path: Path) -> str:
    """Return the package of a module, the folder of a page."""
    parts = path.relative_to(ROOT).parts if path.is_relative_to(ROOT) else path.parts
    return "/".join(parts[: 3 if parts[0] == "src" else 1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print findings and their number per package; return 1 if there are any."""
    parser = argparse.ArgumentParser(description="Check prose for rules 1 and 4 of the style.")
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--long", action="store_true", help="list sentences of over 25 words too")
    options = parser.parse_args(arguments)
    given = [path.resolve() for path in options.paths]
    texts = list(prose_of(given or [ROOT / path for path in DEFAULT_PATHS]))
    findings = [finding for text in texts for finding in check(text)]
    too_long = [finding for text in texts for finding in long_sentences(text)]
    for finding in [*findings, *(too_long if options.long else ())]:
        sys.stdout.write(f"{finding}\n")
    counts = Counter((_group(f.path), f.rule[:6]) for f in [*findings, *too_long])
    for group in sorted({group for group, _ in counts}):
        by_rule = (f"{counts[group, rule]:4} {rule}" for rule in ("rule 1", "rule 4", "rule 2"))
        sys.stdout.write(f"{group:32} {', '.join(by_rule)}\n")
    sys.stdout.write(f"{len(findings)} findings; {len(too_long)} sentences of over 25 words\n")
    return 1 if findings else 0


if __name__ == "__main__":
    raise SystemExit(main())
