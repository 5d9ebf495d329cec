"""Models whose vectors of passages are remembered: the descriptions of tools are the same in every run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

from llmagentos.agents.model import Models, Prompt, Reply


class Remembering:
    """`models`, which is asked for the vector of each passage only once as long as it is among the last `most`."""

    def __init__(self, models: Models, *, most: int = 2048) -> None:
        self._models = models
        self._most = most
        self._vectors: OrderedDict[str, list[float]] = OrderedDict()

    async def complete(self, prompt: Prompt, *, run: str, timeout: float) -> Reply:
        """As `models` does."""
        return await self._models.complete(prompt, run=run, timeout=timeout)

    async def embed(
        self, texts: Sequence[str], *, kind: Literal["query", "passage"], run: str, timeout: float
    ) -> list[list[float]]:
        """A vector for each text."""
        if kind == "query":
            return await self._models.embed(texts, kind=kind, run=run, timeout=timeout)
        missing = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        found = {text: self._vectors[text] for text in texts if text in self._vectors}
        if missing:
            vectors = await self._models.embed(missing, kind=kind, run=run, timeout=timeout)
            found |= zip(missing, vectors, strict=True)
        for text, vector in found.items():
            self._vectors[text] = vector
            self._vectors.move_to_end(text)
        while len(self._vectors) > self._most:
            self._vectors.popitem(last=False)
        return [found[text] for text in texts]
