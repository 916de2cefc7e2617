"""The chat templates of families that people run, each with a tokenizer of bytes and its marks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from tokenizers import AddedToken

from streamingllm import LanguageModel
from tests.reference.tiny_folder import byte_tokenizer
from tests.reference.tiny_llama import new_llama
from tests.reference.tiny_lm import tiny_lm

FOLDER = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Family:
    """What is known of a family from its model cards, not from the code under test.

    Args:
        name: of the template's file.
        marks: special tokens.
        end: the mark that ends an answer.
        bos: the beginning of a stream; "" for none.
        lead: what an answer writes before its text.
        words: added tokens that are not special.
        has_system: whether a system prompt comes before the first turn and stays there.
        is_stable: whether old messages are rendered as when they were new.
        opens_with: what the pinned prefix ends with, for the system prompt "Be kind.".
    """

    name: str
    marks: tuple[str, ...]
    end: str
    bos: str = ""
    lead: str = ""
    words: tuple[str, ...] = ()
    has_system: bool = True
    is_stable: bool = True
    opens_with: str = ""

    def lm(self, plain: LanguageModel) -> LanguageModel:
        """Return a model with this family's template and marks."""
        tokenizer = byte_tokenizer()
        tokenizer.chat_template = (FOLDER / f"{self.name}.jinja").read_text(encoding="utf-8")
        marks = [AddedToken(mark, special=True, normalized=False) for mark in self.marks]
        words = [AddedToken(word, special=False, normalized=False) for word in self.words]
        tokenizer.add_tokens([*marks, *words])
        tokenizer.bos_token = self.bos or None
        tokenizer.eos_token = self.end
        return replace(plain, tokenizer=tokenizer, name=self.name)


@cache
def generating_lm() -> LanguageModel:
    """A tiny random model that can generate the marks of each family."""
    fields = {"hidden_size": 64, "intermediate_size": 96, "initializer_range": 0.3}
    return replace(tiny_lm(), model=new_llama(vocab_size=300, eos_token_id=None, **fields))


_CHATML = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
_LLAMA = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_MISTRAL = (
    *("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]"),
    *("[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
)
_SYSTEM_PROMPT = ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[CALL_ID]", "[ARGS]", "[TOOL_CONTENT]")
_GEMMA = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")
_PHI = ("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_DEEPSEEK = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>")
_DEEPSEEK_END = "<｜end▁of▁sentence｜>"
_TOOLS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
_HARMONY = ("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>", "<|call|>")

FAMILIES = [
    Family("llama-3", _LLAMA, "<|eot_id|>", "<|begin_of_text|>", opens_with="<|eot_id|>"),
    Family("llama-3.1", _LLAMA, "<|eot_id|>", "<|begin_of_text|>", opens_with="<|eot_id|>"),
    Family("llama-3.2", _LLAMA, "<|eot_id|>", "<|begin_of_text|>", opens_with="<|eot_id|>"),
    Family("qwen-2.5", _CHATML, "<|im_end|>", words=_TOOLS, opens_with="<|im_end|>\n"),
    Family(
        "qwen-3",
        _CHATML,
        "<|im_end|>",
        words=(*_TOOLS, "<think>", "</think>"),
        opens_with="<|im_end|>\n",
    ),
    Family("qwen-3-instruct-2507", _CHATML, "<|im_end|>", words=_TOOLS, opens_with="<|im_end|>\n"),
    Family("gemma-2", _GEMMA, "<end_of_turn>", "<bos>", has_system=False),
    Family("gemma-3", _GEMMA, "<end_of_turn>", "<bos>", opens_with="user\nBe kind."),
    Family("mistral-v1", ("<s>", "</s>"), "</s>", "<s>", lead=" ", opens_with="[INST] Be kind."),
    Family(
        "mistral-v3",
        _MISTRAL,
        "</s>",
        "<s>",
        lead=" ",
        is_stable=False,  # the system prompt is always in the last turn
        opens_with="[INST] Be kind.",
    ),
    Family("mistral-nemo", _MISTRAL, "</s>", "<s>", is_stable=False, opens_with="[INST]Be kind."),
    Family(
        "mistral-small-3.2",
        (*_MISTRAL, *_SYSTEM_PROMPT),
        "</s>",
        "<s>",
        opens_with="Be kind.[/SYSTEM_PROMPT]",
    ),
    Family("phi-3", _PHI, "<|end|>", opens_with="Be kind.<|end|>\n<|user|>"),
    Family("phi-3.5", _PHI, "<|end|>", opens_with="Be kind.<|end|>\n<|user|>"),
    Family("phi-4", (*_CHATML, "<|im_sep|>"), "<|im_end|>", opens_with="<|im_end|>"),
    Family(
        "smollm-3", _CHATML, "<|im_end|>", words=("<think>", "</think>"), opens_with="<|im_end|>\n"
    ),
    Family(
        "deepseek-v3",
        _DEEPSEEK,
        _DEEPSEEK_END,
        _DEEPSEEK[0],
        is_stable=False,  # "<think>" opens each answer and is dropped from old ones
        opens_with="Be kind.",
    ),
    Family("deepseek-v3.1", _DEEPSEEK, _DEEPSEEK_END, _DEEPSEEK[0], opens_with="Be kind."),
    Family(
        "deepseek-r1-distill",
        _DEEPSEEK,
        _DEEPSEEK_END,
        _DEEPSEEK[0],
        is_stable=False,
        opens_with="Be kind.",
    ),
    Family(
        "gpt-oss", _HARMONY, "<|return|>", lead="<|channel|>final<|message|>", opens_with="<|end|>"
    ),
]
