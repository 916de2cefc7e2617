"""The messages of a session, each with the stream positions where it stands."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from streamingllm.errors import InputError
from streamingllm.sessions.shared_log import SharedLog
from streamingllm.sessions.turn_attempt import new_id

_TEXT = "text"


@dataclass(frozen=True)
class ContentPart:
    """One part of what a message says.

    Args:
        text: the text of the part.
        type: "text"; a model of text has no other.
    """

    text: str
    type: str = _TEXT

    def __post_init__(self) -> None:
        if self.type != _TEXT:
            raise InputError(f"type={self.type!r} of a content part is not 'text'; send text only")


@dataclass(frozen=True)
class ToolCall:
    """A call that an answer asks for.

    Args:
        id: by which the result names its call.
        name: of the function.
        arguments: JSON, as the model wrote it.
    """

    id: str
    name: str
    arguments: str


def new_message_id() -> str:
    """Return an id that no other message has."""
    return new_id("msg_")


@dataclass(frozen=True)
class Message:
    """Hold a message of one role, as it was sent.

    Args:
        role: any that the chat template knows, such as "system", "user", "assistant", "tool".
        parts: what was said.
        tool_calls: that an answer asks for.
        tool_call_id: the call that a tool's result belongs to.
        name: of the speaker or the tool, if it has one.
        id: tells messages of the same content apart.
        first: stream position of its first token, the marks around it included.
        stop: stream position after its last token.
        begins_turn: whether a turn begins with it.
    """

    role: str
    parts: tuple[ContentPart, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    id: str = field(default_factory=new_message_id)
    first: int = 0
    stop: int = 0
    begins_turn: bool = False

    @classmethod
    def of_text(cls, role: str, text: str) -> Message:
        """Return a message of one text."""
        return cls(role, (ContentPart(text),) if text else ())

    @property
    def text(self) -> str:
        """The texts of all parts, one a line."""
        return "\n".join(part.text for part in self.parts)

    def is_same_as_sent(self, other: Message) -> bool:
        """Tell whether both say the same, whatever their ids and their places in a stream."""
        return _as_sent(self) == _as_sent(other)


class Transcript:
    """Append messages, find them by stream position, fork in constant time.

    Messages stand one after the other in the stream. A turn is a message that begins it and all
    that follow until the next turn begins.
    """

    def __init__(self) -> None:
        self._messages: SharedLog[Message] = SharedLog(list)
        self._turn_starts: SharedLog[int] = SharedLog(list)

    def __len__(self) -> int:
        return len(self._messages)

    def __getitem__(self, number: int) -> Message:
        """Return a message; a negative number counts from the end."""
        return self._messages[number]

    def __iter__(self) -> Iterator[Message]:
        yield from self._messages.slice()

    @property
    def num_turns(self) -> int:
        """Turns so far."""
        return len(self._turn_starts)

    def append(self, message: Message) -> None:
        """Append a message that stands after the last one.

        Raises:
            InputError: its stream positions overlap those of the last message or run backwards.
        """
        before = self[-1].stop if len(self) else 0
        if not before <= message.first <= message.stop:
            raise InputError(
                f"first={message.first}, stop={message.stop} of a message overlap the positions "
                f"before {before}; append messages in the order of the stream"
            )
        if message.begins_turn:
            self._turn_starts.extend((len(self),))
        self._messages.extend((message,))

    def at(self, position: int) -> Message | None:
        """Return the message whose tokens include a stream position, by bisection."""
        number = bisect_right(self._messages, position, key=_first) - 1
        # Messages without tokens share their position with the one that follows.
        if number < 0 or not self[number].first <= position < self[number].stop:
            return None
        return self[number]

    def number_of(self, message_id: str) -> int | None:
        """Return the number of the message with an id, the last one first; None without one."""
        for number in range(len(self) - 1, -1, -1):
            if self[number].id == message_id:
                return number
        return None

    def first_message_from(self, position: int) -> int | None:
        """Return the number of the first message that stands at a stream position or after it.

        None if there is none; found by bisection.
        """
        number = bisect_left(self._messages, position, key=_first)
        return number if number < len(self) else None

    def turn(self, number: int) -> list[Message]:
        """Return the messages of turn 0, 1, ...; a negative number counts from the end."""
        at = number + self.num_turns if number < 0 else number
        start = self._turn_starts[at]
        is_last = at + 1 == self.num_turns
        return [*self._messages.slice(start, len(self) if is_last else self._turn_starts[at + 1])]

    def turn_start(self, number: int) -> int:
        """Return the number of messages before a turn."""
        return self._turn_starts[number]

    def num_turns_before(self, position: int) -> int:
        """Return how many turns end at a stream position or before it, by bisection."""

        def end_before(start: int) -> int:
            # Turns follow one another: one ends where the next begins.
            return self[start - 1].stop

        if self.num_turns == 0:
            return 0
        if self[-1].stop <= position:
            return self.num_turns
        return bisect_right(self._turn_starts, position, lo=1, key=end_before) - 1

    def truncate(self, num_messages: int) -> None:
        """Keep the first messages; transcripts that share them are not changed.

        Raises:
            InputError: there are fewer.
        """
        self._messages.truncate(num_messages)
        num_turns = bisect_right(self._turn_starts, num_messages - 1)
        self._turn_starts.truncate(num_turns)

    def fork(self) -> Transcript:
        """Return a transcript with the same past, in constant time."""
        other = Transcript()
        self._messages.share_with(other._messages)
        self._turn_starts.share_with(other._turn_starts)
        return other


def _as_sent(message: Message) -> tuple[object, ...]:
    return (
        message.role,
        message.text,
        message.tool_calls,
        message.tool_call_id,
        message.name,
    )


def _first(message: Message) -> int:
    return message.first
