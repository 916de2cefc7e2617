"""Linear layers compute the product that the active pass chooses, and their own elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from streamingllm import SinkCache
from streamingllm.integration import linears
from streamingllm.integration.linears import (
    Products,
    active_product,
    active_products,
    fused_products,
    shadow_linears,
)
from streamingllm.kernels import native
from streamingllm.kernels.packing import pack_weight
from streamingllm.models.quantize import QuantizedLinear
from tests.reference.tiny_llama import random_ids, tiny_llama

X = torch.linspace(-1, 1, 32).view(1, 32)


@pytest.fixture
def layer() -> Iterator[nn.Linear]:
    layer = nn.Linear(32, 16)
    undo = shadow_linears(layer)
    yield layer
    undo()
    assert "forward" not in vars(layer)


def double(x: Tensor) -> Tensor:
    return 2 * x


def own(layer: nn.Linear, x: Tensor) -> Tensor:
    return nn.functional.linear(x, layer.weight, layer.bias)


def test_the_active_pass_chooses(layer: nn.Linear) -> None:
    assert torch.equal(layer(X), own(layer, X))
    with active_products({layer: double}):
        assert torch.equal(layer(X), 2 * X)
        assert torch.equal(layer(input=X), 2 * X)
    assert torch.equal(layer(X), own(layer, X))
    with active_products({}):
        assert torch.equal(layer(X), own(layer, X))


def test_the_outermost_pass_chooses(layer: nn.Linear) -> None:
    with active_products({layer: double}), active_products({}):
        assert torch.equal(layer(X), 2 * X)


def test_a_pass_that_fails_leaves_nothing(layer: nn.Linear) -> None:
    with pytest.raises(ValueError, match="broken"), active_products({layer: double}):
        raise ValueError("broken")
    assert active_product(layer) is None


def test_other_threads_do_not_see_a_pass(layer: nn.Linear) -> None:
    found: list[Tensor] = []
    with active_products({layer: double}):
        thread = threading.Thread(target=lambda: found.append(layer(X)))
        thread.start()
        thread.join()
    assert torch.equal(found[0], own(layer, X))


def test_packed_layers_look_for_a_product_too() -> None:
    codes = torch.zeros(16, 32, dtype=torch.int8)
    packed = QuantizedLinear(pack_weight(codes, torch.ones(16, 1).half(), None, 8))
    assert not packed(X).any()
    with active_products({packed: double}):
        assert torch.equal(packed(X), 2 * X)


def test_subclasses_keep_their_own_forward() -> None:
    class Doubled(nn.Linear):
        pass

    doubled = Doubled(4, 4)
    shadow_linears(doubled)
    assert "forward" not in vars(doubled)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_keep_what_torch_computes_better(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = dtype is torch.bfloat16
    biased, plain = nn.Linear(32, 32).to(dtype), nn.Linear(32, 32, bias=False).to(dtype)
    hooked = nn.Linear(32, 32, bias=False).to(dtype)
    vars(hooked)["forward"] = double
    layers = nn.ModuleList([biased, plain, hooked, nn.Linear(4, 4).double()])
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": False})
    assert list(fused_products(layers)) == ([plain] if half else [biased, plain])
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert list(fused_products(layers)) == ([] if half else [biased, plain])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_products_equal_the_layers_own(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": False})
    layers = [nn.Linear(32, 16, bias=dtype is torch.float32).to(dtype) for _ in range(2)]
    for layer, product in fused_products(nn.ModuleList(layers)).items():
        x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
        with torch.no_grad():
            torch.testing.assert_close(product(x), layer(x))
            layer.double()  # a model may be cast while it has caches
            torch.testing.assert_close(product(x.double()), layer(x.double()))


@pytest.mark.skipif(not native.load(), reason="needs the native kernels")
@pytest.mark.parametrize("where", ["stream", "gradients", "training", "no cache"])
def test_fused_products_are_for_streams_without_gradients(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[Products] = []

    def noted(products: Products) -> object:
        chosen.append(products)
        return active_products(products)

    model = tiny_llama(torch.float32)
    with SinkCache(model, 2, 12) as cache:
        monkeypatch.setattr("streamingllm.integration.streaming_pass.active_products", noted)
        model.train(where == "training")
        with torch.set_grad_enabled(where == "gradients"):
            model(random_ids(1, 9), past_key_values=None if where == "no cache" else cache)
        model.eval()
    linear_layers = {m for m in model.model.modules() if type(m) is nn.Linear}
    assert [set(products) for products in chosen] == [linear_layers] * (where == "stream")
    assert linears._active.get() is None
