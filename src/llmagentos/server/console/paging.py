"""Long lists a page at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import urlencode

T = TypeVar("T")
SIZE = 100


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of a list: from the `first` to the `last` of `total`, counted from 1, and where the others are."""

    items: Sequence[T]
    first: int
    last: int
    total: int
    previous: str | None
    next: str | None


def page(
    items: Sequence[T], number: str | None, query: Mapping[str, str], *, path: str = "", size: int = SIZE
) -> Page[T]:
    """Page `number` (a query parameter, from 1; the nearest there is), with links to `path` that keep `query`."""
    last = max(1, -(-len(items) // size))
    wanted = int(number) if number and number.isascii() and number.isdigit() and len(number) < 9 else 1
    chosen = min(max(1, wanted), last)
    begin = (chosen - 1) * size
    shown = items[begin : begin + size]

    def link(to: int) -> str | None:
        kept = {name: value for name, value in query.items() if value}
        return f"{path}?" + urlencode({**kept, "page": to}) if 1 <= to <= last else None

    return Page(shown, begin + 1 if shown else 0, begin + len(shown), len(items), link(chosen - 1), link(chosen + 1))
