"""Error feedback against its definition, one inverse for each column; and plain rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from streamingllm import load_model
from streamingllm.errors import ConfigError, InputError
from streamingllm.kernels.packing import unpack_codes, unpack_weight
from streamingllm.models.calibration import Calibration
from streamingllm.models.error_feedback import Groups, fit_groups, round_with_feedback
from streamingllm.models.quantize import quantize_weight
from tests.models.test_formats import packed_layers
from tests.reference.tiny_folder import byte_tokenizer, write_tiny_folder


def random_case(rows: int, columns: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A weight, and activations [tokens, columns] that depend on each other."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * 0.1
    mixing = torch.randn(columns // 4, columns, generator=generator)
    few = torch.randn(400, columns // 4, generator=generator)
    noise = torch.randn(400, columns, generator=generator) * 0.3
    return weight, few @ mixing + noise


def by_definition(weight: Tensor, moments: Tensor, groups: Groups) -> Tensor:
    """Return codes column by column, each time with the inverse of what is left.

    Source: Frantar et al. (arXiv 2210.17323), equations 2 and 3.
    """
    left = moments.double() + 0.01 * moments.double().diagonal().mean() * torch.eye(len(moments))
    rest, codes = weight.double().clone(), torch.zeros_like(weight)
    order = moments.diagonal().double().argsort(descending=True).tolist()
    for number, column in enumerate(order):
        scale, minimum = groups.scales[:, column // 32], groups.minimums[:, column // 32]
        code = ((rest[:, column] - minimum) / scale).round().clamp(0, 15)
        codes[:, column] = code
        error = rest[:, column] - (code * scale + minimum)
        remaining = order[number:]
        inverse = torch.linalg.inv(left[remaining][:, remaining])
        rest[:, remaining] -= error[:, None] * inverse[0] / inverse[0, 0]
    return codes


def test_columns_are_fed_back_as_defined() -> None:
    weight, x = random_case(16, 160)  # more columns than a block
    moments = x.mT @ x
    packed = round_with_feedback(weight, moments)
    groups = fit_groups(weight, moments.diagonal())
    expected = by_definition(weight, moments, groups)
    same = (unpack_codes(packed.codes, 5) == expected).float().mean()
    assert same > 0.99  # a tie in the last bit moves a code and what follows it


@pytest.mark.parametrize("seed", range(3))
def test_outputs_change_less_than_by_plain_rounding(seed: int) -> None:
    weight, x = random_case(32, 128, seed)
    plain = unpack_weight(*quantize_weight(weight, 4)[0].tensors)
    fed_back = unpack_weight(*round_with_feedback(weight, x.mT @ x).tensors)

    def change(rounded: Tensor) -> float:
        return float(((rounded - weight) @ x.mT).square().sum())

    assert change(fed_back) < 0.5 * change(plain)


@pytest.mark.parametrize("seed", range(3))
def test_fitted_groups_change_weights_less_than_plain_ones(seed: int) -> None:
    weight, x = random_case(32, 128, seed)
    importance = x.square().sum(0)
    groups = fit_groups(weight, importance)
    values = groups.values(groups.codes(weight.unflatten(1, (-1, 32)))).flatten(1)
    plain = unpack_weight(*quantize_weight(weight, 4)[0].tensors)
    errors = [(importance * (w - weight).square()).sum() for w in (values, plain)]
    assert errors[0] < 0.9 * errors[1]
    for numbers in (groups.scales, groups.minimums):
        assert torch.equal(numbers.half().float(), numbers)


def test_equal_weights_and_dead_columns_are_no_trouble() -> None:
    weight, x = random_case(16, 64)
    weight[:, :32] = 0.25
    x[:, 40:] = 0
    packed = round_with_feedback(weight, x.mT @ x)
    restored = unpack_weight(*packed.tensors)
    assert bool(restored.isfinite().all())
    assert torch.equal(restored[:, :32], weight[:, :32])
    nothing = unpack_weight(*round_with_feedback(weight, torch.zeros(64, 64)).tensors)
    assert bool((nothing - weight).abs().max() < 0.05)


def test_calibration_text_has_whole_sequences_and_their_beginning() -> None:
    ids = Calibration(2048).ids(byte_tokenizer(beginning=True))
    assert ids.shape == (4, 512)
    assert ids[:, 0].tolist() == [0] * 4
    assert len({tuple(row.tolist()) for row in ids}) == 4
    assert Calibration(100).ids(byte_tokenizer()).shape == (0, 512)


def test_sequences_come_from_all_over_a_text() -> None:
    text = "".join(chr(97 + i) * 1000 for i in range(8))
    ids = Calibration(2048, text).ids(byte_tokenizer(beginning=True))
    letters = [byte_tokenizer().decode(row[1:3].tolist()) for row in ids]
    assert letters == ["aa", "cc", "ee", "gg"]
    assert Calibration(2048, text[:600]).ids(byte_tokenizer()).shape == (1, 512)
    with pytest.raises(InputError, match="calibration_text has less than 512 tokens"):
        Calibration(2048, text[:500]).ids(byte_tokenizer())


def test_a_text_has_weights_of_its_own(tmp_path: Path) -> None:
    folder = write_tiny_folder(
        tmp_path / "tiny", vocab_size=272, hidden_size=64, intermediate_size=128
    )
    for name in ("one", "other"):
        (tmp_path / name).write_text(name * 2000)

    def weight(file: str | None) -> torch.Tensor:
        text = None if file is None else tmp_path / file
        lm = load_model(
            folder,
            device="cpu",
            quantize="int4",
            calibration_text=text,
            cache_dir=tmp_path / "cache",
        )
        return torch.cat([x.weight.flatten() for x in packed_layers(lm.model).values()])

    weights = [weight(file) for file in (None, "one", "other", "one")]
    assert torch.equal(weights[1], weights[3])
    assert not any(torch.equal(weights[i], weights[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    for other in ({"quantize": "int8"}, {"quantize": "int4", "calibration_tokens": 0}):
        with pytest.raises(ConfigError, match="calibration_text has no effect with quantize='int"):
            load_model(folder, device="cpu", calibration_text=tmp_path / "one", **other)
    with pytest.raises(InputError, match="calibration_text='nowhere' cannot be read"):
        load_model(folder, calibration_text="nowhere")


def test_a_calibrated_model_is_nearer_to_its_original(tmp_path: Path) -> None:
    folder = write_tiny_folder(
        tmp_path / "tiny", vocab_size=272, hidden_size=64, intermediate_size=128
    )
    original = load_model(folder, device="cpu", dtype="float32")
    stages: set[str] = set()

    def load(calibration_tokens: int) -> torch.nn.Module:
        lm = load_model(
            folder,
            device="cpu",
            dtype="float32",
            quantize="int4",
            calibration_tokens=calibration_tokens,
            cache_dir=tmp_path / "cache",
            progress=lambda stage, done, total: stages.add(stage),
        )
        squares = size = 0.0
        for name, layer in packed_layers(lm.model).items():
            weight = original.model.get_submodule(name).weight
            assert layer.num_bits == (8 if name == "lm_head" else 4)
            squares += float((layer.weight - weight).square().sum())  # type: ignore[operator]
            size += float(weight.square().sum())  # type: ignore[operator]
        assert lm.rounding_error == pytest.approx((squares / size) ** 0.5, rel=1e-3)
        return lm.model

    plain = load(0)
    assert stages == {"quantize"}
    calibrated = load(2048)
    assert "calibrate" in stages
    stages.clear()
    again = load(2048)
    assert stages == {"read"}
    ids = Calibration(2048).ids(original.tokenizer, 64)[:, 32:]
    with torch.no_grad():
        truth = original.model(ids).logits
        changes = [(m(ids).logits - truth).square().mean() for m in (plain, calibrated)]
        assert torch.equal(again(ids).logits, calibrated(ids).logits)
    assert changes[1] < 0.8 * changes[0]


def test_calibration_tokens_are_no_less_than_none() -> None:
    with pytest.raises(ConfigError, match="calibration_tokens=-1"):
        load_model("organisation/model", calibration_tokens=-1)
