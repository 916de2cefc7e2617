"""Prefill a long text at constant memory, then generate."""

from streamingllm import SamplingParams, Stream, StreamConfig, load_model

lm = load_model("smollm2-135m-instruct", dtype="float32")
stream = Stream(lm.model, StreamConfig(num_sink_tokens=4, window_size=124))

text = "The lighthouse keeper wrote down the weather every morning. " * 60
stream.feed(lm.encode(text), logits="none")
print(f"read {stream.num_seen_tokens} tokens, {stream.num_cached_tokens} are visible")

tokens = stream.generate(40, sampling=SamplingParams(temperature=0.7, top_p=0.9))
print(lm.decode(list(tokens)))
