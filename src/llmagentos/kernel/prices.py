"""What tokens cost: prices per model, each valid from a date on.

Money is counted in whole nano-units (1e-9 of the currency), so that sums are exact.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

NANO = 1_000_000_000
_PER = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """Currency units for a million tokens of `model`, from `valid_from` (seconds since the epoch) on."""

    model: str
    tokens_in: Decimal
    tokens_out: Decimal
    tokens_cached: Decimal | None = None
    """Input that the engine had cached; as other input when None."""
    valid_from: float = 0.0

    def cost(self, tokens_in: int, tokens_out: int, tokens_cached: int = 0) -> int:
        """Nano-units for a call; `tokens_cached` are part of `tokens_in`. Fractions are rounded up."""
        cached = self.tokens_in if self.tokens_cached is None else self.tokens_cached
        total = (tokens_in - tokens_cached) * self.tokens_in + tokens_cached * cached + tokens_out * self.tokens_out
        return int((total * NANO / _PER).to_integral_value(ROUND_CEILING))


class PriceTable:
    """Prices by model and date. Models without a price cost nothing: they run on our own machines."""

    def __init__(self, prices: Iterable[Price]) -> None:
        self._prices: dict[str, list[Price]] = {}
        for price in sorted(prices, key=lambda price: price.valid_from):
            self._prices.setdefault(price.model, []).append(price)

    def at(self, model: str, moment: float) -> Price | None:
        """The price of a model at a wall-clock time."""
        known = self._prices.get(model, [])
        place = bisect_right(known, moment, key=lambda price: price.valid_from)
        return known[place - 1] if place else None

    def cost(self, model: str, tokens_in: int, tokens_out: int, moment: float, *, tokens_cached: int = 0) -> int:
        """Nano-units for a call to `model` at a wall-clock time."""
        price = self.at(model, moment)
        return 0 if price is None else price.cost(tokens_in, tokens_out, tokens_cached)
