"""An engine for event loops: one thread steps it, coroutines command it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TypeVar

from streamingllm.checks import check_integer
from streamingllm.engine.engine import Engine
from streamingllm.engine.output_buffer import OutputBuffer
from streamingllm.engine.outputs import EngineStats, StepOutput, Usage
from streamingllm.engine.step_thread import StepThread
from streamingllm.engine.stream_state import StreamState
from streamingllm.errors import InputError
from streamingllm.integration.lora import LoraAdapter
from streamingllm.stream.sampling import GREEDY, SamplingParams

T = TypeVar("T")


class AsyncEngine:
    """Run an engine in a thread of its own, for any number of event loops and threads.

    Prompts are tokenised, and grammars compiled, in the caller's thread pool; commands apply
    between two steps. A reader that is slow stops its own stream only.

    Args:
        engine: nothing else may call it from here on; `close` closes it.
        max_buffered_outputs: step outputs of a stream that a reader may leave untaken before its
            stream is held.

    Raises:
        ConfigError: `max_buffered_outputs` is no integer >= 1.
    """

    def __init__(self, engine: Engine, *, max_buffered_outputs: int = 64) -> None:
        check_integer("max_buffered_outputs", max_buffered_outputs, 1)
        self._engine = engine
        self._max_buffered_outputs = max_buffered_outputs
        self._buffers: dict[str, OutputBuffer] = {}  # of the step thread
        self._thread = StepThread(engine, self._deliver)

    async def generate(
        self,
        stream_id: str,
        prompt: str | Sequence[int],
        params: SamplingParams = GREEDY,
        *,
        deadline: float | None = None,
        forced_ids: Sequence[int] = (),
    ) -> AsyncGenerator[StepOutput, None]:
        """Let a stream read a prompt and generate; closing the iterator aborts.

        Args:
            stream_id: a stream that generates nothing now.
            prompt: text without special tokens at its beginning, or token ids; empty to continue
                where the stream stands.
            params: sampling parameters.
            deadline: seconds from now after which the text ends.
            forced_ids: token ids with which the first sample begins, whatever is probable.

        Yields:
            outputs of each step, up to the one with a `finish_reason`; for `params.n` samples, up
            to the last of theirs.

        Raises:
            CapacityError: `params.n` samples cannot wait.
            InputError: see `Engine.submit`.
        """
        inputs, is_beginning = self._engine.inputs, False
        if isinstance(prompt, str):
            is_beginning = not await self._call(partial(self._engine.num_tokens, stream_id))
        ids = await asyncio.to_thread(inputs.encode, prompt, is_beginning=is_beginning)
        generations = await asyncio.to_thread(inputs.generations, params, forced_ids)
        submit = partial(
            self._engine.submit_prepared, stream_id, ids, generations, deadline=deadline
        )
        async with contextlib.aclosing(self._outputs(stream_id, submit, params.n)) as outputs:
            async for output in outputs:
                yield output

    async def check(self, params: SamplingParams, token_ids: Sequence[int] = ()) -> None:
        """Refuse what `generate` would refuse, before anything is fed.

        Args:
            params: of the generation.
            token_ids: to feed.

        Raises:
            InputError: the grammar is wrong, or a token id is out of the vocabulary.
            UnsupportedFeatureError: grammars are not available here.
        """
        self._engine.inputs.check_ids("token_ids", token_ids)
        if params.grammar is not None or params.logit_bias or params.stop_token_ids:
            await asyncio.to_thread(self._engine.inputs.generations, replace(params, n=1))

    async def continue_text(self, stream_id: str) -> AsyncGenerator[StepOutput, None]:
        """Let a text go on that was forked, or exported and opened again, before it ended.

        Yields:
            outputs of each step, up to the one with a `finish_reason`.

        Raises:
            InputError: the stream generates nothing.
        """
        resume = partial(self._engine.resume, stream_id)
        async with contextlib.aclosing(self._outputs(stream_id, resume, 1)) as outputs:
            async for output in outputs:
                yield output

    async def open_stream(
        self,
        *,
        pinned: Sequence[int] = (),
        state: StreamState | None = None,
        priority: int = 0,
        adapter: LoraAdapter | None = None,
    ) -> str:
        """Open a stream and return its id; see `Engine.open_stream`.

        A text of `state` that has not ended is paused until `continue_text`.
        """
        inputs = self._engine.inputs
        ids = await asyncio.to_thread(inputs.check_ids, "pinned", pinned)
        facts = None if state is None else state.generation
        generation = await asyncio.to_thread(inputs.restored, facts)
        open_stream = partial(self._engine.open_prepared, ids, state, priority, generation, adapter)
        return await self._call(partial(self._paused, open_stream), undo=self._discard)

    async def fork(self, stream_id: str) -> str:
        """Open a copy of a stream and return its id; its text is paused until `continue_text`."""
        fork = partial(self._engine.fork, stream_id)
        return await self._call(partial(self._paused, fork), undo=self._discard)

    async def rewind(self, stream_id: str, num_tokens: int) -> None:
        """Take back the last tokens of an idle stream; see `Engine.rewind`."""
        await self._call(partial(self._engine.rewind, stream_id, num_tokens))

    async def mark_turn(self, stream_id: str, num_tokens_ahead: int = 0) -> None:
        """Start a turn with the next token submitted, or a later one; see `Engine.mark_turn`."""
        await self._call(partial(self._engine.mark_turn, stream_id, num_tokens_ahead))

    async def abort(self, stream_id: str) -> None:
        """End a stream's text where it is; its reader gets a last output."""
        await self._call(partial(self._engine.abort, stream_id))

    async def num_tokens(self, stream_id: str) -> int:
        """Return how many tokens a stream has, those that the model has not seen included."""
        return await self._call(partial(self._engine.num_tokens, stream_id))

    async def usage(self, stream_id: str) -> Usage:
        """Return the counts of a stream and of its last request."""
        return await self._call(partial(self._engine.usage, stream_id))

    async def export_state(self, stream_id: str) -> StreamState:
        """Return a copy of a stream's state; see `Engine.export_state`."""
        return await self._call(partial(self._engine.export_state, stream_id))

    async def close_stream(self, stream_id: str, *, wipe: bool = False) -> None:
        """Close a stream; its reader gets a last output. See `Engine.close_stream`."""
        await self._call(partial(self._engine.close_stream, stream_id, wipe=wipe))

    async def stats(self) -> EngineStats:
        """Return counts of streams, tokens and bytes."""
        return await self._call(self._engine.stats)

    async def close(self) -> None:
        """Close the engine; every reader gets a last output."""
        await asyncio.to_thread(self._thread.close)

    async def __aenter__(self) -> AsyncEngine:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _call(self, command: Callable[[], T], undo: Callable[[T], None] | None = None) -> T:
        """Run a command between two steps; `undo` its result if the caller was cancelled."""
        future = self._thread.post(command)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if undo is not None:
                future.add_done_callback(partial(_undo, undo))
            raise

    def _post_quietly(self, command: Callable[[], object]) -> None:
        with contextlib.suppress(InputError):  # closed: there is nothing left to change
            self._thread.post(command)

    async def _outputs(
        self, stream_id: str, start: Callable[[], None], num_samples: int
    ) -> AsyncGenerator[StepOutput, None]:
        """Start a text between two steps and yield its outputs; abort it if that ends early."""
        buffer = OutputBuffer(
            num_samples,
            self._max_buffered_outputs,
            on_drained=partial(self._post_quietly, partial(self._resume, stream_id)),
        )
        is_ended = False
        started = self._thread.post(partial(self._start, stream_id, start, buffer))
        try:
            await asyncio.wrap_future(started)
            while not is_ended:
                output, is_ended = await buffer.take()
                yield output
        finally:
            if not is_ended:
                self._post_quietly(partial(self._abort, stream_id, buffer))

    # In the step thread.

    def _start(self, stream_id: str, start: Callable[[], None], buffer: OutputBuffer) -> None:
        start()
        self._buffers[stream_id] = buffer

    def _abort(self, stream_id: str, buffer: OutputBuffer) -> None:
        if self._buffers.get(stream_id) is buffer:
            del self._buffers[stream_id]
            with contextlib.suppress(InputError):  # the stream failed or was closed
                self._engine.abort(stream_id)
            # At once, so that the last output does not reach the reader of the next text.
            self._deliver(self._engine.take_outputs())

    def _resume(self, stream_id: str) -> None:
        with contextlib.suppress(InputError):  # the text has ended
            self._engine.resume(stream_id)

    def _paused(self, open_stream: Callable[[], str]) -> str:
        stream_id = open_stream()
        with contextlib.suppress(InputError):  # it generates nothing
            self._engine.pause(stream_id)
        return stream_id

    def _discard(self, stream_id: str) -> None:
        self._post_quietly(partial(self._engine.close_stream, stream_id))

    def _deliver(self, outputs: Sequence[StepOutput]) -> None:
        for output in outputs:
            buffer = self._buffers.get(output.stream_id)
            if buffer is None:
                continue
            must_hold = buffer.put(output)
            if buffer.is_ended:
                del self._buffers[output.stream_id]
            elif must_hold:
                with contextlib.suppress(InputError):  # the text has ended
                    self._engine.pause(output.stream_id)


def _undo(undo: Callable[[T], None], future: Future[T]) -> None:
    if not future.cancelled() and future.exception() is None:
        undo(future.result())
