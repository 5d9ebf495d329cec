"""The next token of one call: what the request says about chance, with a generator of its own for its seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from llmagentos.api.llm import ChatRequest
from llmagentos.core.errors import InvalidInput

_GREEDY = 1e-4  # a temperature below it leaves nothing to chance


@dataclass(frozen=True, slots=True)
class Picked:
    """A token, its log probability, and the most likely tokens with theirs when they were asked for."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Picks the tokens of one call. `defaults` is the model's own generation configuration."""

    def __init__(self, request: ChatRequest, defaults: Any, device: Any) -> None:
        chance = bool(getattr(defaults, "do_sample", False))
        self._temperature = _given(request.temperature, defaults.temperature if chance else None, 1.0)
        self._top_p = _given(request.top_p, defaults.top_p if chance else None, 1.0)
        self._top_k = int(_given(request.top_k, defaults.top_k if chance else None, 0))
        self._min_p = request.min_p or 0.0
        self._repeat = _given(request.repeat_penalty, getattr(defaults, "repetition_penalty", None), 1.0)
        self._frequency = request.frequency_penalty or 0.0
        self._presence = request.presence_penalty or 0.0
        self._bias = {_token(key): value for key, value in (request.logit_bias or {}).items()}
        self._logprobs = bool(request.logprobs)
        self._top = request.top_logprobs or 0
        self._generator = torch.Generator(device=device)
        if request.seed is not None:
            self._generator.manual_seed(request.seed % 2**63)
        else:
            self._generator.seed()

    def pick(self, logits: Any, before: list[int], produced: list[int]) -> Picked:
        """The next token by its `logits`. `before` is the prompt, `produced` the answer so far."""
        raw = logits.float()
        adjusted = self._adjusted(raw, before, produced)
        if self._temperature < _GREEDY:
            token = int(adjusted.argmax())
        else:
            chances = self._chances(adjusted / self._temperature)
            token = int(torch.multinomial(chances, 1, generator=self._generator))
        if not self._logprobs:
            return Picked(token)
        logs = torch.log_softmax(raw, -1)
        top = torch.topk(logs, min(self._top, logs.shape[-1])) if self._top else None
        pairs = () if top is None else tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))
        return Picked(token, float(logs[token]), pairs)

    def _adjusted(self, logits: Any, before: list[int], produced: list[int]) -> Any:
        penal = self._frequency or self._presence
        if not (penal or self._bias or self._repeat != 1.0):
            return logits
        logits = logits.clone()
        if self._repeat != 1.0 and (before or produced):
            seen = torch.tensor(sorted({*before, *produced}), device=logits.device)
            values = logits[seen]
            logits[seen] = torch.where(values > 0, values / self._repeat, values * self._repeat)
        if penal and produced:
            tokens, counts = torch.tensor(produced, device=logits.device).unique(return_counts=True)
            logits[tokens] -= self._frequency * counts + self._presence
        for token, bias in self._bias.items():
            if token < logits.shape[-1]:
                logits[token] += bias
        return logits

    def _chances(self, logits: Any) -> Any:
        if 0 < self._top_k < logits.shape[-1]:
            least = torch.topk(logits, self._top_k).values[-1]
            logits = logits.masked_fill(logits < least, float("-inf"))
        chances = torch.softmax(logits, -1)
        if self._min_p > 0:
            chances = chances.masked_fill(chances < self._min_p * chances.max(), 0.0)
        if self._top_p < 1:
            ordered, where = chances.sort(descending=True)
            beyond = ordered.cumsum(-1) - ordered >= self._top_p * ordered.sum()
            beyond[0] = False
            chances = chances.index_fill(0, where[beyond], 0.0)
        return chances


def _given(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _token(key: str) -> int:
    if not key.isascii() or not key.isdigit():
        raise InvalidInput(f"logit_bias names tokens by number, not {key!r}", param="logit_bias")
    return int(key)
