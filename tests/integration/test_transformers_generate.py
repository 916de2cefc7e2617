"""`model.generate` with a SinkCache, called in all the ways that users call it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    TextIteratorStreamer,
    pipeline,
)
from transformers.utils.import_utils import is_flash_attn_2_available

from streamingllm import LanguageModel, SinkCache, Stream, StreamConfig
from streamingllm.errors import InputError, RewindError, UnsupportedFeatureError

VOCAB_SIZE = 97
TRAINED_LENGTH = 64
PROMPT_LENGTH = 30
Model = Any  # transformers annotates its models in part
SMALL: dict[str, Any] = {"num_sink_tokens": 4, "window_size": 12}
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.5,  # so large that greedy text does not repeat itself
    "pad_token_id": 0,
    "eos_token_id": None,
}


def make_llama(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    config = LlamaConfig(max_position_embeddings=TRAINED_LENGTH, **SIZES)
    model: Model = LlamaForCausalLM(config)
    return model.to(torch.float64).eval().requires_grad_(False)


def make_assistant(model: Model) -> Model:
    """A model that often, not always, guesses what `model` says."""
    assistant = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    for parameter in assistant.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.add_(0.02 * noise)
    return assistant


def random_ids(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(1, VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model() -> Model:
    return make_llama()


@pytest.fixture(scope="module")
def prompt() -> Tensor:
    return random_ids(1, PROMPT_LENGTH)


@pytest.fixture
def small_cache(model: Model) -> Iterator[SinkCache]:
    with SinkCache(model, **SMALL) as cache:
        yield cache


def write(model: Model, ids: Tensor, cache: Any, **options: Any) -> Tensor:
    """The ids that `generate` adds to a prompt, greedily unless told otherwise."""
    options = {"max_new_tokens": 20, "do_sample": False, **options}
    torch.manual_seed(7)  # transformers samples from the global generator
    output = model.generate(ids, past_key_values=cache, **options)
    sequences: Tensor = output if isinstance(output, Tensor) else output.sequences
    return sequences[:, ids.shape[1] :]


def write_stream(model: Model, ids: Tensor, max_new_tokens: int, **sizes: Any) -> Tensor:
    """What a `Stream` writes greedily after one prompt, [1, max_new_tokens]."""
    stream = Stream(model, StreamConfig(**sizes))
    stream.feed(ids[0], logits="none")
    return torch.tensor([list(stream.generate(max_new_tokens))])


DECODING: dict[str, dict[str, Any]] = {
    "greedy": {},
    "dictionary": {"return_dict_in_generate": True, "output_scores": True},
    "sampling": {"do_sample": True, "temperature": 1.3, "top_k": 20},
    "several sequences": {"do_sample": True, "num_return_sequences": 3},
    "repetition penalty": {"repetition_penalty": 1.5},
    "beams": {"num_beams": 3},
    "several beams": {"num_beams": 3, "num_return_sequences": 3, "length_penalty": 0.5},
    "sampled beams": {"num_beams": 3, "do_sample": True},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
    "prefill in chunks": {"prefill_chunk_size": 7},
    "classifier-free guidance": {"guidance_scale": 1.5},
    "early end": {"eos_token_id": list(range(1, 10)), "num_beams": 2},
}


@pytest.mark.parametrize("name", DECODING)
def test_equals_a_dense_cache_while_nothing_is_evicted(
    name: str, model: Model, prompt: Tensor
) -> None:
    dense = write(model, prompt, DynamicCache(config=model.config), **DECODING[name])
    with SinkCache(model, num_sink_tokens=4, window_size=100) as cache:
        assert torch.equal(write(model, prompt, cache, **DECODING[name]), dense)


@pytest.mark.parametrize("prompt_length", [3, 12, 16, 200])
def test_writes_and_reads_far_beyond_window_and_trained_length(
    prompt_length: int, model: Model
) -> None:
    ids = random_ids(1, prompt_length)
    with SinkCache(model, **SMALL) as cache:
        written = write(model, ids, cache, max_new_tokens=3 * TRAINED_LENGTH)
        assert cache.num_cached_tokens == cache.cache_size
    assert torch.equal(written, write_stream(model, ids, 3 * TRAINED_LENGTH, **SMALL))


@pytest.mark.parametrize(
    "options",
    [{"prompt_lookup_num_tokens": 5}, {"assistant_model": None}, {"prefill_chunk_size": 5}],
)
def test_shortcuts_change_nothing_after_eviction(
    options: dict[str, Any], model: Model, prompt: Tensor, small_cache: SinkCache
) -> None:
    if "assistant_model" in options:
        options = {"assistant_model": make_assistant(make_llama())}
    written = write(model, prompt, small_cache, max_new_tokens=60, **options)
    assert torch.equal(written, write_stream(model, prompt, 60, **SMALL))


def test_assisted_generation_names_the_limit_it_needs(model: Model, prompt: Tensor) -> None:
    with (
        SinkCache(model, **SMALL, max_rewind_tokens=1) as cache,
        pytest.raises(RewindError, match="max_rewind_tokens"),
    ):
        write(model, prompt, cache, max_new_tokens=60, prompt_lookup_num_tokens=10)


def test_assisted_generation_is_refused_on_a_used_cache(
    model: Model, prompt: Tensor, small_cache: SinkCache
) -> None:
    write(model, prompt, small_cache)
    with pytest.raises(UnsupportedFeatureError, match="assisted generation"):
        write(model, random_ids(1, 70), small_cache, prompt_lookup_num_tokens=3)


def plain_beam_search(model: Model, prompt: Tensor, beams: int, steps: int) -> Tensor:
    """Beam search in which every beam is read afresh by a stream of its own."""
    found = [(0.0, prompt[0].tolist())]
    for _ in range(steps):
        longer = []
        for score, ids in found:
            logits = Stream(model, StreamConfig(**SMALL)).feed(torch.tensor(ids), logits="last")
            top = logits.float().log_softmax(-1).topk(beams)
            for gain, token in zip(top.values.tolist(), top.indices.tolist(), strict=True):
                longer.append((score + gain, [*ids, token]))
        found = sorted(longer, reverse=True)[:beams]
    return torch.tensor([found[0][1]])


def test_beam_search_after_eviction(model: Model, prompt: Tensor, small_cache: SinkCache) -> None:
    written = write(model, prompt, small_cache, num_beams=3, max_new_tokens=24)
    expected = plain_beam_search(model, prompt, beams=3, steps=24)
    assert torch.equal(written, expected[:, PROMPT_LENGTH:])


def test_rows_with_left_padding_equal_the_rows_alone(model: Model) -> None:
    rows = [random_ids(1, length, seed=length) for length in (2, 9, 40)]
    longest = max(row.shape[1] for row in rows)
    ids = torch.cat([torch.nn.functional.pad(row, (longest - row.shape[1], 0)) for row in rows])
    with SinkCache(model, **SMALL) as cache:
        written = write(model, ids, cache, attention_mask=(ids != 0).long(), max_new_tokens=50)
        assert cache.num_seen_tokens_per_stream.tolist() == [51, 58, 89]
    for row, found in zip(rows, written, strict=True):
        assert torch.equal(found[None], write_stream(model, row, 50, **SMALL))


@pytest.mark.parametrize("only_new", [False, True])
@pytest.mark.parametrize("sizes", [SMALL, {"num_sink_tokens": 4, "window_size": 500}])
def test_several_turns_with_one_cache(only_new: bool, sizes: dict[str, Any], model: Model) -> None:
    ids = random_ids(2, 0)
    mask = torch.ones(2, 0, dtype=torch.int64)
    with SinkCache(model, **sizes) as cache:
        for turn, padding in enumerate((3, 0, 5)):
            said = random_ids(2, 9, seed=turn)
            heard = torch.ones_like(said)
            said[0, :padding], heard[0, :padding] = 0, 0
            ids, mask = torch.cat((ids, said), 1), torch.cat((mask, heard), 1)
            # Of the last answer all but its last token is in the cache.
            given = ids[:, cache.get_seq_length() :] if only_new else ids
            written = write(model, given, cache, attention_mask=mask, max_new_tokens=15)
            ids, mask = torch.cat((ids, written), 1), torch.cat((mask, torch.ones_like(written)), 1)
    for row, kept in zip(ids, mask.bool(), strict=True):
        answer = row[-15:]
        assert torch.equal(answer[None], write_stream(model, row[kept][None, :-15], 15, **sizes))


@pytest.mark.parametrize("length", [9, 40, 49])
def test_new_ids_without_the_whole_mask_are_refused(
    length: int, model: Model, prompt: Tensor, small_cache: SinkCache
) -> None:
    write(model, prompt, small_cache)
    with pytest.raises(InputError, match="the cache has read 49: pass all ids so far"):
        write(model, random_ids(1, length), small_cache)
    assert small_cache.num_seen_tokens == 49


def test_embeddings_in_place_of_ids(model: Model, prompt: Tensor, small_cache: SinkCache) -> None:
    embeddings = model.get_input_embeddings()(prompt)
    written = model.generate(
        inputs_embeds=embeddings, past_key_values=small_cache, max_new_tokens=40, do_sample=False
    )
    assert torch.equal(written, write_stream(model, prompt, 40, **SMALL))


def flash_is_missing() -> bool:
    return not (torch.cuda.is_available() and is_flash_attn_2_available())


@pytest.mark.parametrize(
    "implementation",
    [
        "eager",
        "sdpa",
        pytest.param(
            "flash_attention_2",
            marks=pytest.mark.skipif(flash_is_missing(), reason="needs flash-attn and CUDA"),
        ),
    ],
)
def test_any_attention_implementation(implementation: str, prompt: Tensor) -> None:
    model = make_llama()
    if implementation == "flash_attention_2":
        model, prompt = model.to("cuda", torch.bfloat16), prompt.cuda()
    model.set_attn_implementation(implementation)
    with SinkCache(model, **SMALL) as cache:
        written = write(model, prompt, cache, max_new_tokens=40)
        assert model.config._attn_implementation == implementation
    assert torch.equal(written.cpu(), write_stream(model, prompt, 40, **SMALL))


def test_generation_configs_that_name_their_own_cache(prompt: Tensor) -> None:
    model = make_llama()
    model.generation_config.cache_implementation = "static"
    with SinkCache(model, **SMALL) as cache:
        write(model, prompt, cache)
        with pytest.raises(ValueError, match="cache_implementation"):
            write(model, random_ids(1, 70), cache, cache_implementation="static")
        named = GenerationConfig(cache_implementation="static")
        with pytest.raises(ValueError, match="cache_implementation"):
            write(model, random_ids(1, 70), cache, generation_config=named)
    assert model.generation_config.cache_implementation == "static"


def test_phi3_goes_on_where_its_own_cache_would_be_dropped() -> None:
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [2.0] * 4,
        "original_max_position_embeddings": 32,
    }
    torch.manual_seed(0)
    config = Phi3Config(
        max_position_embeddings=256,
        original_max_position_embeddings=32,
        rope_parameters=rope,
        **SIZES,
    )
    model: Model = Phi3ForCausalLM(config)
    model.to(torch.float64).eval()
    ids = random_ids(1, 20)
    with SinkCache(model, **SMALL) as cache:
        written = write(model, ids, cache, max_new_tokens=60)
        assert cache.num_seen_tokens == 79
    assert torch.equal(written, write_stream(model, ids, 60, **SMALL))


def test_two_caches_on_one_model_take_turns(model: Model, small_cache: SinkCache) -> None:
    texts = [random_ids(1, 10, seed=1), random_ids(1, 10, seed=2)]
    with SinkCache(model, num_sink_tokens=2, window_size=20) as other:
        caches = [small_cache, other]
        for _ in range(4):
            for i, cache in enumerate(caches):
                texts[i] = torch.cat((texts[i], write(model, texts[i], cache, max_new_tokens=9)), 1)
        # A text without a streaming cache runs beside them as if there were none.
        dense = write(model, texts[0], None)
    assert torch.equal(dense, write(make_llama(), texts[0], None))
    sizes = [SMALL, {"num_sink_tokens": 2, "window_size": 20}]
    for text, size in zip(texts, sizes, strict=True):
        assert torch.equal(text[:, 10:], write_stream(model, text[:, :10], 36, **size))


@pytest.mark.parametrize("has_own_cache", [False, True])
def test_a_cache_of_another_model_is_refused(
    has_own_cache: bool, prompt: Tensor, small_cache: SinkCache
) -> None:
    other = make_llama(seed=1)
    own = SinkCache(other) if has_own_cache else None
    with pytest.raises(InputError, match="the model it was made for"):
        write(other, prompt, small_cache)
    del own


@pytest.mark.parametrize("another_is_alive", [False, True])
def test_a_disabled_cache_is_refused(another_is_alive: bool, model: Model, prompt: Tensor) -> None:
    another = SinkCache(model) if another_is_alive else None
    cache = SinkCache(model, **SMALL)
    text = torch.cat((prompt, write(model, prompt, cache)), 1)
    cache.disable()
    with pytest.raises(InputError, match=r"make a new SinkCache\(model\)"):
        write(model, text, cache)
    del another


def test_the_model_is_left_as_it_was(prompt: Tensor) -> None:
    def state(model: Model) -> list[Any]:
        return [
            [(name, sorted(vars(m)), len(m._forward_hooks)) for name, m in model.named_modules()],
            model.config.to_dict(),
            model.config._attn_implementation,
            model.generation_config.to_dict(),
        ]

    model = make_llama()
    write(model, prompt, None)  # transformers itself leaves attributes behind
    before, dense = state(model), write(model, prompt, None)
    with SinkCache(model, **SMALL) as cache, SinkCache(model, **SMALL) as other:
        write(model, prompt, cache)
        write(model, prompt, other, num_beams=2)
        with pytest.raises(UnsupportedFeatureError, match="output_attentions"):
            write(model, random_ids(1, 70), cache, output_attentions=True)
        assert state(model) != before
    assert state(model) == before
    assert torch.equal(write(model, prompt, None), dense)


def test_gradients_stay_inside_a_pass(prompt: Tensor) -> None:
    model = make_llama().requires_grad_(True)
    gradients = []
    with SinkCache(model, 4, 100) as cache:
        for past in (DynamicCache(config=model.config), cache):
            model.zero_grad()
            model(prompt, past_key_values=past, labels=prompt).loss.backward()
            gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        for _ in range(3):
            model(prompt, past_key_values=cache, labels=prompt)
        buffers = [b for layers in cache.export_state().buffers.values() for b in layers]
        assert not any(b.requires_grad for b in buffers)
        assert all(layer._pending is None for layer in cache.rings)
    for dense, streamed in zip(*gradients, strict=True):
        torch.testing.assert_close(streamed, dense, atol=1e-5, rtol=1e-3)  # losses are float32


def test_inference_mode_is_left_and_entered_freely(model: Model, prompt: Tensor) -> None:
    with torch.inference_mode():
        stream = Stream(model, StreamConfig(**SMALL))
        stream.feed(prompt[0])
        fork = stream.fork()
    for copied in (stream, fork):
        copied.rewind(5)
        logits = copied.feed(prompt[0, -5:], logits="last")
        with torch.inference_mode():
            expected = Stream(model, StreamConfig(**SMALL)).feed(prompt[0], logits="last")
        torch.testing.assert_close(logits, expected)


def test_copies_are_independent_and_pickles_refused(
    model: Model, prompt: Tensor, small_cache: SinkCache
) -> None:
    text = torch.cat((prompt, write(model, prompt, small_cache)), 1)
    copied = copy.deepcopy(small_cache)
    assert torch.equal(write(model, text, copied), write(model, text, small_cache))
    with pytest.raises(UnsupportedFeatureError, match="snapshot"):
        pickle.dumps(small_cache)
    with pytest.raises(UnsupportedFeatureError, match="disable"):
        copy.deepcopy(model)


def test_crop_takes_negative_numbers_only(
    model: Model, prompt: Tensor, small_cache: SinkCache
) -> None:
    write(model, prompt, small_cache)
    small_cache.crop(0)
    small_cache.crop(-9)
    assert small_cache.num_seen_tokens == small_cache.get_seq_length() == 40
    with pytest.raises(RewindError, match="tokens_to_remove=40"):
        small_cache.crop(40)


def test_the_default_model_outgrows_its_window(default_model: LanguageModel) -> None:
    messages = [{"role": "user", "content": "Tell me about the sea, in one long sentence. " * 5}]
    tokenizer: Any = default_model.tokenizer
    ids = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    sizes = {"num_sink_tokens": 4, "window_size": 28}
    with SinkCache(default_model.model, num_sink_tokens=4, window_size=28) as cache:
        written = write(default_model.model, ids, cache, max_new_tokens=32)
        assert cache.num_cached_tokens == cache.cache_size
    assert torch.equal(written, write_stream(default_model.model, ids, 32, **sizes))


def test_use_cache_false_is_refused(model: Model, prompt: Tensor, small_cache: SinkCache) -> None:
    with pytest.raises(UnsupportedFeatureError, match="use_cache=False contradicts"):
        write(model, prompt, small_cache, use_cache=False)
    with pytest.raises(UnsupportedFeatureError, match="use_cache=False contradicts"):
        model(prompt, past_key_values=small_cache, use_cache=False)
    assert small_cache.num_seen_tokens == 0


@pytest.mark.parametrize("has_streamed", [False, True])
def test_gradient_checkpointing_in_training_is_refused(has_streamed: bool, prompt: Tensor) -> None:
    model = make_llama()
    if has_streamed:
        SinkCache(model, **SMALL).disable()
    for layer in model.model.layers:
        layer.gradient_checkpointing = True  # as `gradient_checkpointing_enable` does, which warns
    model.train()
    with SinkCache(model, **SMALL) as cache:
        with pytest.raises(UnsupportedFeatureError, match="gradient_checkpointing=True drops"):
            write(model, prompt, cache)
        assert cache.num_seen_tokens == 0
        model.eval()
        written = write(model, prompt, cache)
    assert torch.equal(written, write_stream(model, prompt, 20, **SMALL))


def test_a_model_in_training_is_checked_and_stays_in_training() -> None:
    model = make_llama().train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    with SinkCache(model, **SMALL) as cache:
        assert cache.attachment.facts is not None
    assert [module.training for module in model.modules()] == modes


def answers(model: Model, cache: SinkCache, ids: Tensor, mask: Tensor, stops: list[int]) -> Tensor:
    """Write 12 tokens, rows that have met one of `stops` padded with 0."""
    options = {"attention_mask": mask, "eos_token_id": stops or None, "pad_token_id": 0}
    return write(model, ids, cache, max_new_tokens=12, **options)


@pytest.mark.parametrize("sizes", [SMALL, {"num_sink_tokens": 4, "window_size": 100}])
def test_a_row_that_has_ended_goes_on_in_the_next_call(sizes: dict[str, Any], model: Model) -> None:
    """`generate` feeds padding to such a row, and tells so in the mask of the next call."""
    ids, turns = random_ids(2, 20), 3
    mask = torch.ones_like(ids)
    num_padding = 0
    with SinkCache(model, **sizes) as cache:
        for turn in range(turns):
            alone = write_stream(model, ids[1][mask[1].bool()][None], 12, **sizes)
            stops = [int(alone[0, 1])] if turn < turns - 1 else []
            new = answers(model, cache, ids, mask, stops)
            ended = torch.isin(new, torch.tensor(stops)).long()
            heard = (ended.cumsum(1) - ended == 0).long()
            num_padding += int((heard == 0).sum())
            said = random_ids(2, 5, seed=turn + 1)
            ids = torch.cat((ids, new, said), 1)
            mask = torch.cat((mask, heard, torch.ones_like(said)), 1)
    assert num_padding > 10
    for row, kept in zip(ids[:, :-5], mask[:, :-5].bool(), strict=True):
        expected = write_stream(model, row[kept][None, :-12], 12, **sizes)
        assert torch.equal(row[None, -12:], expected)


def test_a_mask_that_contradicts_what_was_fed_is_refused(
    model: Model, prompt: Tensor, small_cache: SinkCache
) -> None:
    mask = torch.ones(1, PROMPT_LENGTH + 1, dtype=torch.int64)
    with torch.no_grad():
        model(prompt, past_key_values=small_cache)
        mask[0, 3] = 0
        with pytest.raises(InputError, match="attention_mask shows 29 tokens of row 0"):
            model(prompt[:, :1], past_key_values=small_cache, attention_mask=mask)
        assert small_cache.num_seen_tokens == PROMPT_LENGTH
        mask[0, 3] = 1
        model(prompt[:, :1], past_key_values=small_cache, attention_mask=mask)
    assert small_cache.num_seen_tokens == PROMPT_LENGTH + 1


def test_padding_cannot_become_text(model: Model, small_cache: SinkCache) -> None:
    ids, mask = random_ids(2, 9), torch.ones(2, 9, dtype=torch.int64)
    mask[0, :4] = 0
    with torch.no_grad():
        model(ids, past_key_values=small_cache, attention_mask=mask)
        with pytest.raises(InputError, match=r"shows 9 tokens of row 0 .* was fed 5"):
            model(ids[:, :1], past_key_values=small_cache, attention_mask=torch.ones(2, 10))


def test_more_padding_than_can_be_taken_back_is_refused(model: Model, prompt: Tensor) -> None:
    mask = torch.ones(1, PROMPT_LENGTH + 1, dtype=torch.int64)
    mask[0, -6:-1] = 0
    with torch.no_grad(), SinkCache(model, **SMALL, max_rewind_tokens=2) as cache:
        model(prompt, past_key_values=cache)
        with pytest.raises(InputError, match=r"hides 5 tokens .* higher max_rewind_tokens"):
            model(prompt[:, :1], past_key_values=cache, attention_mask=mask)


def test_a_compiled_forward_streams(model: Model, prompt: Tensor) -> None:
    torch.compiler.reset()
    compiled: Any = torch.compile(model.forward, backend="eager")
    with torch.no_grad(), SinkCache(model, **SMALL) as cache, SinkCache(model, **SMALL) as plain:
        for ids in prompt.split([20, 9, 1], dim=1):
            logits = compiled(input_ids=ids, past_key_values=cache).logits
            expected = model(ids, past_key_values=plain).logits
            torch.testing.assert_close(logits, expected)
    torch.compiler.reset()


def test_a_streamer_gets_the_text(default_model: LanguageModel) -> None:
    tokenizer: Any = default_model.tokenizer
    ids = default_model.encode("The sea is a place where " * 6)[None]
    model: Model = default_model.model
    texts = []
    for streamer in (TextIteratorStreamer(tokenizer, skip_prompt=True), None):
        with SinkCache(model, num_sink_tokens=4, window_size=28) as cache:
            written = write(model, ids, cache, max_new_tokens=12, streamer=streamer)
        texts.append("".join(streamer) if streamer else tokenizer.decode(written[0]))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("form", ["text", "chat", "batch"])
def test_a_pipeline_takes_a_cache(form: str, default_model: LanguageModel) -> None:
    model: Model = default_model.model
    tokenizer: Any = default_model.tokenizer
    write_text: Any = pipeline("text-generation", model=model, tokenizer=tokenizer)
    text = "The sea is a place where"
    given: Any = {"text": text, "chat": [{"role": "user", "content": text}], "batch": [text, text]}
    options = {"max_new_tokens": 12, "do_sample": False, "return_full_text": False, "batch_size": 2}
    with SinkCache(model, num_sink_tokens=4, window_size=200) as cache:
        found = write_text(given[form], past_key_values=cache, **options)
    assert found == write_text(given[form], **options)
