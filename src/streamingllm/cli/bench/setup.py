"""Share a model, a stream with a full cache and a record of the settings among benches."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamingllm.cli.loading import compile_shown, load_shown, use_threads
from streamingllm.config import StreamConfig
from streamingllm.errors import ConfigError
from streamingllm.evaluation.process_age import seconds_since_process_start
from streamingllm.evaluation.texts import PYTHON_REFERENCE, open_documents, read_tokens

if TYPE_CHECKING:
    from streamingllm.models import LanguageModel
    from streamingllm.stream import Stream

StepsOption = Annotated[int, typer.Option("--steps", help="Timed steps.")]


@dataclass(frozen=True)
class BenchSettings:
    """Hold the settings of a bench; see the options of `streamingllm bench decode`."""

    model: str
    dtype: str
    device: str
    quantize: str
    num_sink_tokens: int
    window_size: int
    threads: int | None
    compile: bool = True
    quantize_cache: str = "none"
    cache_dir: Path | None = None

    @property
    def config(self) -> StreamConfig:
        """The stream's configuration."""
        return StreamConfig(
            num_sink_tokens=self.num_sink_tokens,
            window_size=self.window_size,
            quantize_cache=self.quantize_cache,
        )

    def load(self) -> LanguageModel:
        """Load the model; without a dtype, in bfloat16 if it is quantised."""
        use_threads(self.threads)
        return load_shown(
            self.model,
            dtype=self.dtype,
            device=self.device,
            cache_dir=self.cache_dir,
            quantize=self.quantize,
        )

    def record(self, lm: LanguageModel) -> dict[str, Any]:
        """Return the settings as they were resolved, for a JSON result."""
        import torch

        settings = asdict(self)
        del settings["cache_dir"]
        return settings | {
            "source": lm.source,
            "quantize": lm.quantization,
            "weights": lm.weights,
            "dtype": str(lm.model.dtype).removeprefix("torch."),
            "device": str(lm.model.device),
            "threads": torch.get_num_threads(),
        }


@dataclass(frozen=True)
class StartUp:
    """Seconds from the start of the process until a stream could decode.

    Args:
        total: all of it but the filling of the cache, which is not a part of starting.
        compile: waiting for the compiled step, or loading it.
    """

    total: float
    compile: float


def full_stream(
    lm: LanguageModel,
    settings: BenchSettings,
    batch_size: int = 1,
    start_position: int | None = None,
) -> tuple[Stream, StartUp]:
    """Return streams that have read n + m tokens of Python's reference, and how long starting took.

    Args:
        lm: the model.
        settings: of the bench.
        batch_size: streams, each of which reads another part of the text.
        start_position: stream position to decode from, reached by setting the clock forward.
    """
    from streamingllm.stream import Stream

    size = settings.config.cache_size + 1
    before = seconds_since_process_start()
    ids = read_tokens(lm, open_documents(PYTHON_REFERENCE), size * batch_size)
    stream = Stream(lm.model, settings.config)
    repeats = -(-size * batch_size // len(ids))
    rows = ids.repeat(repeats)[: size * batch_size].view(batch_size, size)
    stream.feed(rows if batch_size > 1 else rows[0], logits="last")
    started = time.perf_counter()
    if settings.compile:
        compile_shown(stream)
    compiled = time.perf_counter() - started
    if start_position is not None:
        if start_position <= size:
            raise ConfigError(
                f"start_position={start_position} is within the cache; choose more than {size}"
            )
        stream.skip_to(start_position)
    return stream, StartUp(before + compiled, compiled)
