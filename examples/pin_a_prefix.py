"""Pin a system prompt: it stays visible for ever, and the window takes the rest of the cache."""

from streamingllm import Stream, StreamConfig, load_model

lm = load_model("smollm2-135m-instruct", dtype="float32")
system = lm.tokenizer.apply_chat_template(
    [{"role": "system", "content": "You are a pirate. Answer in one short sentence."}],
    tokenize=False,
)
prefix = lm.encode(system, add_special_tokens=False)
config = StreamConfig.with_cache_size(128, num_sink_tokens=len(prefix))
stream = Stream(lm.model, config)
stream.feed(prefix, logits="none")
stream.feed(lm.encode("Rain fell on the harbour. " * 80), logits="none")
print(f"{len(prefix)} pinned + {config.window_size} recent = {stream.num_cached_tokens} visible")
print(f"{stream.num_seen_tokens - stream.num_cached_tokens} tokens are forgotten")
