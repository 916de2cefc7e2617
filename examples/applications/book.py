"""Read a book, and answer questions about any chapter of it.

With `--data` that has Moby-Dick, the book is read and questions written here are asked. Without,
Python's own reference. In both cases sentences from each chapter are quoted by their beginning, and
the model says how they go on.

Example: python examples/applications/book.py --chapters 12 --cache-size 1024
"""

from __future__ import annotations

import random
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

from figures import mean, options, table, words

from streamingllm import load_model
from streamingllm.memory import Listener, Memory

HEADING = re.compile(r"^CHAPTER (\d+)\.? *(.*)$", re.MULTILINE)
QUESTIONS = {  # by chapter of Moby-Dick: a question, and a word of its answer
    1: ("In whose name does the teller of the story ask to be called?", "Ishmael"),
    2: ("The sign of which inn did he pass first, The Crossed what?", "Harpoons"),
    3: ("What is the surname of Peter, the landlord of the Spouter Inn?", "Coffin"),
    4: ("Whose arm was thrown over him when he woke at daylight?", "Queequeg"),
    9: ("Which prophet is the sermon of Father Mapple about?", "Jonah"),
    10: ("What did Queequeg and he smoke together by the fire?", "pipe"),
    14: ("Which island is all beach, without a background?", "Nantucket"),
}
MIN_WORDS, MAX_WORDS = 14, 40  # of a sentence that is quoted
WORDS_TOLD = 8  # of its beginning


def chapters_of(data: Path, count: int, characters: int) -> Iterator[tuple[int, str, str]]:
    """Yield number, title and text of the first chapters; of each only some characters, if told."""
    file = data / "moby-dick.txt"
    if file.is_file():
        text = file.read_text()
        marks = [*HEADING.finditer(text)]
        stops = [*(mark.start() for mark in marks[1:]), len(text)]
        parts = [
            (int(mark[1]), mark[2], text[mark.end() : stop])
            for mark, stop in zip(marks, stops, strict=True)
        ]
    else:
        parts = [(n, *item) for n, item in enumerate(topics.items(), start=1) if len(item[1]) > 900]
    for number, title, text in parts[:count]:
        yield number, title, text[: characters or None]


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a text, each in one line."""
    found = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return [part for part in found if part]


def quotes_of(text: str, count: int, chosen: random.Random) -> list[tuple[str, str]]:
    """Return beginnings of sentences, and how they go on."""
    found = []
    for sentence in re.split(r"(?<=[.!?]) +", " ".join(paragraphs(text))):
        said = sentence.split()
        if MIN_WORDS <= len(said) <= MAX_WORDS:
            found.append((" ".join(said[:WORDS_TOLD]), " ".join(said[WORDS_TOLD:])))
    return chosen.sample(found, min(count, len(found)))


def figures(
    listener: Listener, quotes: list[tuple[str, str]], asked_here: list[int], *, recalls: bool
) -> dict[str, float]:
    """Ask for quotes and about chapters; return how well that goes."""
    found = defaultdict(list)
    for told, rest in quotes:
        question = f'Quote the whole sentence that begins: "{told}"'
        asked = listener.ask(question, recalls=recalls)
        nats = asked.nats_per_token(f'"{told} {rest}"')
        found["nats per token of a quoted sentence"].append(nats)
        in_view = any(told in piece.text for piece in asked.recalled)
        found["quoted sentences recalled"].append(float(in_view))
        said = "".join(listener.ask(question, recalls=recalls).answer(48))
        found["quotes that go on with the right 5 words"].append(
            float(" ".join(words(rest)[:5]) in " ".join(words(said)))
        )
    for number in asked_here:
        question, answer = QUESTIONS[number]
        said = "".join(listener.ask(question, recalls=recalls).answer(32))
        found["questions about chapters answered"].append(float(answer.lower() in words(said)))
    return {name: mean(values) for name, values in found.items()}


def main() -> None:
    """Read chapters, print the figures and some answers."""
    sizes = {"chapters": 4, "characters": 3000, "quotes": 2, "cache_size": 512}
    chosen = options("Read a book.", recall_percent=40, seed=0, **sizes)
    lm = load_model(chosen.model, quantize=chosen.quantize)
    generator = random.Random(chosen.seed)
    is_book = (chosen.data / "moby-dick.txt").is_file()
    with tempfile.TemporaryDirectory() as folder, Memory(Path(folder) / "memory.db") as memory:
        size, share = chosen.cache_size, chosen.recall_percent / 100
        listener = Listener(
            lm, memory, "book", opening="A book:", cache_size=size, recall_share=share
        )
        quotes, asked, num_chapters = [], [], 0
        for number, title, text in chapters_of(chosen.data, chosen.chapters, chosen.characters):
            listener.hear(f"Chapter {number}. {title}")
            for paragraph in paragraphs(text):
                listener.hear(paragraph, source=f"chapter {number}")
            quotes += quotes_of(text, chosen.quotes, generator)
            num_chapters += 1
            if is_book and number in QUESTIONS and QUESTIONS[number][1] in text:
                asked.append(number)
        stream = listener.stream
        print(f"{num_chapters} chapters, {stream.num_seen_tokens} tokens read")
        print(f"{stream.num_cached_tokens} tokens are visible")
        arms = {"window": False, "with memory": True}
        rows = {
            arm: figures(listener, quotes, asked, recalls=recalls) for arm, recalls in arms.items()
        }
        print(table(f"{len(quotes)} quotes, {len(asked)} questions", rows))
        for number in asked:
            answer = listener.ask(QUESTIONS[number][0])
            where = {piece.source for piece in answer.recalled}
            print(f"- {QUESTIONS[number][0]} {''.join(answer.answer(32)).strip()} {sorted(where)}")


if __name__ == "__main__":
    main()
