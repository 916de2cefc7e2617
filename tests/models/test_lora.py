"""Streams with adapters against models into which the adapters were merged."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from streamingllm import LanguageModel, Stream, StreamConfig
from streamingllm.engine import Engine
from streamingllm.engine.stream_state import StreamState
from streamingllm.errors import InputError, ModelLoadError, SnapshotError
from streamingllm.integration.lora import LoraAdapter
from streamingllm.models.quantize import QuantizedLinear, install_layers
from streamingllm.models.rounding import Rounding, quantize_layers
from streamingllm.stream.sampling import SamplingParams
from tests.models.lora_folder import write_adapter
from tests.reference.rounding import assert_same_logits
from tests.reference.tiny_lm import tiny_lm

CONFIG = StreamConfig(num_sink_tokens=2, window_size=14, max_rewind_tokens=4)


def new_lm(*, packed: bool = False) -> LanguageModel:
    model = deepcopy(tiny_lm().model)
    if packed:
        install_layers(model, quantize_layers(model, Rounding(8)))
    return replace(tiny_lm(), model=model)


def merged(lm: LanguageModel, added: dict[str, Tensor]) -> LanguageModel:
    """The same model with other weights: the truth."""
    model = deepcopy(tiny_lm().model)
    for name, difference in added.items():
        weight = lm.model.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        model.get_parameter(f"{name}.weight").copy_(weight + difference)
    for name, layer in lm.model.named_modules():
        if name not in added and isinstance(layer, QuantizedLinear):
            model.get_parameter(f"{name}.weight").copy_(layer.weight)
    return replace(tiny_lm(), model=model)


def ids(count: int, seed: int = 0) -> Tensor:
    return torch.randint(1, 200, (count,), generator=torch.Generator().manual_seed(seed))


def fed(stream: Stream, chunks: tuple[int, ...] = (40, 1, 1, 7, 1)) -> Tensor:
    return torch.cat([stream.feed(part) for part in ids(sum(chunks)).split(chunks)])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"down_proj": 3}},
    ],
    ids=["plain", "rslora", "patterns"],
)
def test_a_stream_with_an_adapter_is_one_of_the_merged_model(
    packed: bool, fields: dict[str, Any], tmp_path: Path
) -> None:
    lm = new_lm(packed=packed)
    added = write_adapter(tmp_path / "a", lm.model, 1, **fields)
    before = fed(Stream(lm, CONFIG))
    adapter = lm.load_adapter(tmp_path / "a")
    found = fed(Stream(lm, CONFIG, adapter=adapter))
    expected = fed(Stream(merged(lm, added), CONFIG))
    if packed:
        assert_same_logits(found, expected)
    else:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - before).abs().max() > 0.1
    assert torch.equal(fed(Stream(lm, CONFIG)), before)


def test_streams_with_different_adapters_take_turns(tmp_path: Path) -> None:
    lm = new_lm()
    adapters: list[LoraAdapter | None] = [None]
    for seed in (1, 2):
        write_adapter(tmp_path / str(seed), lm.model, seed)
        adapters.append(lm.load_adapter(tmp_path / str(seed)))
    alone = [fed(Stream(lm, CONFIG, adapter=adapter)) for adapter in adapters]
    streams = [Stream(lm, CONFIG, adapter=adapter) for adapter in adapters]
    rows: list[list[Tensor]] = [[], [], []]
    for part in ids(50).split((40, 1, 1, 7, 1)):
        for row, stream in zip(rows, streams, strict=True):
            row.append(stream.feed(part))
    for row, expected in zip(rows, alone, strict=True):
        assert torch.equal(torch.cat(row), expected)


def test_forks_and_rewinds_keep_the_adapter(tmp_path: Path) -> None:
    lm = new_lm()
    write_adapter(tmp_path / "a", lm.model, 1)
    stream = Stream(lm, CONFIG, adapter=lm.load_adapter(tmp_path / "a"))
    stream.feed(ids(40))
    fork = stream.fork()
    assert fork.adapter is stream.adapter
    first = fork.feed(ids(3, seed=1))
    fork.rewind(3)
    torch.testing.assert_close(fork.next_logits, stream.next_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(stream.feed(ids(3, seed=1)), first, rtol=1e-4, atol=1e-4)
    assert not stream.compile(wait=True)


def test_a_cache_goes_on_with_its_own_adapter_alone(tmp_path: Path) -> None:
    lm = new_lm()
    adapters = {}
    for seed in (1, 2):
        write_adapter(tmp_path / str(seed), lm.model, seed)
        adapters[seed] = lm.load_adapter(tmp_path / str(seed))
    stream = Stream(lm, CONFIG, adapter=adapters[1])
    stream.feed(ids(40))
    stream.snapshot(tmp_path / "with.safetensors")
    plain = Stream(lm, CONFIG)
    plain.feed(ids(40))
    plain.snapshot(tmp_path / "without.safetensors")
    again = Stream.restore(lm, tmp_path / "with.safetensors", adapter=adapters[1])
    assert torch.equal(again.next_logits, stream.next_logits)
    for path, adapter in (("with", adapters[2]), ("with", None), ("without", adapters[1])):
        with pytest.raises(SnapshotError, match=r"was made with adapter=.* and cannot go on with"):
            Stream.restore(lm, tmp_path / f"{path}.safetensors", adapter=adapter)


def test_an_adapter_of_another_model_or_unloaded_is_refused(tmp_path: Path) -> None:
    lm = new_lm()
    write_adapter(tmp_path / "a", lm.model, 1)
    adapter = lm.load_adapter(tmp_path / "a")
    with pytest.raises(InputError, match="was loaded for another model"):
        Stream(new_lm(), CONFIG, adapter=adapter)
    stream = Stream(lm, CONFIG, adapter=adapter)
    before = fed(Stream(lm, CONFIG))
    adapter.unload()
    with pytest.raises(InputError, match="has been unloaded"):
        stream.feed(ids(3))
    assert not any(module._forward_hooks for module in lm.model.modules())
    assert torch.equal(fed(Stream(lm, CONFIG)), before)


def generated(engine: Engine, adapter: LoraAdapter | None, count: int) -> str:
    stream_id = engine.open_stream(adapter=adapter)
    engine.submit(
        stream_id, ids(20).tolist(), SamplingParams(max_new_tokens=count, ignore_eos=True)
    )
    return stream_id


def test_an_engine_switches_adapters_by_stream(tmp_path: Path) -> None:
    lm = new_lm()
    adapters: list[LoraAdapter | None] = [None]
    for seed in (1, 2):
        write_adapter(tmp_path / str(seed), lm.model, seed)
        adapters.append(lm.load_adapter(tmp_path / str(seed)))
    expected = []
    for adapter in adapters:
        stream = Stream(lm, CONFIG, adapter=adapter)
        stream.feed(ids(20))
        expected.append(list(stream.generate(25)))
    assert len({tuple(tokens) for tokens in expected}) == 3
    with Engine(lm, CONFIG, max_streams=4) as engine:
        opened = [generated(engine, adapter, 25) for adapter in (*adapters, None)]
        tokens: dict[str, list[int]] = {stream_id: [] for stream_id in opened}
        while engine.has_work:
            for output in engine.step():
                tokens[output.stream_id] += output.token_ids
        assert [tokens[stream_id] for stream_id in opened] == [*expected, expected[0]]
        state = StreamState.from_bytes(engine.export_state(opened[1]).to_bytes())
        assert adapters[1] is not None
        assert state.adapter == adapters[1].fingerprint
        for opened_id in opened:
            engine.close_stream(opened_id)
        engine.open_stream(state=state, adapter=adapters[1])
        for adapter in (None, adapters[2]):
            with pytest.raises(SnapshotError, match="state: was made with adapter="):
                engine.open_stream(state=state, adapter=adapter)
        with pytest.raises(InputError, match="another model"):
            other = new_lm()
            engine.open_stream(adapter=other.load_adapter(tmp_path / "1"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type='IA3' is not computed"),
        ({"use_dora": True}, "use_dora=True is not computed"),
        ({"bias": "all"}, "bias='all' is not computed"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save="),
        ({"target_parameters": ["mlp.experts.down_proj"]}, "target_parameters="),
    ],
)
def test_other_kinds_are_refused_by_name(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    lm = new_lm()
    write_adapter(tmp_path / "a", lm.model, 1, **fields)
    with pytest.raises(ModelLoadError, match=message) as refused:
        lm.load_adapter(tmp_path / "a")
    assert "\n" not in str(refused.value)


def test_bad_files_are_refused_by_name(tmp_path: Path) -> None:
    lm = new_lm()
    folder = tmp_path / "a"
    write_adapter(folder, lm.model, 1)
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    down = next(name for name in tensors if "lora_A" in name)

    def refused(changed: dict[str, Tensor], message: str) -> None:
        save_file(changed, weights)
        with pytest.raises(ModelLoadError, match=message):
            lm.load_adapter(folder)

    refused(tensors | {down: torch.zeros(4, 7)}, "load the model that it was trained on")
    refused({n: t for n, t in tensors.items() if n != down}, "has lora_B alone")
    renamed = {n.replace("layers.1.", "layers.9."): t for n, t in tensors.items()}
    refused(renamed, "which is no linear layer of LlamaForCausalLM")
    embedding = {"base_model.model.model.embed_tokens.lora_embedding_A": torch.zeros(4, 8)}
    refused(tensors | embedding, "is no matrix of a linear layer")
    refused({}, "is empty")
    weights.write_bytes(b"\xff" * 100)
    with pytest.raises(ModelLoadError, match="no safetensors header"):
        lm.load_adapter(folder)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"})[:-3])
    with pytest.raises(ModelLoadError, match="cannot be read as an adapter"):
        lm.load_adapter(folder)
    weights.unlink()
    with pytest.raises(ModelLoadError, match=r"has no adapter_model\.safetensors"):
        lm.load_adapter(folder)
    assert not any(module._forward_hooks for module in lm.model.modules())
