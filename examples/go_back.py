"""Try two continuations of one stream, rewind one, and restore a snapshot."""

import tempfile
from pathlib import Path

import torch

from streamingllm import Stream, StreamConfig, load_model

lm = load_model("smollm2-135m-instruct", dtype="float32")
stream = Stream(lm.model, StreamConfig(window_size=60, max_rewind_tokens=32))
stream.feed(lm.encode("The detective opened the door and saw"), logits="none")

branch = stream.fork()
branch.feed(lm.encode(" nothing but snow."), logits="none")
print("one way:    ", lm.decode(list(branch.generate(12))))

tokens = list(stream.generate(12))
print("another way:", lm.decode(tokens))
stream.rewind(len(tokens))

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "detective.safetensors"
    stream.snapshot(path)
    tomorrow = Stream.restore(lm.model, path)
print("the same:   ", torch.equal(tomorrow.next_logits, stream.next_logits))
