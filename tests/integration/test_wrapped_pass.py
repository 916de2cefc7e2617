"""Models of pictures and text: pictures are causal tokens like others, or they are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

from streamingllm import SinkCache
from streamingllm.errors import UnsupportedFeatureError
from tests.reference.family import COMMON, HEAD_DIM, with_random_weights

IMAGE, NUM_PATCHES, PATCH = 70, 4, 14
TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
TOWER |= {"num_attention_heads": 2, "image_size": 2 * PATCH, "patch_size": PATCH}
IDS = torch.tensor([[1, 5, *[IMAGE] * NUM_PATCHES, 9, 17, 33, 4, 28, 11, 6, 52]])
PICTURE = torch.linspace(-1, 1, 3 * (2 * PATCH) ** 2).sin().view(1, 3, 2 * PATCH, 2 * PATCH)


def build(family: str, tower: str, **fields: Any) -> PreTrainedModel:
    text = COMMON | {"model_type": fields.pop("text"), "head_dim": HEAD_DIM}
    config = AutoConfig.for_model(
        family,
        text_config=text,
        vision_config=TOWER | {"model_type": tower},
        image_token_id=IMAGE,
        **fields,
    )
    transformers.logging.set_verbosity_error()
    with torch.random.fork_rng():
        model = AutoModelForImageTextToText.from_config(config)
    return with_random_weights(model).double()


def llava() -> PreTrainedModel:
    return build("llava", "clip_vision_model", text="llama", image_token_index=IMAGE)


def run(model: PreTrainedModel, cache: SinkCache, sizes: list[int], **picture: Tensor) -> Tensor:
    """Feed the picture with the first chunk; return all logits."""
    first, *rest = IDS.split(sizes, dim=1)
    with torch.no_grad():
        logits = [model(input_ids=first, past_key_values=cache, **picture).logits]
        logits += [model(input_ids=ids, past_key_values=cache).logits for ids in rest]
    return torch.cat(logits, dim=1)


@pytest.mark.parametrize("sizes", [[14], [7, 7], [6, 1, 1, 6]])
def test_a_picture_streams_as_the_tokens_that_stand_for_it(sizes: list[int]) -> None:
    model, picture = llava(), PICTURE.double()
    with torch.no_grad():
        dense = model(input_ids=IDS, pixel_values=picture).logits
        other = model(input_ids=IDS, pixel_values=-picture).logits
    assert float((dense - other).abs().max()) > 0.1
    with SinkCache(model, 4, 28) as cache:
        logits = run(model, cache, sizes, pixel_values=picture)
    torch.testing.assert_close(logits, dense, rtol=0, atol=1e-4)
    with torch.no_grad():
        again = model(input_ids=IDS, pixel_values=picture).logits
    assert torch.equal(again, dense)


def test_a_pass_that_fails_leaves_the_next_one_whole() -> None:
    model = llava()
    with SinkCache(model, 4, 28) as cache:
        with pytest.raises(ValueError, match="image"):  # there is no room for the picture
            model(input_ids=IDS[:, :3], past_key_values=cache, pixel_values=PICTURE.double())
        assert cache.num_seen_tokens == 0
        logits = run(model, cache, [14], pixel_values=PICTURE.double())
    with torch.no_grad():
        dense = model(input_ids=IDS, pixel_values=PICTURE.double()).logits
    torch.testing.assert_close(logits, dense, rtol=0, atol=1e-4)


def test_a_picture_that_is_seen_in_both_directions_is_refused() -> None:
    model = build(
        "gemma3",
        "siglip_vision_model",
        text="gemma3_text",
        mm_tokens_per_image=NUM_PATCHES,
    )
    kinds = (IDS == IMAGE).long()
    with SinkCache(model, 4, 28) as cache:
        with pytest.raises(UnsupportedFeatureError, match=r"gives pictures masks of their own"):
            run(model, cache, [14], pixel_values=PICTURE.double(), token_type_ids=kinds)
        text = torch.arange(3, 17)[None]
        with torch.no_grad():
            logits = model(input_ids=text, past_key_values=cache).logits
            dense = model(input_ids=text).logits
    torch.testing.assert_close(logits, dense, rtol=0, atol=1e-4)
