"""Search over a small catalogue, for questions as people ask them, in English and Chinese.

Words are matched without their endings and without the words that every question has; Chinese, which
writes no spaces, by pairs of characters. Rare words count more (inverse document frequency, Sparck
Jones 1972). A product is found only when it covers more than half of what was asked, so that "a blue
bicycle" does not find a blue kettle.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

COVERED = 0.55  # least part of the question's weight that a product must match
CLOSE = 0.6  # a product that scores under this part of the best one is left out

_STOP = frozenset(
    """a about all also am an and any anything are as at available be been best big buy by can cheap cheapest color
    colors colour colours come comes cost costs could customer describe details do does fit for from get gift give
    good has have heavy hello hi how i if in information interested into is it its large like likes long look
    looking made many material me more much my need of offer on one onto or out over please present price prices
    product products put recommend sell shop should show size small so sold some somebody someone something stock
    store suitable sure tall tell than thank thanks that the their them then there these they thing things this
    those to under use used want was we weigh weight what when where which who why wide will with work would you
    your""".split()  # noqa: SIM905
)
_STOP_CHINESE = re.compile(
    "请问|能不能|可不可以|你们|我们|多少钱|多少|多久|时间|适合|能|价格|价钱|有没有|有货吗|是什么|什么|怎么样|怎么|哪些|哪个|可以|有多|"
    "几个|一个|这个|那个|告诉我|介绍|一下|库存|多大|多长|多高|谢谢|你好|卖|买|要|想|我|你|您|的|了|吗|呢|吧|啊|是|有|和|在|个|款"
)
_WORD = re.compile(r"[a-z0-9]+(?:[.'-][a-z0-9]+)*|[\u4e00-\u9fff]+")


def words(text: str) -> Iterator[str]:
    """What of `text` says something: stems of English words, pairs of Chinese characters."""
    for word in _WORD.findall(_STOP_CHINESE.sub(" ", text.lower())):
        if "\u4e00" <= word[0] <= "\u9fff":
            yield from (word[i : i + 2] for i in range(len(word) - 1)) if len(word) > 1 else (word,)
        elif word not in _STOP:
            yield _stem(word)


def _stem(word: str) -> str:
    word = word.removesuffix("'s")
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


class Index:
    """Finds positions of documents, each given as texts with a weight (`{"the name": 3.0, ...}`)."""

    def __init__(self, documents: Sequence[Mapping[str, float]]) -> None:
        self._documents = [_weights(document) for document in documents]
        seen = Counter(word for document in self._documents for word in document)
        self._rarity = {word: math.log(1 + len(documents) / count) for word, count in seen.items()}
        self._unknown = math.log(1 + len(documents))

    def search(self, query: str) -> list[int]:
        """Positions of the documents that answer `query`, best first; empty when none does."""
        asked = {word: self._rarity.get(word, self._unknown) for word in words(query)}
        total = sum(asked.values())
        scored = []
        for position, document in enumerate(self._documents):
            covered = sum(rarity for word, rarity in asked.items() if word in document)
            if covered and covered >= COVERED * total:
                scored.append((sum(rarity * document.get(word, 0.0) for word, rarity in asked.items()), position))
        best = max((score for score, _ in scored), default=0.0)
        return [position for score, position in sorted(scored, key=_order) if score >= CLOSE * best]


def _order(entry: tuple[float, int]) -> tuple[float, int]:
    return -entry[0], entry[1]


def _weights(document: Mapping[str, float]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text, weight in document.items():
        for word in _once(words(text)):
            found[word] = max(found.get(word, 0.0), weight)
    return found


def _once(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))
