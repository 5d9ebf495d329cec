"""Grades short answers by a rubric, as a module with the service `grading`.

A point of the rubric is given when both say so: the meaning (the answer, or a sentence of it, is closer to an
idea of the rubric than the threshold, by the embedding model) and the words. When only one does, the point is
not given and a person is asked to look: a small embedding model finds the subject, not the truth.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import yaml
from msgspec import Meta

from llmagentos import Module, Service, idempotent
from llmagentos.api.llm import EmbeddingRequest, Embeddings

Embed = Callable[[list[str]], Awaitable[list[list[float]]]]
"""A vector for each text."""
MAX_ANSWER = 2000  # characters
_MAX_SENTENCES = 12
_CHINESE = re.compile("[\u4e00-\u9fff]")


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a good answer says."""

    name: str
    name_zh: str
    ideas: Annotated[list[str], Meta(min_length=1)]
    words: list[list[str]]
    unless: list[str] = []


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question and its rubric."""

    id: str
    text: str
    text_zh: str
    points: Annotated[list[Point], Meta(min_length=1)]


class Rubric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All questions, and the least cosine of an answer with an idea."""

    threshold: float
    questions: list[Question]


class Grade(msgspec.Struct, frozen=True):
    """What an answer is worth. `review`: points on which meaning and words do not agree."""

    question: str
    grade: str
    right: list[str]
    missing: list[str]
    review: list[str]


class GradingService(Service):
    """Grades short answers to known questions."""

    def __init__(self, rubric: Rubric, embed: Embed) -> None:
        self._rubric = rubric
        self._questions = {question.id: question for question in rubric.questions}
        self._embed = embed
        self._ideas: dict[str, list[list[float]]] = {}

    @idempotent
    async def assess(self, submission: str) -> list[Grade]:
        """The grade of a submission, written as `question: answer`; nothing for a question that is not known."""
        name, _, answer = re.sub("：", ":", submission, count=1).partition(":")
        question = self._questions.get(name.strip().lower())
        answer = answer.strip()[:MAX_ANSWER]
        if question is None or not answer:
            return []
        parts = _sentences(answer)
        vectors = await self._embed(parts)
        chinese = _CHINESE.search(answer) is not None
        found: dict[str, list[str]] = {"right": [], "missing": [], "review": []}
        for point in question.points:
            near = _nearest(vectors, await self._vectors(point)) >= self._rubric.threshold
            found[verdict(point, answer, near=near)].append(point.name_zh if chinese else point.name)
        right, of = len(found["right"]), len(question.points)
        grade = f"{right} / {of} 分" if chinese else f"{right} of {of} points"
        return [Grade(question.text_zh if chinese else question.text, grade, **found)]

    @idempotent
    def questions(self) -> dict[str, str]:
        """The questions that can be answered, by their ids."""
        return {question.id: question.text for question in self._rubric.questions}

    async def _vectors(self, point: Point) -> list[list[float]]:
        if point.name not in self._ideas:
            self._ideas[point.name] = await self._embed(point.ideas)
        return self._ideas[point.name]


def verdict(point: Point, answer: str, *, near: bool) -> str:
    """`right`, `missing`, or `review` when meaning and words do not agree."""
    said = all(any(_has(answer, word) for word in line) for line in point.words)
    if any(_has(answer, word) for word in point.unless):
        return "review" if said else "missing"
    if near and said:
        return "right"
    return "review" if said else "missing"


def _has(answer: str, word: str) -> bool:
    if _CHINESE.search(word):
        return word in answer
    return re.search(rf"(?<![a-z0-9]){re.escape(word)}", answer.lower()) is not None


def _sentences(answer: str) -> list[str]:
    """The whole and each of its sentences: an idea may be one of several."""
    parts = [part.strip() for part in re.split(r"[.;!?。；！？\n]", answer)]
    return list(dict.fromkeys([answer, *(part for part in parts if part)]))[:_MAX_SENTENCES]


def _nearest(left: Sequence[Sequence[float]], right: Sequence[Sequence[float]]) -> float:
    return max(_cosine(a, b) for a in left for b in right)


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b) or 1.0)


def main(file: Path) -> None:
    """Serve until told to stop."""
    rubric = msgspec.convert(yaml.safe_load(file.read_text("utf-8")), Rubric)
    module = Module("tutor")

    async def embed(texts: list[str]) -> list[list[float]]:
        request = EmbeddingRequest(texts, "default")
        found = await module.api.post("/v1/embeddings", request, Embeddings)
        return [vector.embedding for vector in found.data if not isinstance(vector.embedding, str)]

    module.register_service(GradingService(rubric, embed), name="grading")
    module.start()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("questions.yaml")))
