"""Long-term memory of agents: facts that outlast a session, found by words and by meaning.

Both searches rank on their own; the ranks are merged by adding up their reciprocals (Cormack, Clarke and
Büttcher, SIGIR 2009), which needs no scale that they have in common. Without the embedding engine the words
alone are searched, and the vectors are made up for later.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import operator
from array import array
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from msgspec.structs import replace

from llmagentos.api.agents import MemoryUse
from llmagentos.api.memory import MAX_FACT, Fact
from llmagentos.core import log
from llmagentos.core.clock import Clock
from llmagentos.core.errors import InvalidInput, LLMAgentOSError
from llmagentos.core.ids import new_id

RANK = 60
"""The constant of reciprocal rank fusion, as in its paper."""
LEAST_SIMILAR = 0.80
"""Cosine under which two texts have nothing to do with each other, for e5-small (docs/memory.md has the numbers)."""
CLOSE = 0.03
"""What is so much less similar than the best is left out: short Chinese texts all resemble each other somewhat."""
_CANDIDATES = 4
"""Times as many results as are wanted that each search brings."""
_CATCH_UP = 64
"""Missing vectors that one search makes up for."""
_DAY_S = 86_400.0

Embed = Callable[[Sequence[str], Literal["query", "passage"], str | None], Awaitable[list[list[float]]]]
"""`await embed(texts, kind, run)`: a vector for each text. Raises an `LLMAgentOSError` when no engine is there."""

_log = log.get(__name__)


class Scope(NamedTuple):
    """Whose memory: of one agent, and of one user of it (empty: of all)."""

    agent: str
    user: str
    use: MemoryUse


class Memory(Protocol):
    """What remembers. Nothing of one scope ever shows in another."""

    async def remember(
        self, scope: Scope, text: str, tags: Sequence[str] = (), *, key: str | None = None, run: str | None = None
    ) -> Fact:
        """Store a fact; with the same `key` again it is the same one."""
        ...

    async def recall(self, scope: Scope, query: str, *, limit: int | None = None, run: str | None = None) -> list[Fact]:
        """The facts that fit `query`, best first."""
        ...


class Facts(Protocol):
    """What `LongTerm` needs of storage."""

    async def add(self, fact: Fact, *, vector: Sequence[float] | None, most: int, until: float) -> Fact: ...
    async def by_words(self, agent: str, user: str, query: str, *, limit: int) -> list[int]: ...
    async def vectors(self, agent: str, user: str) -> dict[int, array[float] | None]: ...
    async def put_vectors(self, vectors: Mapping[int, Sequence[float]]) -> None: ...
    async def texts(self, numbers: Sequence[int]) -> dict[int, Fact]: ...
    async def use(self, numbers: Sequence[int], *, until: float) -> None: ...


class LongTerm:
    """`Memory` on the database, with vectors by `embed`."""

    def __init__(self, facts: Facts, embed: Embed, clock: Clock) -> None:
        self._facts = facts
        self._embed = embed
        self._clock = clock

    async def remember(
        self, scope: Scope, text: str, tags: Sequence[str] = (), *, key: str | None = None, run: str | None = None
    ) -> Fact:
        """Store a fact. Raises `InvalidInput` for an empty text or one that is too long."""
        plain = " ".join(text.replace("\0", " ").split())
        if not plain or len(plain) > MAX_FACT:
            raise InvalidInput(f"a fact has 1 to {MAX_FACT} characters, not {len(plain)}", hint="one sentence is best")
        vectors = await self._vectors([plain], "passage", run)
        now = self._clock.time()
        fact = Fact(_id(key), scope.agent, scope.user, plain, now, now, [tag[:50] for tag in tags][:20])
        vector = vectors[0] if vectors else None
        return await self._facts.add(fact, vector=vector, most=scope.use.most, until=now + scope.use.days * _DAY_S)

    async def recall(self, scope: Scope, query: str, *, limit: int | None = None, run: str | None = None) -> list[Fact]:
        """The facts that fit `query`, best first; they count as used."""
        most = limit or scope.use.results
        words = await self._facts.by_words(scope.agent, scope.user, query, limit=_CANDIDATES * most)
        meaning = await self._by_meaning(scope, query, _CANDIDATES * most, run)
        scores = merged([words, meaning])
        best = sorted(scores, key=lambda number: (-scores[number], -number))[:most]
        if not best:
            return []
        texts = await self._facts.texts(best)
        await self._facts.use(best, until=self._clock.time() + scope.use.days * _DAY_S)
        return [replace(texts[number], score=round(scores[number], 6)) for number in best if number in texts]

    async def _by_meaning(self, scope: Scope, query: str, limit: int, run: str | None) -> list[int]:
        vectors = await self._facts.vectors(scope.agent, scope.user)
        asked = await self._vectors([query[:MAX_FACT]], "query", run) if vectors else []
        if not asked:
            return []
        missing = [number for number, vector in vectors.items() if vector is None][:_CATCH_UP]
        if missing:
            texts = await self._facts.texts(missing)
            made = await self._vectors([texts[number].text for number in missing], "passage", run)
            new = dict(zip(missing, made, strict=False))
            await self._facts.put_vectors(new)
            vectors |= {number: array("f", vector) for number, vector in new.items()}
        known = {number: vector for number, vector in vectors.items() if vector is not None}
        return await asyncio.to_thread(nearest, asked[0], known, limit)

    async def _vectors(
        self, texts: Sequence[str], kind: Literal["query", "passage"], run: str | None
    ) -> list[list[float]]:
        try:
            return await self._embed(texts, kind, run)
        except LLMAgentOSError as error:
            _log.warning("memory is searched by words only", reason=error.message)
            return []


def merged(rankings: Iterable[Sequence[int]]) -> dict[int, float]:
    """The sum of the reciprocal ranks of each."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, number in enumerate(ranking, 1):
            scores[number] = scores.get(number, 0.0) + 1 / (RANK + rank)
    return scores


def nearest(query: Sequence[float], vectors: Mapping[int, Sequence[float]], limit: int) -> list[int]:
    """The numbers of the vectors that point where `query` does, closest first."""
    length = math.sqrt(sum(x * x for x in query)) or 1.0
    scores = []
    for number, vector in vectors.items():
        if len(vector) != len(query):
            continue  # of another embedding model
        size = math.sqrt(sum(map(operator.mul, vector, vector))) or 1.0
        scores.append((sum(map(operator.mul, vector, query)) / (size * length), number))
    least = max(LEAST_SIMILAR, max(scores, default=(0.0, 0))[0] - CLOSE)
    close = sorted((score for score in scores if score[0] >= least), reverse=True)
    return [number for _, number in close[:limit]]


def _id(key: str | None) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:16] if key is not None else new_id()
