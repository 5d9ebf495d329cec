"""Models of a few kilobytes with random weights, built and saved with their tokenizers as any model is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<answer>{% endif %}"
)
SPECIALS = ["<pad>", "<s>", "</s>", "<unk>"]


def need_torch() -> None:
    """Skip the test where torch or transformers cannot be imported."""
    for name in ("torch", "transformers"):
        pytest.importorskip(name, reason=f"{name} is not installed here: scripts/test-tools.sh says why")


def tokenizer(*, template: str | None = None) -> Any:
    """One token for each byte: a Chinese character is three of them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIALS, *alphabet])}
    plain = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    made.chat_template = template
    return made


def llama(directory: Path, *, seed: int = 7) -> Path:
    """A causal model with a chat template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    words = tokenizer(template=TEMPLATE)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.5,  # so that another token makes another answer
    )
    return _saved(LlamaForCausalLM(config), words, directory)


def bart(directory: Path, *, seed: int = 7) -> Path:
    """A sequence-to-sequence model."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    torch.manual_seed(seed)
    words = tokenizer()
    config = BartConfig(
        vocab_size=len(words),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
        forced_bos_token_id=None,
        init_std=0.5,
    )
    return _saved(BartForConditionalGeneration(config), words, directory)


def _saved(model: Any, words: Any, directory: Path) -> Path:
    model.eval().save_pretrained(directory)
    words.save_pretrained(directory)
    return directory
