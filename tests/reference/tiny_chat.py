"""The tiny model of `tiny_folder`, tuned for chats in name only."""

from __future__ import annotations

from pathlib import Path

from transformers import GenerationConfig

from tests.reference.tiny_folder import byte_tokenizer, write_tiny_folder

END = "~"
TEMPLATE = (
    "{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}~{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)


def write_tiny_chat(folder: Path) -> Path:
    """Save the tiny model with a chat template, whose end token is one of the bytes."""
    write_tiny_folder(folder)
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = END
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    GenerationConfig(eos_token_id=None).save_pretrained(folder)
    return folder
