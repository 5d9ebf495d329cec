"""Prices: by date, exact, never rounded down."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from llmagentos.kernel.prices import NANO, Price, PriceTable


def test_the_price_of_the_day_counts() -> None:
    table = PriceTable(
        [Price("m", Decimal(3), Decimal(15), valid_from=100.0), Price("m", Decimal(1), Decimal(5), valid_from=200.0)]
    )
    assert table.cost("m", 1_000_000, 0, 99.0) == 0
    assert table.cost("m", 1_000_000, 0, 100.0) == 3 * NANO
    assert table.cost("m", 0, 1_000_000, 250.0) == 5 * NANO
    assert table.at("other", 250.0) is None


def test_cached_input_has_its_own_price() -> None:
    price = Price("m", Decimal(3), Decimal(15), tokens_cached=Decimal("0.3"))
    assert price.cost(1_000_000, 0, tokens_cached=1_000_000) == NANO * 3 // 10
    assert Price("m", Decimal(3), Decimal(15)).cost(10, 0, 10) == Price("m", Decimal(3), Decimal(15)).cost(10, 0)


def test_a_fraction_costs_a_whole_nano_unit() -> None:
    assert Price("m", Decimal("0.0001"), Decimal(0)).cost(1, 0) == 1


@given(st.decimals(0, 100, places=4), st.integers(0, 10**7), st.integers(0, 10**7))
def test_parts_never_cost_less_than_the_whole(price: Decimal, one: int, other: int) -> None:
    of = Price("m", price, price).cost
    assert of(one, 0) + of(other, 0) >= of(one + other, 0)
