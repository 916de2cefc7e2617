"""Open streams of an engine by id: look-up, ends and deadlines."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from streamingllm.engine.outputs import State, StepOutput
from streamingllm.engine.scheduler import Scheduler
from streamingllm.engine.stream import EngineStream
from streamingllm.errors import InputError
from streamingllm.finish_reason import FinishReason


class StreamTable:
    """Hold the open streams of an engine by id.

    Args:
        scheduler: runs them.
        clock: seconds that deadlines are measured with.
    """

    def __init__(self, scheduler: Scheduler, clock: Callable[[], float]) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._streams: dict[str, EngineStream] = {}

    @property
    def ids(self) -> list[str]:
        """Ids of all open streams, in the order they were opened."""
        return list(self._streams)

    def add(self, stream: EngineStream) -> str:
        """Enter a stream and return its id."""
        self._streams[stream.id] = stream
        return stream.id

    def get(self, stream_id: str, action: str = "", *states: State) -> EngineStream:
        """Return an open stream.

        Args:
            stream_id: its id.
            action: what needs one of `states`, for the error.
            states: in which the stream must be; any if none is given.

        Raises:
            InputError: this engine has no such stream, or it is in another state.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            raise InputError(
                f"stream_id={stream_id!r} is not open in this engine: it is of another engine, was "
                "closed, or failed; call open_stream"
            )
        if states and stream.state not in states:
            raise InputError(
                f"{action}: stream_id={stream_id} is {stream.state}; it must be "
                f"{' or '.join(states)}"
            )
        return stream

    def end(self, stream: EngineStream, reason: FinishReason) -> None:
        """End the text of a stream and of the other samples of its prompt."""
        for sample in (stream, *stream.samples):
            if sample.is_generating:
                self._scheduler.end(sample, reason)

    def close(self, stream: EngineStream, *, wipe: bool = False) -> None:
        """End a stream's text, free its slot and forget its id; see `Slot.close`."""
        self.end(stream, FinishReason.CANCELLED)
        self._scheduler.remove(stream, wipe=wipe)
        del self._streams[stream.id]
        self._scheduler.admit()

    def forget_failed(self, outputs: list[StepOutput]) -> None:
        """Forget the ids of streams that failed, once no sample of their prompt is left."""
        for output in outputs:
            stream = self._streams.get(output.stream_id)
            if output.finish_reason is None or stream is None or not stream.is_closed:
                continue
            if not any(sample.is_generating for sample in stream.samples):
                del self._streams[stream.id]

    def expire(self) -> None:
        """End the texts whose deadline has passed."""
        due = [(s, s.deadline) for s in self._generating() if s.deadline is not None]
        now = self._clock() if due else 0.0
        for stream, deadline in due:
            if deadline <= now:
                self._scheduler.end(stream, FinishReason.DEADLINE)

    @property
    def seconds_to_deadline(self) -> float | None:
        """Seconds until the next deadline, 0 if one has passed; None without any."""
        deadlines = [s.deadline for s in self._generating() if s.deadline is not None]
        return max(0.0, min(deadlines) - self._clock()) if deadlines else None

    def _generating(self) -> Iterator[EngineStream]:
        for stream in (*self._scheduler.running, *self._scheduler.waiting):
            if stream.is_generating:
                yield stream
