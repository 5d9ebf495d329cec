"""Sequences that are generated together: their keys and values in one tensor a layer, aligned at the right.

A row that joins or leaves changes the tensors between two steps. Shorter rows are padded at the left,
where the attention mask hides them; models whose positions cannot be given are only joined at equal length.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput


@dataclass(slots=True)
class Rows:
    """The state of some sequences: `mask` says which columns of a row are its own."""

    cache: Any
    mask: Any
    source: Any = None
    """What the encoder made of the texts, and which of its columns are a row's own."""
    source_mask: Any = None

    def __len__(self) -> int:
        return int(self.mask.shape[0])

    @property
    def width(self) -> int:
        """Columns: the longest row's tokens."""
        return int(self.mask.shape[1])

    def join(self, other: Rows) -> None:
        """Take the rows of `other` as the last ones."""
        for mine, theirs in zip(_layers(self.cache), _layers(other.cache), strict=True):
            width = max(mine.keys.shape[-2], theirs.keys.shape[-2])
            mine.keys = torch.cat([_wide(mine.keys, width, -2), _wide(theirs.keys, width, -2)])
            mine.values = torch.cat([_wide(mine.values, width, -2), _wide(theirs.values, width, -2)])
        self.mask = _stacked(self.mask, other.mask)
        if self.source is not None:
            width = max(self.source.shape[1], other.source.shape[1])
            self.source = torch.cat([_wide(self.source, width, 1), _wide(other.source, width, 1)])
            self.source_mask = _stacked(self.source_mask, other.source_mask)

    def keep(self, rows: list[int]) -> None:
        """Drop all rows but these, and the columns that none of them has."""
        chosen = torch.tensor(rows, device=self.mask.device)
        self.mask, first = _trimmed(self.mask[chosen])
        own, crossed = _split(self.cache)
        _select(own, chosen, first)
        if self.source is not None:
            self.source_mask, first = _trimmed(self.source_mask[chosen])
            self.source = self.source[chosen, first:]
            _select(crossed, chosen, first)


class Stepper:
    """A model as a function from rows and their next tokens to logits."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.encodes = bool(model.config.is_encoder_decoder)
        takes = inspect.signature(model.forward).parameters
        self.positions = "position_ids" in takes and not self.encodes
        """Whether rows of unequal length can be joined."""
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}

    def begin(self) -> Rows:
        """A row without tokens."""
        return Rows(DynamicCache(), self._ones(1, 0))

    def read(self, rows: Rows, tokens: list[int]) -> Any:
        """Append more of the prompt to a single row; the logits after it."""
        width = rows.width
        given = {"position_ids": self._numbers([list(range(width, width + len(tokens)))])} if self.positions else {}
        rows.mask = self._ones(1, width + len(tokens))
        found = self._model(
            input_ids=self._numbers([tokens]),
            attention_mask=rows.mask,
            past_key_values=rows.cache,
            use_cache=True,
            **given,
            **self._last,
        )
        return found.logits[:, -1]

    def encode(self, tokens: list[int], start: int) -> tuple[Rows, Any]:
        """A row whose text the encoder has read and whose answer begins with `start`; the logits after that."""
        text, mask = self._numbers([tokens]), self._ones(1, len(tokens))
        source = self._model.get_encoder()(input_ids=text, attention_mask=mask).last_hidden_state
        rows = Rows(EncoderDecoderCache(DynamicCache(), DynamicCache()), self._ones(1, 0), source, mask)
        return rows, self.step(rows, [start])

    def step(self, rows: Rows, tokens: list[int]) -> Any:
        """Append one token to each row; the logits after it, row by row."""
        rows.mask = torch.cat([rows.mask, self._ones(len(rows), 1)], 1)
        given: dict[str, Any] = {}
        if self.encodes:
            given["decoder_input_ids"] = self._numbers([[token] for token in tokens])
            given["encoder_outputs"] = BaseModelOutput(last_hidden_state=rows.source)
            given["attention_mask"] = rows.source_mask
        else:
            given["input_ids"] = self._numbers([[token] for token in tokens])
            given["attention_mask"] = rows.mask
            if self.positions:
                given["position_ids"] = rows.mask.sum(1, keepdim=True) - 1
        return self._model(past_key_values=rows.cache, use_cache=True, **given, **self._last).logits[:, -1]

    def _numbers(self, values: list[list[int]]) -> Any:
        return torch.tensor(values, dtype=torch.long, device=self._model.device)

    def _ones(self, rows: int, columns: int) -> Any:
        return torch.ones((rows, columns), dtype=torch.long, device=self._model.device)


def _split(cache: Any) -> tuple[list[Any], list[Any]]:
    """The layers of a cache: its own, and those for the encoder's text."""
    if isinstance(cache, EncoderDecoderCache):
        return list(cache.self_attention_cache.layers), list(cache.cross_attention_cache.layers)
    return list(cache.layers), []


def _layers(cache: Any) -> list[Any]:
    own, crossed = _split(cache)
    return own + crossed


def _select(layers: list[Any], chosen: Any, first: int) -> None:
    for layer in layers:
        layer.keys = layer.keys[chosen, :, first:]
        layer.values = layer.values[chosen, :, first:]


def _trimmed(mask: Any) -> tuple[Any, int]:
    """A mask without the columns that are no row's own, and how many these were."""
    first = int(mask.any(0).int().argmax())
    return mask[:, first:], first


def _stacked(mine: Any, theirs: Any) -> Any:
    width = max(mine.shape[1], theirs.shape[1])
    return torch.cat([_wide(mine, width, 1), _wide(theirs, width, 1)])


def _wide(tensor: Any, width: int, dimension: int) -> Any:
    """`tensor` with zeros at its left up to `width`."""
    missing = width - tensor.shape[dimension]
    if missing == 0:
        return tensor
    shape = list(tensor.shape)
    shape[dimension] = missing
    return torch.cat([tensor.new_zeros(shape), tensor], dimension)
