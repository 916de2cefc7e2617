"""Complete lines of code over a whole package, read in the order of its imports.

The source of an installed package goes through one stream, module by module; what is imported comes
first. At some lines the model says how the line goes on: with the window alone, with a retrieval
alone (a fresh stream that reads what was found and the last lines), and with both.

Example: python examples/applications/repository.py --tokens 60000 --every 400
Source of the measures: Liu et al., RepoBench, ICLR 2024 (exact match, edit similarity).
"""

from __future__ import annotations

import ast
import importlib.util
import random
import tempfile
from collections import defaultdict
from difflib import SequenceMatcher
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from figures import mean, options, table

from streamingllm import Stream, StreamConfig, generate_text, load_model
from streamingllm.memory import Memory
from streamingllm.memory.passages import passages

PACKAGE = "jinja2"
LAST_LINES = 6  # that a search is made with, and that a retrieval alone reads
MIN_CHARACTERS = 16  # of a line to complete
BLOCK_LINES = 8  # of a message of the memory


def modules_of(package: str) -> list[tuple[str, str]]:
    """Return names and texts of a package's modules, what is imported before what imports it."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"package={package!r} is not installed; name another one")
    folder = Path(found.origin).parent
    texts = {f"{package}.{file.stem}": file.read_text() for file in sorted(folder.glob("*.py"))}
    needs = {name: imported(text, package) & texts.keys() - {name} for name, text in texts.items()}
    while True:
        try:
            return [(name, texts[name]) for name in TopologicalSorter(needs).static_order()]
        except CycleError as error:  # two modules that import each other: one of them comes first
            before, after = error.args[1][:2]
            needs[after].discard(before)


def imported(text: str, package: str) -> set[str]:
    """Return the modules of a package that a module imports when it is loaded."""
    names = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and node.level <= 1:
            module = node.module or ""
            names.add(f"{package}.{module}" if node.level else module)
    return names


def encoded(lm: Any, text: str) -> Any:
    """Return the tokens of code that goes on."""
    return lm.encode(
        text, add_special_tokens=False, parse_control_tokens=False, is_continuation=True
    )


class Reader:
    """Read lines into a stream and a memory, and complete a line on the side."""

    def __init__(self, lm: Any, memory: Memory, cache_size: int) -> None:
        self.lm, self.memory = lm, memory
        self.config = StreamConfig.with_cache_size(cache_size)
        self.budget = cache_size // 4
        self.stream = Stream(lm, self.config)
        self.stream.feed(encoded(lm, "# Source code in Python.\n"), logits="none")
        self.block: list[str] = []
        self.begun = self.stream.num_seen_tokens
        self.last: list[str] = []

    def read(self, line: str, module: str) -> None:
        """Read a line; blocks of some lines go to the memory."""
        if not self.block:
            self.begun = self.stream.num_seen_tokens
        self.stream.feed(encoded(self.lm, f"{line}\n"), logits="none")
        self.block.append(line)
        self.last = [*self.last, line][-LAST_LINES:]
        if len(self.block) == BLOCK_LINES:
            text = "\n".join(self.block)
            self.memory.append("code", "file", text, position=self.begun, source=module)
            self.block = []

    def completed(self, told: str, arm: str) -> str:
        """Return how a line goes on after its beginning."""
        found = ""
        if arm != "window":
            first = max(0, self.stream.num_seen_tokens - self.config.window_size)
            visible = range(first, 1 << 62) if arm == "both" else ()
            query = "\n".join([*self.last, told])
            best = passages(self.memory.search("code", query, self.budget, visible))
            found = "".join(f"# {piece.source}\n{piece.text}\n\n" for piece in best)
        if arm == "retrieval":
            stream = Stream(self.lm, self.config)
            found = f"# Source code in Python.\n{found}"
        else:
            stream = self.stream.fork()
        again = "\n".join([*self.last, told]) if found else told
        stream.feed(encoded(self.lm, found + again), logits="none")
        return "".join(generate_text(stream, self.lm, 32, stop_strings=["\n"]))


def main() -> None:
    """Read a package, complete lines, print the figures."""
    settings = options("Complete code.", tokens=5000, skip=1500, every=350, cache_size=512, seed=0)
    lm = load_model(settings.model, quantize=settings.quantize)
    chosen, found, due = random.Random(settings.seed), defaultdict(list), settings.skip
    arms = ("window", "retrieval", "both")
    with tempfile.TemporaryDirectory() as folder, Memory(Path(folder) / "memory.db") as memory:
        reader = Reader(lm, memory, settings.cache_size)
        lines = [
            (line, module) for module, text in modules_of(PACKAGE) for line in text.splitlines()
        ]
        for line, module in lines:
            if reader.stream.num_seen_tokens > settings.tokens:
                break
            code = line.strip()
            if reader.stream.num_seen_tokens >= due and len(code) >= MIN_CHARACTERS:
                due += settings.every
                cut = len(line) - len(code) + chosen.randrange(4, len(code) // 2)
                for arm in arms:
                    said = reader.completed(line[:cut], arm)
                    found[arm, "exact match"].append(float(said.strip() == line[cut:].strip()))
                    alike = SequenceMatcher(None, said.strip(), line[cut:].strip()).ratio()
                    found[arm, "edit similarity"].append(alike)
            reader.read(line, module)
        rows = {
            arm: {name: mean(found[arm, name]) for name in ("exact match", "edit similarity")}
            for arm in arms
        }
        print(f"{PACKAGE}: {reader.stream.num_seen_tokens} tokens of code read")
        print(table(f"{len(found[arms[0], 'exact match'])} lines completed", rows))


if __name__ == "__main__":
    main()
