from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamingllm.errors import ConfigError, InputError
from streamingllm.memory import Memory, MemorySettings, Recalled
from streamingllm.memory.passages import passages
from streamingllm.sessions.sqlite_store import SqliteStore

BIRTHDAY = datetime(2024, 5, 8, 13, 0, tzinfo=UTC)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    with Memory(tmp_path / "memory.db", count_tokens=lambda text: len(text.split())) as memory:
        yield memory


def ids(found: list[Recalled]) -> list[str]:
    return [piece.message_id for piece in found]


def fill(memory: Memory, num_messages: int, session: str = "s") -> None:
    with memory.transaction():
        for number in range(num_messages):
            memory.append(session, "user", f"we spoke about the weather of place {number}")


def test_a_message_is_found_by_its_words_its_date_and_its_speaker(memory: Memory) -> None:
    fill(memory, 20)
    facts = {"speaker": "Ada", "time": BIRTHDAY, "position": 700, "source": "chat", "mood": "calm"}
    told = memory.append("s", "user", "My hamsters are called Napoleon and Josephine.", **facts)
    fill(memory, 20, "other")
    for query in ("a hamster?", "what did Ada say", "who was called that in May 2024", "JOSEPHINE"):
        first = memory.search("s", query)[0]
        assert (first.message_id, first.position, first.role) == (told, 700, "user"), query
    assert first.text == "My hamsters are called Napoleon and Josephine."
    assert (first.speaker, first.seconds, first.source) == ("Ada", BIRTHDAY.timestamp(), "chat")
    assert first.facts == {"mood": "calm"}
    assert first.score > 0
    assert memory.search("other", "hamster") == []
    assert memory.search("nobody", "hamster") == []


def test_stop_words_find_nothing(memory: Memory) -> None:
    memory.append("s", "user", "It is what it is, and that is it.", time=0.0)
    assert memory.search("s", "is that what it is") == []


def test_neighbours_come_with_a_message(memory: Memory) -> None:
    fill(memory, 30)
    question = memory.append("s", "user", "Where did you go on Sunday?")
    answer = memory.append("s", "assistant", "To Lisbon.")
    fill(memory, 30)
    assert {question, answer} <= set(ids(memory.search("s", "Lisbon", 40)))
    assert ids(memory.search("s", "Lisbon", 2)) == [answer]


@given(budget=st.integers(0, 60))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_budget_is_kept_and_used(memory: Memory, budget: int) -> None:
    if not memory.messages("s"):
        fill(memory, 40)
    found = memory.search("s", "weather", budget)
    num_tokens = sum(len(piece.text.split()) for piece in found)
    assert budget - 8 < num_tokens <= budget
    assert len({piece.number for piece in found}) == len(found)


def test_a_long_piece_does_not_hide_short_ones(memory: Memory) -> None:
    memory.append("s", "user", "lighthouse " * 70)
    short = memory.append("s", "user", "a lighthouse")
    assert ids(memory.search("s", "lighthouse", 5)) == [short]


def test_visible_messages_are_left_out(memory: Memory) -> None:
    for position in range(0, 100, 10):
        memory.append("s", "user", "a lighthouse", position=position, message_id=f"m{position}")
    found = memory.search("s", "lighthouse", exclude_positions=range(30, 1000))
    assert sorted(ids(found)) == ["m0", "m10", "m20"]
    found = memory.search("s", "lighthouse", exclude_positions={0, 20, *range(50, 100)})
    assert sorted(ids(found)) == ["m10", "m30", "m40"]


def test_a_rare_word_is_found_wherever_it_stands(tmp_path: Path) -> None:
    bounds = MemorySettings(max_postings=64, max_windows=4)
    with Memory(tmp_path / "memory.db", bounds) as memory:
        fill(memory, 300)
        told = memory.append("s", "user", "the weather in Lisbon")
        other = memory.append("s", "user", "nothing but Lisbon")
        fill(memory, 300)
        assert ids(memory.search("s", "the weather in Lisbon", 20))[:2] == [told, other]
        assert memory.search("s", "weather", 20)[0].number > 500  # too many: the newest are read


def test_a_long_message_is_found_in_pieces(memory: Memory) -> None:
    long = " ".join(f"Sentence {number} is about nothing much." for number in range(400))
    told = memory.append("s", "user", long + " The treasure lies under the oak. " + long)
    first = memory.search("s", "where is the treasure under an oak?", 200)[0]
    assert first.message_id == told
    assert "treasure lies under the oak" in first.text
    assert len(first.text) <= 400
    whole = "".join(piece.text for piece in memory.messages("s"))
    assert whole == long + " The treasure lies under the oak. " + long
    assert memory.forget("s", [told]) == 1
    assert memory.messages("s") == []


@given(
    query=st.text() | st.sampled_from(['"', "a OR b", "NEAR(a b)", "x:y", "-a", "*", "^", "AND"])
)
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_query_is_syntax(memory: Memory, query: str) -> None:
    if not memory.messages("s"):
        memory.append("s", "user", "a lighthouse OR a near x y", time=0.0)
    memory.search("s", query)
    assert len(memory.search("s", f"{query} lighthouse")) == 1
    assert memory.unknown_words("s", f"{query} crocodile")[-1:] == ["crocodil"]


@given(text=st.text(), role=st.text(), speaker=st.text(), session=st.text())
@settings(max_examples=100, deadline=None)
def test_every_text_is_kept(text: str, role: str, speaker: str, session: str) -> None:
    with Memory(":memory:") as memory:
        memory.append(session, role, text, speaker=speaker)
        (piece,) = memory.messages(session)
        assert (piece.text, piece.role, piece.speaker) == (text, role, speaker)


def test_half_a_surrogate_pair_becomes_a_question_mark(memory: Memory) -> None:
    memory.append("s", "user", "a \ud83d lighthouse")
    assert memory.search("s", "\ud83d lighthouse")[0].text == "a ? lighthouse"


def grep(folder: Path, word: str) -> bool:
    done = subprocess.run(["grep", "-rqai", word, str(folder)], check=False)
    assert done.returncode in (0, 1)
    return done.returncode == 0


def test_what_is_forgotten_is_in_no_file(memory: Memory, tmp_path: Path) -> None:
    fill(memory, 300)
    secret = "My passphrase is Xylophone Quagmire, born of Zanzibar."
    told = memory.append("s", "user", secret, speaker="Wolfgang")
    again = memory.append("s", "user", "A xylophone is an instrument.")
    fill(memory, 300)
    assert grep(tmp_path, "quagmire")
    assert memory.forget("s", [told, "unknown"]) == 1
    for word in ("quagmire", "zanzibar", "wolfgang", "passphras", told):
        assert not grep(tmp_path, word), word
    assert ids(memory.search("s", "xylophone", 5)) == [again]
    assert memory.unknown_words("s", "Quagmire xylophone") == ["quagmir"]
    memory.forget_session("s")
    for word in ("xylophon", "weather"):
        assert not grep(tmp_path, word), word


def test_a_forgotten_message_gives_its_id_and_its_words_back(memory: Memory) -> None:
    memory.append("s", "user", "a lighthouse", message_id="m")
    with pytest.raises(InputError, match="message_id='m' is in session_id='s' already"):
        memory.append("s", "user", "a castle", message_id="m")
    memory.append("other", "user", "a castle", message_id="m")
    assert memory.forget("s", ["m"]) == 1
    assert memory.forget("s", ["m"]) == 0
    assert memory.forget("nobody", ["m"]) == 0
    memory.append("s", "user", "a castle", message_id="m")
    assert ids(memory.search("s", "castle")) == ["m"]
    assert memory.search("s", "lighthouse") == []


def test_a_memory_shares_the_file_of_a_session_store(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with SqliteStore(path) as store:
        store.create("a")
        with Memory(store.database) as memory:
            memory.append("a", "user", "a lighthouse")
        with Memory(path) as memory:
            assert len(memory.search("a", "lighthouse")) == 1
        assert store.count() == 1


def test_a_failed_transaction_leaves_nothing(memory: Memory) -> None:
    with pytest.raises(RuntimeError, match="stop"), memory.transaction():
        memory.append("s", "user", "a lighthouse")
        raise RuntimeError("stop")
    assert memory.search("s", "lighthouse") == []


def test_threads_append_and_search(memory: Memory) -> None:
    def work(name: str) -> None:
        for number in range(20):
            memory.append("s", "user", f"{name} lighthouse {number}")
            assert memory.search("s", name, 1000)

    threads = [threading.Thread(target=work, args=(f"name{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(memory.messages("s")) == 80
    assert [piece.number for piece in memory.messages("s", 3)] == [77, 78, 79]


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"position": 1.5}, "position=1.5 is no integer"),
        ({"time": "noon"}, "time='noon' is no time"),
        ({"speaker": 3}, "speaker=3 is no text"),
        ({"mood": object()}, "is no JSON"),
    ],
)
def test_wrong_meta_is_refused(memory: Memory, meta: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        memory.append("s", "user", "text", **meta)
    with pytest.raises(InputError, match="budget_tokens=-1 is negative"):
        memory.search("s", "text", -1)


@pytest.mark.parametrize(
    ("field", "value"),
    [("window_pieces", 0), ("stride_pieces", 5), ("b", 1.5), ("k1", -1.0), ("max_postings", 1)],
)
def test_settings_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{field}={value}"):
        MemorySettings(**{field: value})


def test_a_question_that_is_asked_again_does_not_hide_what_answers_it(tmp_path: Path) -> None:
    told = (
        "My hamster is called Napoleon.",
        "Hello! It's great to meet you today, how",
        "Tell me in one sentence about the number 1.",
        "1 is a unique number that has no positive integer counterpart.",
        "What is the name of my hamster?",
        "The name of your hamster is a friendly and curious ham",
    )
    with Memory(tmp_path / "memory.db") as memory:
        for text in told:
            memory.append("ada", "user", text)
        found = passages(memory.search("ada", told[4], 200))
    assert told[0] in [piece.text for piece in found]
