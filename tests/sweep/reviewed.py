"""Families that are refused, by a reason that was read in their code, and what is not built.

A family that is on neither list streams.
"""

from __future__ import annotations

from collections.abc import Mapping

# The reason, as a refusal gives it, and the families it is true of.
REFUSED: Mapping[str, str] = {
    "an encoder-decoder reads its whole input at once": """
        florence2 pix2struct pp_formulanet t5gemma2 udop vision-encoder-decoder""",
    "it is not a decoder that predicts next tokens": "blt pi0",
    "its decoder does not run on tokens and positions alone": "diffusion_gemma idefics",
    "its positions are learned": """
        bart bert bert-generation big_bird bigbird_pegasus biogpt blenderbot blenderbot-small blip
        blip-2 camembert data2vec-text electra ernie git gpt-sw3 gpt2 gpt_bigcode gpt_neo
        instructblip instructblipvideo mbart megatron-bert mvp opt plbart prophetnet rembert
        roberta roberta-prelayernorm roc_bert trocr whisper xlm xlm-roberta xlm-roberta-xl xmod""",
    "its positions come from a table of sines": "marian pegasus roformer",
    "it scales attention by absolute positions": "beam mistral_large4",
    "it reads a prompt in both directions": "paligemma",
    "it makes rotary tables in an unknown way": "ernie4_5_vl_moe",
    "the keys of layer 0 follow no known rotary or position-free encoding": """
        ctrl kosmos-2 kosmos-2.5""",
    "its attention does more than a mask, a softmax and relative positions": """
        doge inkling_text mllama""",
    "it computes attention outside transformers' attention interface": """
        cpmant modernbert-decoder openai-gpt reformer xglm xlnet""",
    "its layers attend in fixed chunks": "llama4 llama4_text",
    "its layers attend to compressed blocks of tokens": "deepseek_v4",
    "its layers keep the whole prompt visible": "unlimited_ocr",
    "its recurrent (state-space or linear attention) layers": """
        falcon_mamba glm5_next mamba mamba2 qwen4_exp qwen4_exp_text rwkv xlstm""",
    # Its wrapper runs a decoder that ends in logits, also over padded streams.
    "a check of it needs what hybrids cannot do": "nemotron_h_omni",
    # A router in float32, where the sweep computes in float64. Else their attention refuses them.
    "its own pass over one token fails": "inkling2 inkling2_text",
    "it takes no cache except one of its own class": "minimax",
    "layer 0 keeps its recurrent state in itself": "recurrent_gemma",
}
REFUSED_VARIANTS: Mapping[str, str] = {
    "llama4_text, no chunks": "it scales attention by absolute positions",
    "minimax_m3_vl_text, sparse": "its layers attend to blocks of tokens that they choose",
}
NOT_BUILT: Mapping[str, str] = {
    "dots3_note": "its configuration lists 42 layers; its text side is dots3_note_text",
    "evolla": "no class of image and text takes its configuration",
    "fast_vlm": "needs timm",
    "gemma3n": "needs timm; its text side is gemma3n_text",
    "gemma4_assistant": "drafts for another model, whose keys it reads",
    "gemma4_unified_assistant": "drafts for another model, whose keys it reads",
    "granite4_vision": "its projectors have sizes that depend on one another",
    "inkling_mm_model": "needs scipy",
    "muse_spark": "its vision tower has sizes that depend on one another",
    "musicgen": "an encoder-decoder of text and sound",
    "musicgen_melody": "an encoder-decoder of text and sound",
    "perception_lm": "needs timm",
}


def refusal_of(name: str) -> str | None:
    """Return the reviewed reason that refuses a family; None if it has to stream."""
    reasons = {family: reason for reason, names in REFUSED.items() for family in names.split()}
    return reasons.get(name, REFUSED_VARIANTS.get(name))
