"""From tokens to text as it comes: no half characters, and nothing of a stop sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BROKEN = "\ufffd"  # what half of a character decodes to
_MOST_HELD = 16  # tokens; a model may really mean the broken character


class TextStream:
    """Text of one answer. `decode` turns tokens into text; `stop` are the sequences that end it."""

    def __init__(self, decode: Callable[[list[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = [sequence for sequence in stop if sequence]
        self._tokens: list[int] = []
        self._begin = 0
        """Tokens from here on are decoded together: what a token says can depend on the one before."""
        self._said = 0
        """Tokens up to here have been turned into text."""
        self._held = ""
        self.stopped = False
        """A stop sequence came: the answer is over."""

    def add(self, token: int) -> str:
        """The text that can be said after one more token; it may be empty."""
        self._tokens.append(token)
        return self._say(self._decoded(last=False), last=False)

    def end(self) -> str:
        """The rest, when no token follows."""
        return self._say(self._decoded(last=True), last=True)

    def _decoded(self, *, last: bool) -> str:
        if self._said == len(self._tokens):
            return ""
        before = self._decode(self._tokens[self._begin : self._said])
        now = self._decode(self._tokens[self._begin :])
        if now.endswith(_BROKEN) and not last and len(self._tokens) - self._said < _MOST_HELD:
            return ""
        self._begin, self._said = self._said, len(self._tokens)
        return now[len(before) :]

    def _say(self, text: str, *, last: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for at in (text.find(sequence) for sequence in self._stop) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = 0 if last else self._maybe(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _maybe(self, text: str) -> int:
        """How many characters at the end may be the beginning of a stop sequence."""
        longest = max((len(sequence) for sequence in self._stop), default=1) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(sequence.startswith(text[-size:]) for sequence in self._stop):
                return size
        return 0
