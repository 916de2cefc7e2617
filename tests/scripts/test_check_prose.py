"""Sentences that the rules of prose allow, and sentences that they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.check_prose import Kind, Prose, check, docstrings, long_sentences, main, paragraphs

HERE = Path("page.md")


def rules(text: str, kind: Kind = "docstring") -> list[str]:
    """Return the rules that a text breaks."""
    return [finding.rule[:6] for finding in check(Prose(HERE, 1, text, kind))]


@pytest.mark.parametrize(
    "sentence",
    [
        "Limit torch to one intra-op thread between decode steps.",
        "Return logits [batch, vocab].",
        "One stream of an engine.",
        "The plan of a decode step: one token per stream.",
        "A stream's place in the pool.",
        "CUDA graphs that steps are replayed from.",
        "Eight-bit rows, each with its own scale.",
        "`streamingllm bench`: measure this machine.",
        "MPT: ALiBi with slopes of its own.",
        "Strategies by name.",
        "A model cannot stream: the message gives the reason.",
    ],
)
def test_a_verb_or_a_noun_of_the_glossary_starts_a_docstring(sentence: str) -> None:
    assert rules(sentence) == []


@pytest.mark.parametrize(
    "sentence",
    [
        "Who computes between two decode steps.",
        "What a stream keeps and how it is fed.",
        "How far each stream of a cache has come.",
        "Which models can stream.",
        "Where each query stands.",
        "Why each stream needs a pass of its own.",
        "Whether steps run compiled now.",
        "Returns the logits.",
        "Holds each layer's keys.",
        "Nothing that a model should know of.",
        "All that a stream is.",
        "From a model's name to its files.",
        "This class holds a cache.",
        "It returns the cache.",
    ],
)
def test_other_words_do_not(sentence: str) -> None:
    assert rules(sentence) == ["rule 1"]


@pytest.mark.parametrize("kind", ["heading", "opening"])
def test_pages_may_start_as_they_like_unless_it_is_a_question(kind: Kind) -> None:
    assert rules("On a GPU steps are captured.", kind) == []
    assert rules("Which models", kind) == ["rule 1"]
    assert rules("Which of them it is depends on the model.", "page") == []


@pytest.mark.parametrize(
    "sentence",
    [
        "None of this has run on a GPU, for none was to be had.",
        "Null stands there, for JSON has no such numbers.",
        "A token is fed alone, for it has a slot of its own.",
        "Copy the entries; for the ring is written in place.",
        "Read every key but for the sinks.",
        "Score every token but the first.",
        "Read all but the embedding table.",
        "Compare tokens per second beside the bandwidth.",
        "The same tensor, likewise float32.",
        "Allocate rings for so many streams.",
        "Use as many threads as torch has.",
        "Return as many tokens of each stream as the shortest has.",
        "Compute the same to the bit.",
        "Equal to the last bit.",
        "Refuse a strategy that has none such.",
        "Try a size that lets expect a fit.",
        "Write a file that is put\nbeside\nits target.",
    ],
)
def test_wordings_of_which_there_is_a_plainer_one(sentence: str) -> None:
    assert rules(sentence, "page") == ["rule 4"]


@pytest.mark.parametrize(
    "sentence",
    [
        "Allocate a ring for each stream, for keys and for values.",
        "Use the operator, for example, on a CPU.",
        "Return the logits after each stream's last token, for nobody else.",
        "Load a step that was compiled before, for this model on this machine, if it is there.",
        "A process waits for what was begun.",
        "It is no cache but it looks like one.",
        "Not only keys but also values are rotated.",
        "Streams stand side by side; besides, they share a step.",
        "Read `beside` as a name and `so many` as code.",
        "Read k bits of n, bit by bit.",
        "Refuse a step, because the ring is full.",
        "A kernel for rings that are written, for streams that have ended too.",
        "Many streams share one step.",
    ],
)
def test_wordings_that_are_like_them_and_mean_what_they_say(sentence: str) -> None:
    assert rules(sentence, "page") == []


def test_long_sentences_are_counted_apart() -> None:
    text = "Return " + "a token " * 13 + "now. Return it."
    (finding,) = long_sentences(Prose(HERE, 1, text, "docstring"))
    assert finding.rule == "rule 2: 28 words"
    assert rules(text) == []
    assert not list(long_sentences(Prose(HERE, 1, "Return " + "token " * 24, "docstring")))


MODULE = '''"""Streams by name."""


class Stream:
    """What a stream is.

    Args:
        rows: so many rows; there
            are likewise many.
    """

    def feed(self) -> None:
        # Who says this is no docstring.
        "How this is one."
'''


def test_findings_name_line_rule_and_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "stream.py"
    path.write_text(MODULE)
    assert [text.line for text in docstrings(path)] == [1, 5, 14]
    assert main([str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    entry = "rows: so many rows; there are likewise many."
    assert sorted(lines[:4]) == [
        f"{path}:14: rule 1: 'How' starts a question, not a statement: How this is one.",
        f"{path}:5: rule 1: 'What' starts a question, not a statement: What a stream is.",
        f"{path}:8: rule 4: say a number, not so many: {entry}",
        f"{path}:9: rule 4: say also or in the same way, not likewise: {entry}",
    ]
    assert lines[-1] == "4 findings; 0 sentences of over 25 words"


PAGE = """# How it works
A page about streams, with a [link
over two lines](there.md) in it.

What comes in a later paragraph may be a question.

```
# What code says is nobody's business, likewise
```
- beside an item
| what | a table says |

## Streams
Who stands below a heading is read.
"""


def test_pages_are_read_without_their_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    assert [(text.line, text.kind) for text in paragraphs(path)] == [
        *((1, "heading"), (2, "opening"), (5, "page"), (10, "page"), (11, "page")),
        *((13, "heading"), (14, "opening")),
    ]
    assert main([str(path)]) == 1
    found = [line.partition(": ")[0] for line in capsys.readouterr().out.splitlines()]
    assert [place for place in found if place.startswith(f"{path}:")] == [
        f"{path}:{line}" for line in (1, 10, 14)
    ]


def test_clean_prose_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "stream.py"
    path.write_text('"""Feed a stream."""\n')
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == "0 findings; 0 sentences of over 25 words\n"
