"""Tools chosen by similarity: the request is compared with each tool's description and examples by embedding.

Below a threshold nothing is called; the agent asks back which of the closest tools was meant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from llmagentos.agents.grounding import language
from llmagentos.agents.tools import Tool
from llmagentos.core.i18n import translate

_OFFERED = 3
"""Tools named when the agent asks back."""


class Score(msgspec.Struct, frozen=True):
    """How similar the request is to one tool: the cosine with its closest text, -1 to 1."""

    tool: str
    score: float


def texts(tool: Tool) -> list[str]:
    """What a request is compared with: name and description, and each example."""
    first = tool.doc.strip().partition("\n\n")[0].replace("\n", " ")
    name = tool.name.rpartition(".")[2].replace("_", " ")
    return [f"{name}: {first}" if first else name, *tool.examples]


def rank(request: Sequence[float], tools: Sequence[Tool], vectors: Sequence[Sequence[float]]) -> list[Score]:
    """All tools, closest first. `vectors` are those of `texts` of each tool, in their order."""
    scores, position = [], 0
    for tool in tools:
        count = len(texts(tool))
        best = max(_cosine(request, vector) for vector in vectors[position : position + count])
        scores.append(Score(tool.name, round(best, 4)))
        position += count
    return sorted(scores, key=lambda score: -score.score)


def choose(ranking: str, tools: Sequence[Tool], threshold: float) -> Tool | None:
    """The tool on top of `ranking` (as JSON) when it is similar enough and still there."""
    scores = _read(ranking)
    if not scores or scores[0].score < threshold:
        return None
    return next((tool for tool in tools if tool.name == scores[0].tool), None)


def ask_back(ranking: str, tools: Sequence[Tool], request: str) -> str:
    """Asks which of the closest tools is meant, in the request's language."""
    described = {tool.name: texts(tool)[0] for tool in tools}
    closest = [described[score.tool] for score in _read(ranking) if score.tool in described][:_OFFERED]
    return translate(
        language(request),
        "I am not sure what you need. I can help with: {tools}. Which of these do you mean?",
        tools="; ".join(text.rstrip(".") for text in closest),
    )


def _read(ranking: str) -> list[Score]:
    return msgspec.json.decode(ranking, type=list[Score])


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    if len(a) != len(b):
        return -1.0
    product = sum(x * y for x, y in zip(a, b, strict=True))
    size = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return product / size if size else -1.0
