"""Run a support desk: rules too long to pin are documents, and past chats are the memory.

The rules (ABCD's guidelines, about 16,000 tokens) stand in the memory and are never fed as a whole.
A customer comes back after many other lines, and asks about the chat before. Without `--data`, some
rules and chats made here.

Example: python examples/applications/support_desk.py --turns 150 --cache-size 1024
Source: Chen et al., Action-Based Conversations Dataset, NAACL 2021.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import mean, options, table

from streamingllm import load_model
from streamingllm.memory import Listener, Memory

SYSTEM = "You work at a support desk. Follow the rules of the desk."


@dataclass
class Chat:
    """A chat as (speaker, text), the rule that it falls under, and facts about the customer."""

    rule: str
    lines: list[tuple[str, str]]
    facts: Mapping[str, str]


def rules_of(file: Path) -> dict[str, str]:
    """Return the text of each rule by its name."""
    flows, found = json.loads(file.read_text()).values(), {}
    for name, rule in (item for flow in flows for item in flow["subflows"].items()):
        lines = [f"Rule: {name}.", *rule["instructions"]]
        for action in rule["actions"]:
            lines += [action["text"], *action["subtext"]]
        found[name] = "\n".join(lines)
    return found


def desk_of(folder: Path) -> tuple[dict[str, str], list[Chat]]:
    """Return ABCD's rules and chats; the rule of a chat is that with the name most like it."""
    rules, chats = rules_of(folder / "guidelines.json"), []
    for record in json.loads((folder / "abcd_sample.json").read_text()):
        scenario = record["scenario"]
        known = {**scenario["personal"], **scenario["order"]}
        said = " ".join(text for _, text in record["original"])
        names = known.keys() & {"username", "order_id", "email", "phone"}
        facts = {name: known[name] for name in sorted(names) if known[name] in said}
        asked = set(scenario["subflow"].split("_"))
        rule = max(rules, key=lambda name: len(asked & set(name.lower().split())))
        lines = [(who, text) for who, text in record["original"] if who != "action"]
        chats.append(Chat(rule, lines, facts))
    return rules, chats


def made_desk() -> tuple[dict[str, str], list[Chat]]:
    """Return rules and chats made here."""
    subjects = ("refund", "password", "delivery", "subscription", "invoice", "warranty", "voucher")
    rules = {
        name: f"Rule: {name}.\nFor each {name} ask for the number of the {name} form, {n} digits."
        for n, name in enumerate(subjects, start=4)
    }
    chats = []
    for number, subject in enumerate(subjects[:3]):
        user = f"user{number}x{number + 7}"
        lines = [
            ("customer", f"I need help with my {subject}, please."),
            ("agent", f"Please tell me the number of the {subject} form and your username."),
            ("customer", f"My username is {user}."),
            ("agent", "Thank you, one moment please."),
        ]
        chats.append(Chat(subject, lines, {"username": user}))
    return rules, chats


def serve(desk: Listener, chat: Chat, *, recalls: bool) -> dict[str, list[float]]:
    """Play a chat, and score what the desk would have said in the place of the agent."""
    found, last, rules_seen = defaultdict(list), "", False
    for who, text in chat.lines:
        if who == "agent" and last:
            asked = desk.ask(last, recalls=recalls)
            rules_seen |= any(piece.facts.get("rule") == chat.rule for piece in asked.recalled)
            found["nats per token of the agent's words"].append(asked.nats_per_token(text))
        desk.hear(text, speaker=who)
        last = text if who == "customer" else last
    found["chats with the right rule in view"].append(float(rules_seen))
    return found


def ask_back(desk: Listener, facts: Mapping[str, str], *, recalls: bool) -> dict[str, list[float]]:
    """Ask what the customer told in the chat before: is it in view, and does the desk say it?"""
    found = defaultdict(list)
    visible = [m.text for m in desk.memory.messages("customer") if m.position >= desk.first_visible]
    for name, value in facts.items():
        asked = desk.ask(f"What is my {name.replace('_', ' ')}?", recalls=recalls)
        in_view = " ".join([*visible, *(piece.text for piece in asked.recalled)])
        found["facts of the chat before in view"].append(float(value in in_view))
        told = "".join(asked.answer(24)).lower()
        found["the same, told again"].append(float(value.lower() in told))
    return found


def run(lm: Any, rules: Mapping[str, str], chat: Chat, chosen: Any, *, recalls: bool) -> Any:
    """Return the figures of one customer."""
    with tempfile.TemporaryDirectory() as folder, Memory(Path(folder) / "memory.db") as memory:
        with memory.transaction():
            for name, text in rules.items():
                memory.append("rules", "document", text, source="guidelines", rule=name)
        settings = {"cache_size": chosen.cache_size, "recall_share": 0.4}
        desk = Listener(
            lm, memory, "customer", system_prompt=SYSTEM, documents=["rules"], **settings
        )
        found = serve(desk, chat, recalls=recalls)
        for number in range(chosen.turns):  # other matters pass over the desk
            desk.hear(f"Parcel {number} went to shelf {number % 9}.", speaker="stock")
        return found | ask_back(desk, chat.facts, recalls=recalls)


def main() -> None:
    """Serve each customer with and without the memory."""
    chosen = options("Run a support desk.", turns=60, cache_size=512, chats=3)
    lm = load_model(chosen.model, quantize=chosen.quantize)
    folder = chosen.data / "abcd"
    rules, chats = desk_of(folder) if folder.is_dir() else made_desk()
    length = len(lm.encode("\n".join(rules.values())))
    print(f"{len(rules)} rules of {length} tokens; {chosen.cache_size} are visible at once")
    rows = {}
    for arm, recalls in {"window": False, "with memory": True}.items():
        found = defaultdict(list)
        for chat in chats[: chosen.chats]:
            for name, values in run(lm, rules, chat, chosen, recalls=recalls).items():
                found[name] += values
        rows[arm] = {name: mean(values) for name, values in found.items()}
    print(table(f"{len(chats[: chosen.chats])} customers", rows))


if __name__ == "__main__":
    main()
