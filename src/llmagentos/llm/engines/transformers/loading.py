"""A model with its tokenizer, from a directory or the hub: safetensors only, no code from the repository."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from llmagentos.api.llm import ChatRequest, Message
from llmagentos.core.errors import ConfigError, InvalidInput
from llmagentos.llm.engines.local import Spec

_LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")
_FALLBACK_CONTEXT = 2048
_SANE = 10**7  # tokenizers without a limit name an astronomical one


@dataclass(frozen=True, slots=True)
class Loaded:
    """What serves calls."""

    model: Any
    tokenizer: Any
    context: int
    """Tokens of prompt and answer together; with an encoder of each."""
    ends: frozenset[int]
    start: int
    """With which token a decoder begins that follows an encoder."""
    forced: tuple[int, ...]

    @property
    def encodes(self) -> bool:
        """Whether an encoder reads the text (BART, T5)."""
        return bool(self.model.config.is_encoder_decoder)

    def tokens(self, request: ChatRequest) -> list[int]:
        """The prompt: by the tokenizer's chat template, without one the text of the messages."""
        messages = [_plain(message) for message in request.messages]
        if self.encodes or not self.tokenizer.chat_template:
            return list(self.tokenizer("\n\n".join(message["content"] for message in messages)).input_ids)
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **(request.chat_template_kwargs or {})
            )
        except Exception as error:  # a template is a program: it raises what it likes (jinja2, its own refusals)
            raise InvalidInput(f"the chat template of this model refuses the messages: {error}") from None
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)


def load(spec: Spec) -> Loaded:
    """Raises `ConfigError` for what cannot be loaded."""
    assert spec.path is not None
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    disable_progress_bar()
    device = _device(spec.device)
    try:
        config = AutoConfig.from_pretrained(spec.path)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = kind.from_pretrained(
            spec.path, config=config, use_safetensors=True, dtype=torch.float32 if device == "cpu" else "auto"
        )
        tokenizer = AutoTokenizer.from_pretrained(spec.path)
        model = model.to(device).eval()
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"transformers cannot load {spec.path!r}: {first}",
            hint="a directory needs config.json, *.safetensors and the tokenizer's files (save_pretrained writes them)",
        ) from None
    context = spec.context or _context(model.config, tokenizer)
    settings = model.generation_config
    start = _first(settings.decoder_start_token_id, model.config.bos_token_id)
    return Loaded(model, tokenizer, context, _ends(settings, tokenizer), start, _forced(settings))


def _device(wanted: str) -> str:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no GPU that torch can use", hint="device: cpu, or torch built for CUDA")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def _context(config: Any, tokenizer: Any) -> int:
    for name in _LENGTHS:
        if (length := getattr(config, name, None)) is not None:
            return int(length)
    return int(tokenizer.model_max_length) if tokenizer.model_max_length < _SANE else _FALLBACK_CONTEXT


def _ends(settings: Any, tokenizer: Any) -> frozenset[int]:
    found = settings.eos_token_id if settings.eos_token_id is not None else tokenizer.eos_token_id
    if found is None:
        return frozenset()
    return frozenset(found if isinstance(found, list) else [found])


def _forced(settings: Any) -> tuple[int, ...]:
    """BART's summarising models name the token with which every answer begins."""
    return () if settings.forced_bos_token_id is None else (int(settings.forced_bos_token_id),)


def _first(*values: int | None) -> int:
    return next((int(value) for value in values if value is not None), 0)


def _plain(message: Message) -> dict[str, Any]:
    """A message whose content is text. Raises `InvalidInput` for pictures and sound."""
    content = message.content
    if isinstance(content, list):
        if any(part.get("type") != "text" for part in content):
            raise InvalidInput("this engine reads text only", param="messages")
        content = "\n".join(str(part.get("text", "")) for part in content)
    return {"role": message.role, "content": content or ""}
