"""Complaints about the sessions of other servers, each by the issues that tell of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamingllm import LanguageModel, load_model
from tests.reference.tiny_chat import END, write_tiny_chat
from tests.sessions.managers import (
    assistant,
    chat_of_turns,
    end_of,
    managing,
    named,
    request,
    say,
    session_of,
    turn,
    user,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("damage", ["none", "truncated", "empty", "of another", "older"])
async def test_a_restore_is_verified_and_the_longest_valid_state_wins(
    tiny_chat: LanguageModel, tmp_path: Path, damage: str
) -> None:
    """llama.cpp#26676, #28276, #24746: a restore is empty; a short state hides a longer one."""
    async with managing(tiny_chat, tmp_path / "alone") as manager:
        expected = (await chat_of_turns(manager, "s", 8))[-1]
    folder = tmp_path / "chat" / "snapshots"
    older: bytes = b""
    for first, last in ((0, 4), (4, 7)):
        older = next((path.read_bytes() for path in folder.glob("*")), b"")
        async with managing(tiny_chat, tmp_path / "chat") as manager:
            for number in range(first, last):
                await say(manager, f"q{number}?", identity=named("s"))
            if last == 7:
                await say(manager, "other", identity=named("other"))
                seen = len((await session_of(manager, "s")).token_log)
    files = {path: path.read_bytes() for path in folder.glob("*")}
    assert len(files) == 2
    for path, content in files.items():
        changed = {
            "none": content,
            "truncated": content[: len(content) // 2],
            "empty": b"",
            "of another": next(other for p, other in files.items() if p != path),
            "older": older,
        }
        path.write_bytes(changed[damage])
    async with managing(tiny_chat, tmp_path / "chat") as manager:
        end = end_of(await turn(manager, request("q7?", identity=named("s"))))
        assert (await manager.get("", "s")).messages[-1].text == expected
        assert end.view.num_seen_tokens > seen
        moved = "disk->device" if damage == "none" else "tail->device"
        assert (await manager.stats()).moves[moved] == 1


async def test_bytes_are_reserved_before_they_are_used_and_all_are_counted(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    """llama.cpp#21690, ollama#18264: a cap is checked after the allocation."""
    caps = {"host": 130_000, "disk": 200_000}
    async with managing(
        tiny_chat, tmp_path, host_bytes=caps["host"], disk_bytes=caps["disk"]
    ) as manager:
        samples: list[tuple[int, int]] = []

        def sample() -> None:
            on_disk = sum(p.stat().st_size for p in (tmp_path / "snapshots").glob("*.safetensors"))
            samples.append((manager._residency.host_bytes, on_disk))

        for number in range(8):
            async for _ in manager.respond(request("q?", identity=named(f"s{number}"))):
                sample()
        assert all(host <= caps["host"] and disk <= caps["disk"] for host, disk in samples)
        assert max(host for host, _ in samples) > 0
        stats = await manager.stats()
        assert stats.num_bytes["host"] == manager._residency.host_bytes
        assert stats.num_bytes["disk"] == samples[-1][1] > 0
        assert stats.num_bytes["device"] > 0


async def test_thoughts_that_a_template_drops_stay_in_the_stream(
    tmp_path: Path,
) -> None:
    """Qwen3#1826, llama.cpp#22746: a history rendered again is no prefix of itself."""
    lm = load_model(write_tiny_chat(tmp_path / "model"), dtype="float64")
    lm.tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'][0] }}:"
        "{{ m['content'] if loop.last else m['content'].split('</think>')[-1] }}~{% endfor %}"
        "{% if add_generation_prompt %}a:{% endif %}"
    )
    thought = "<think>Hm.</think>Yes."
    history = [user("q0?"), assistant(thought), user("q1?")]
    async with managing(lm, tmp_path / "data") as manager:
        history.append(assistant(await say(manager, *history)))
        history.append(user("q2?"))
        events = await turn(manager, request(*history))
        assert end_of(events).usage.num_fed_tokens <= len(f"{END}u:q2?{END}a:") + 1
        assert len((await manager.list("")).sessions) == 1
        log = (await session_of(manager, end_of(events).view.session_id)).token_log
        text = lm.decode([*log])
        assert f"u:q0?a:{thought}u:q1?a:" in text  # the end marks are special
