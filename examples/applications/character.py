"""Play a character for thousands of turns: the persona is pinned, facts are recalled.

The characters are LIGHT's, from `--data`, or one made here. A guest tells a fact now and then and
talks about other things between; later each fact is asked for. Whether the character is still
itself is measured by likelihood: its own persona against others, as an answer to "Who are you?".

Example: python examples/applications/character.py --turns 2000 --cache-size 1024
Source: Urbanek et al., Learning to Speak and Act in a Fantasy Text Adventure Game, EMNLP 2019.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from figures import mean, options, table

from streamingllm import load_model
from streamingllm.memory import Listener, Memory

FACTS = {  # of the guest: what is told, and what is asked later
    "horse": ("My horse is called {}.", "What is my horse called?"),
    "sister": ("My sister {} is a baker.", "What is the name of my sister?"),
    "village": ("I grew up in the village of {}.", "In which village did I grow up?"),
    "song": ("The song that I like best is {}.", "Which song do I like best?"),
    "ship": ("I came here on a ship named {}.", "What was the name of my ship?"),
}
NAMES = ("Bramble", "Odalys", "Thornmere", "Greywater", "Marigold", "Fenwick", "Isolde", "Larkspur")
SMALL_TALK = (
    "The rain has not stopped since the morning.",
    "Somebody left a lantern burning at the gate.",
    "Bread costs more than it did a year ago.",
    "The road to the coast is muddy and slow.",
    "I hear music from the other side of the square.",
)
OTHERS = 4  # other characters that the persona is compared with
MADE = {
    "keeper": "I am the keeper of the lighthouse. I trust the sea and not the people.",
    "smith": "I am a smith. I make swords for the king and I fear nothing but rust.",
    "nun": "I am a nun of the hill. I pray at night and I tend to the bees.",
    "thief": "I am a thief. I steal from the rich and I sleep on the roofs.",
    "cook": "I am the cook of the castle. I love butter and I hate the steward.",
}


def personas(data: Path) -> dict[str, str]:
    """Return personas by name."""
    file = data / "npc-personas.json"
    if not file.is_file():
        return MADE
    return {one["name"]: one["persona"] for one in json.loads(file.read_text())}


def talk(scene: Listener, num_turns: int, num_facts: int, chosen: random.Random) -> dict[str, str]:
    """Talk with a guest; return what each question is answered by."""
    kinds, names = chosen.sample([*FACTS], num_facts), chosen.sample(NAMES, num_facts)
    told = dict(zip(kinds, names, strict=True))
    moments = {n * num_turns // (2 * num_facts): kind for n, kind in enumerate(told)}
    for number in range(num_turns):
        said = f"{chosen.choice(SMALL_TALK)} That was on day {number}."
        if number in moments:
            kind = moments[number]
            said = FACTS[kind][0].format(told[kind])
        scene.hear(said, speaker="Guest")
    return {FACTS[kind][1]: name for kind, name in told.items()}


def is_itself(scene: Listener, own: str, others: list[str], *, recalls: bool) -> float:
    """Return 1 if the own persona is the likeliest answer."""
    nats = [
        scene.ask("Guest: Who are you?", recalls=recalls).nats_per_token(persona)
        for persona in (own, *others)
    ]
    return float(min(nats) == nats[0])


def play(
    lm: Any, name: str, known: dict[str, str], settings: Any, *, is_pinned: bool, recalls: bool
) -> dict[str, list[float]]:
    """Play one character, and return its figures."""
    chosen = random.Random(f"{settings.seed} {name}")
    prompt = f"You are {name}. {known[name]} Stay in your role. Answer in one short sentence."
    found: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, Memory(Path(folder) / "memory.db") as memory:
        scene = Listener(
            lm,
            memory,
            "scene",
            system_prompt=prompt if is_pinned else "",
            cache_size=settings.cache_size,
        )
        if not is_pinned:
            scene.hear(prompt, speaker="Director")
        answers = talk(scene, settings.turns, settings.facts, chosen)
        others = [known[other] for other in chosen.sample([*known], OTHERS) if other != name]
        found["characters that are still themselves"].append(
            is_itself(scene, known[name], others, recalls=recalls)
        )
        for question, name_told in answers.items():
            said = "".join(scene.ask(f"Guest: {question}", recalls=recalls).answer(24))
            found["facts of the guest recalled"].append(float(name_told in said))
        found["tokens seen"].append(float(scene.stream.num_seen_tokens))
        found["tokens visible"].append(float(scene.stream.num_cached_tokens))
    return found


def main() -> None:
    """Play some characters in three ways."""
    settings = options("Play a character.", characters=2, turns=60, facts=3, cache_size=384, seed=0)
    lm = load_model(settings.model, quantize=settings.quantize)
    known = personas(settings.data)
    names = random.Random(settings.seed).sample([*known], settings.characters)
    arms = {"window": (False, False), "pinned": (True, False), "pinned, memory": (True, True)}
    rows = {}
    for arm, (is_pinned, recalls) in arms.items():
        found = defaultdict(list)
        for name in names:
            figures = play(lm, name, known, settings, is_pinned=is_pinned, recalls=recalls)
            for measure, values in figures.items():
                found[measure] += values
        rows[arm] = {measure: mean(values) for measure, values in found.items()}
    print(table(f"{len(names)} characters, {settings.turns} turns", rows))


if __name__ == "__main__":
    main()
