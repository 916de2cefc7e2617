"""Generate far past the window with plain transformers: `model.generate` and a SinkCache."""

from streamingllm import SinkCache, load_model

lm = load_model("smollm2-135m-instruct", dtype="float32")
inputs = lm.tokenizer("Once upon a time there was", return_tensors="pt").to(lm.model.device)

with SinkCache(lm.model, num_sink_tokens=4, window_size=28) as cache:
    output = lm.model.generate(**inputs, past_key_values=cache, max_new_tokens=60, do_sample=False)
    print(lm.decode(output[0]))
    print(f"{cache.num_seen_tokens} tokens seen, {cache.num_cached_tokens} cached")
    print(f"{cache.nbytes:,} bytes, whatever the length")
