"""Share what all applications need: options, data, measures of an answer, and a table."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

DATA = Path(__file__).parents[3] / "shared" / "data"


def options(description: str, **defaults: int) -> argparse.Namespace:
    """Read the options of an application: the model, the data, and some numbers."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="name or folder")
    parser.add_argument("--quantize", default="int4", help="weights: none, int8 or int4")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    return parser.parse_args()


def words(text: str) -> list[str]:
    """Return the words of a text in lower case."""
    return re.findall(r"[^\W_]+", text.lower())


def token_f1(answer: str, reference: str) -> float:
    """Return the harmonic mean of precision and recall of an answer's words.

    Source: Rajpurkar et al., SQuAD, EMNLP 2016, section 6.1.
    """
    said, wanted = Counter(words(answer)), Counter(words(reference))
    num_common = (said & wanted).total()
    return 2 * num_common / (said.total() + wanted.total()) if num_common else 0.0


def mean(values: Sequence[float]) -> float:
    """Return the mean of some values; 0 for none."""
    return sum(values) / len(values) if values else 0.0


def table(title: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """Return figures by arm, one line for each figure."""
    arms, names = list(rows), dict.fromkeys(name for row in rows.values() for name in row)
    lines = [f"{title:<44}" + "".join(f"{arm:>18}" for arm in arms)]
    for name in names:
        cells = (f"{rows[arm][name]:.3f}" if name in rows[arm] else "" for arm in arms)
        lines.append(f"{name:<44}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)
