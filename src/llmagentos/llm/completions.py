"""Texts that go on: each prompt is one call through the gate, all under one id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from llmagentos.api.completions import Completion, CompletionChoice, CompletionLogprobs, CompletionRequest
from llmagentos.api.llm import ChatChunk, ChunkChoice, Usage
from llmagentos.core.ids import new_id

Write = Callable[[CompletionRequest], AsyncGenerator[ChatChunk, None]]
"""Goes on with one prompt."""
_AHEAD = 16


async def pieces(request: CompletionRequest, write: Write) -> AsyncGenerator[Completion, None]:
    """The pieces of all texts as they come, the last one with the usage of all. Raises what `write` does."""
    name, count = f"cmpl-{new_id()}", request.choices
    offsets: dict[int, int] = {}
    usage, last = Usage(), ChatChunk()
    async with aclosing(_merged(request, write)) as found:
        async for number, chunk in found:
            last = chunk
            if isinstance(chunk.usage, Usage):
                usage = _sum(usage, chunk.usage)
                continue
            choices = [_choice(choice, number * count + choice.index, offsets) for choice in chunk.choices]
            yield Completion(name, chunk.created, chunk.model, choices)
    yield Completion(name, last.created, last.model, [], usage)


async def whole(request: CompletionRequest, write: Write) -> Completion:
    """All texts in one piece."""
    texts: dict[int, list[CompletionChoice]] = {}
    async with aclosing(pieces(request, write)) as found:
        async for piece in found:
            last = piece
            for choice in piece.choices:
                texts.setdefault(choice.index, []).append(choice)
    return msgspec.structs.replace(last, choices=[_joined(texts[index]) for index in sorted(texts)])


async def _merged(request: CompletionRequest, write: Write) -> AsyncGenerator[tuple[int, ChatChunk], None]:
    """The chunks of all prompts, each with the number of its prompt."""
    parts = [msgspec.structs.replace(request, prompt=prompt) for prompt in request.prompts]
    if len(parts) == 1:
        async with aclosing(write(parts[0])) as chunks:
            async for chunk in chunks:
                yield 0, chunk
        return
    queue: asyncio.Queue[tuple[int, ChatChunk | BaseException | None]] = asyncio.Queue(_AHEAD)
    tasks = [asyncio.create_task(_feed(queue, number, write(part))) for number, part in enumerate(parts)]
    try:
        open_parts = len(parts)
        while open_parts:
            number, found = await queue.get()
            if isinstance(found, BaseException):
                raise found
            if found is None:
                open_parts -= 1
            else:
                yield number, found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _feed(queue: asyncio.Queue[Any], number: int, chunks: AsyncGenerator[ChatChunk, None]) -> None:
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                await queue.put((number, chunk))
        await queue.put((number, None))
    except Exception as error:  # raised again by who reads the queue
        await queue.put((number, error))


def _choice(choice: ChunkChoice, index: int, offsets: dict[int, int]) -> CompletionChoice:
    text, begins = choice.delta.content or "", offsets.get(index, 0)
    offsets[index] = begins + len(text)
    return CompletionChoice(text, index, choice.finish_reason, _logprobs(choice.logprobs, begins))


def _logprobs(found: dict[str, Any] | None, begins: int) -> CompletionLogprobs | None:
    """In the form of completions, whichever of OpenAI's two forms the engine sends."""
    if not found:
        return None
    if "content" not in found:
        known = {name: found.get(name) or [] for name in CompletionLogprobs.__struct_fields__}
        return CompletionLogprobs(**known)
    entries, offsets = found["content"] or [], []
    for entry in entries:
        offsets.append(begins)
        begins += len(entry.get("token", ""))
    return CompletionLogprobs(
        [entry.get("token", "") for entry in entries],
        [entry.get("logprob") for entry in entries],
        [{top.get("token", ""): top.get("logprob") for top in entry.get("top_logprobs") or []} for entry in entries],
        offsets,
    )


def _joined(choices: list[CompletionChoice]) -> CompletionChoice:
    logprobs = [choice.logprobs for choice in choices if choice.logprobs is not None]
    together = CompletionLogprobs(
        *([item for part in logprobs for item in getattr(part, name)] for name in CompletionLogprobs.__struct_fields__)
    )
    reasons = [choice.finish_reason for choice in choices if choice.finish_reason is not None]
    return CompletionChoice(
        "".join(choice.text for choice in choices),
        choices[0].index,
        reasons[-1] if reasons else None,
        together if logprobs else None,
    )


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.prompt_tokens + other.prompt_tokens,
        one.completion_tokens + other.completion_tokens,
        one.total_tokens + other.total_tokens,
    )
