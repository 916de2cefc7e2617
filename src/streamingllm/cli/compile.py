"""Build kernels and compile decode steps ahead of time."""

from __future__ import annotations

import time

from streamingllm.cli.environment import configure_kernels
from streamingllm.cli.loading import compile_shown, load_shown
from streamingllm.cli.options import (
    CacheDirOption,
    DtypeOption,
    ModelOption,
    QuantizeCacheOption,
    QuantizeOption,
)
from streamingllm.cli.output import JsonOption, human_console, write_json
from streamingllm.cli.run_record import run_record
from streamingllm.config import StreamConfig
from streamingllm.errors import UnsupportedFeatureError
from streamingllm.models import DEFAULT_MODEL

_BATCH_SIZES = (1, 2)  # one graph for a single stream, one for any number


def compile(
    model: ModelOption = DEFAULT_MODEL,
    quantize: QuantizeOption = "auto",
    quantize_cache: QuantizeCacheOption = "none",
    dtype: DtypeOption = "auto",
    cache_dir: CacheDirOption = None,
    json: JsonOption = None,
) -> None:
    """Build the kernels and compile a model's decode steps, so that later commands start fast.

    What is built stays in the cache folder until the model's shape, the versions of torch or
    transformers, or the processor change. Windows of any size share it.

    Example: `streamingllm compile --quantize int4`
    """
    config = StreamConfig(window_size=8, quantize_cache=quantize_cache)
    configure_kernels()
    import torch

    from streamingllm.kernels import native
    from streamingllm.stream import Stream

    started = time.perf_counter()
    has_kernels = native.load()
    kernel_seconds = time.perf_counter() - started
    lm = load_shown(model, dtype=dtype, device="cpu", cache_dir=cache_dir, quantize=quantize)
    seconds = {}
    for batch_size in _BATCH_SIZES:
        stream = Stream(lm.model, config)
        stream.feed(torch.zeros(batch_size, 8, dtype=torch.int64), logits="last")
        started = time.perf_counter()
        if not compile_shown(stream):
            raise UnsupportedFeatureError(
                f"{model}: its decode step cannot be compiled here; the log says why"
            )
        seconds[batch_size] = time.perf_counter() - started
    human_console(json).print(
        f"kernels ready after {kernel_seconds:.1f} s, steps compiled after "
        f"{sum(seconds.values()):.1f} s"
    )
    if json is not None:
        result = {
            "native_kernels": has_kernels,
            "kernel_seconds": kernel_seconds,
            "compile_seconds": {"one_stream": seconds[1], "many_streams": seconds[2]},
        }
        settings = {"model": model, "source": lm.source, "quantize": lm.quantization}
        write_json(json, {**result, "config": settings, **run_record()})
