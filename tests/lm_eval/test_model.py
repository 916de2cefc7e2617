from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from streamingllm import LanguageModel, Stream, StreamConfig
from streamingllm.errors import ConfigError
from tests.reference.tiny_lm import END, tiny_lm

lm_eval = pytest.importorskip("lm_eval")
Instance = pytest.importorskip("lm_eval.api.instance").Instance
StreamingLM = pytest.importorskip("streamingllm_lm_eval").StreamingLM

TEXT = "the quick brown fox jumps over the lazy dog and " * 3 + "so"  # no space at its end


@pytest.fixture
def lm() -> LanguageModel:
    return tiny_lm()


def request(kind: str, *arguments: object) -> Any:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


def plain_loglikelihood(lm: LanguageModel, context: str, continuation: str) -> tuple[float, bool]:
    """Compute by one pass of transformers."""
    ids, start = lm.encode(context + continuation), len(lm.encode(context))
    with torch.inference_mode():
        logits = lm.model(ids[None]).logits[0, start - 1 : -1].log_softmax(-1)
    right = ids[start:]
    return float(logits.gather(-1, right[:, None]).sum()), bool((logits.argmax(-1) == right).all())


def test_continuations_are_scored_as_by_transformers(lm: LanguageModel) -> None:
    model = StreamingLM(lm, cache="4+1020")
    pairs = [(TEXT, " a cat"), ("Who?", " me"), (TEXT, " a dog ran off"), (TEXT, "x")]
    found = model.loglikelihood([request("loglikelihood", *pair) for pair in pairs])
    for pair, (value, is_greedy) in zip(pairs, found, strict=True):
        expected, expected_greedy = plain_loglikelihood(lm, *pair)
        assert value == pytest.approx(expected, rel=1e-4)
        assert is_greedy == expected_greedy


def test_the_most_probable_continuation_is_greedy(lm: LanguageModel) -> None:
    model = StreamingLM(lm, cache="dense")
    stream = Stream(lm.model)
    stream.feed(lm.encode(TEXT))
    tokens = list(stream.generate(3))
    ((_, is_greedy),) = model._loglikelihood_tokens([(("", ""), model.tok_encode(TEXT), tokens)])
    assert is_greedy


def test_a_cache_changes_scores_once_it_evicts(lm: LanguageModel) -> None:
    pair = request("loglikelihood", TEXT, " a dog")
    found = {
        cache: StreamingLM(lm, cache=cache).loglikelihood([pair])[0][0]
        for cache in ("dense", "4+28", "window:32", "4+1020")
    }
    assert found["dense"] == pytest.approx(found["4+1020"], rel=1e-4)
    assert len({round(value, 3) for value in found.values()}) == 3
    stream = Stream(lm.model, StreamConfig(4, 28))
    ids = lm.encode(TEXT + " a dog")
    logits = stream.feed(ids).log_softmax(-1)
    right = ids[-6:]
    expected = float(logits[-7:-1].gather(-1, right[:, None]).sum())
    assert found["4+28"] == pytest.approx(expected, rel=1e-4)


def test_whole_texts_are_one_stream(lm: LanguageModel) -> None:
    model = StreamingLM(lm, cache="4+28")
    (found,) = model.loglikelihood_rolling([request("loglikelihood_rolling", TEXT)])
    ids = torch.cat((torch.tensor([model.prefix_token_id]), lm.encode(TEXT)))
    logits = Stream(lm.model, StreamConfig(4, 28)).feed(ids).log_softmax(-1)
    assert found == pytest.approx(float(logits[:-1].gather(-1, ids[1:, None]).sum()), rel=1e-4)


def test_an_answer_ends_before_the_first_stop_string(lm: LanguageModel) -> None:
    model = StreamingLM(lm, cache="4+28")
    stream = Stream(lm.model, StreamConfig(4, 28))
    stream.feed(lm.encode(TEXT))
    whole = lm.decode(list(stream.generate(12))).partition(END)[0]
    settings = {"until": [], "max_gen_toks": 12}
    assert model.generate_until([request("generate_until", TEXT, settings)]) == [whole]
    assert whole, "this test needs an answer"
    stop = whole[len(whole) // 2]
    settings["until"] = [stop]
    assert model.generate_until([request("generate_until", TEXT, settings)]) == [
        whole.partition(stop)[0]
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 8}, "batch_size=8 is not 1"),
        ({"cache": "fresh:100"}, "choose dense"),
        ({"cache": "4 and 20"}, "names no strategy"),
    ],
)
def test_options_without_an_effect_are_refused(
    lm: LanguageModel, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        StreamingLM(lm, **arguments)


def test_unknown_settings_of_generation_are_refused(lm: LanguageModel) -> None:
    model = StreamingLM(lm)
    with pytest.raises(ConfigError, match="gen_kwargs has num_beams"):
        model.generate_until([request("generate_until", "a", {"num_beams": 4})])


def test_the_harness_runs_a_task_with_local_data(lm: LanguageModel, tmp_path: Path) -> None:
    rows = [
        {"query": "Question: what is wet?", "choices": ["water", "sand"], "gold": 0},
        {"query": "Question: what is dry?", "choices": ["a lake", "a desert"], "gold": 1},
    ]
    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "local_choice",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{query}}\nAnswer:",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}],
    }
    model = StreamingLM(lm, cache="4+28")
    found = lm_eval.simple_evaluate(model=model, tasks=[task], bootstrap_iters=10)
    expected = 0.0
    for row in rows:
        context = f"{row['query']}\nAnswer:"
        scores = [
            model.loglikelihood([request("loglikelihood", context, f" {choice}")])[0][0]
            for choice in row["choices"]  # type: ignore[attr-defined]
        ]
        expected += scores.index(max(scores)) == row["gold"]
    assert found["results"]["local_choice"]["acc,none"] == expected / 2
    assert found["config"]["model_cache"] == "4+28"
