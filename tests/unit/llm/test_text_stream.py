"""Text as it comes: whole characters only, nothing of a stop sequence, and in all what would be decoded at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmagentos.llm.engines.transformers.text import TextStream

TEXTS = st.text(alphabet="ab。数据 é🙂\n", max_size=30)


def decode(tokens: list[int]) -> str:
    """One token a byte, as byte-level tokenizers do at worst."""
    return bytes(tokens).decode("utf-8", "replace")


def said(text: str, stop: list[str]) -> tuple[list[str], TextStream]:
    stream, pieces = TextStream(decode, stop), list[str]()
    for token in text.encode():
        pieces.append(stream.add(token))
        if stream.stopped:
            break
    return [*pieces, stream.end()], stream


@given(TEXTS)
def test_all_of_it_comes_in_whole_characters(text: str) -> None:
    pieces, stream = said(text, [])
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces)
    assert not stream.stopped


@given(TEXTS, st.lists(st.text(alphabet="ab。数\n", min_size=1, max_size=4), max_size=3))
def test_a_stop_sequence_ends_it_and_is_never_said(text: str, stop: list[str]) -> None:
    pieces, stream = said(text, stop)
    # The stop that is complete first counts, wherever it begins.
    ends = [text.index(sequence) + len(sequence) for sequence in stop if sequence in text]
    if not ends:
        assert ("".join(pieces), stream.stopped) == (text, False)
        return
    known = text[: min(ends)]
    first = min(known.index(sequence) for sequence in stop if sequence in known)
    assert ("".join(pieces), stream.stopped) == (known[:first], True)


def test_a_model_may_mean_a_broken_character() -> None:
    stream = TextStream(decode)
    assert "".join(stream.add(0xFF) for _ in range(40)) == "\ufffd" * 32
    assert stream.end() == "\ufffd" * 8
