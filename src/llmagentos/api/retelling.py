"""A text that is told again from its beginning: only what was not heard before is new."""

from __future__ import annotations


class Retold(ValueError):
    """The text is another one now."""


class Retelling:
    """`told` piece by piece; `again` when it begins anew."""

    def __init__(self) -> None:
        self._heard: list[str] = []
        self._before = ""

    @property
    def left(self) -> str:
        """What was heard before and not told again yet."""
        return self._before

    def told(self, piece: str) -> str:
        """What of `piece` is new. Raises `Retold` when it is not what was heard before."""
        if not self._before:
            self._heard.append(piece)
            return piece
        known = piece[: len(self._before)]
        if not self._before.startswith(known):
            raise Retold
        self._before = self._before[len(known) :]
        new = piece[len(known) :]
        if new:
            self._heard.append(new)
        return new

    def again(self) -> None:
        """What comes now begins at the beginning."""
        text = "".join(self._heard)
        self._heard, self._before = [text], text
