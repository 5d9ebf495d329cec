"""An answer out of an engine, in one go or continued after it gave its slot to more urgent calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from llmagentos.api.completions import CompletionRequest
from llmagentos.api.llm import ChatChunk, ChatRequest, Usage
from llmagentos.core import metrics
from llmagentos.llm.asking import Asked
from llmagentos.llm.engines.engine import Engine
from llmagentos.llm.generation import Asking, Generation
from llmagentos.llm.metering import Operation
from llmagentos.llm.passage import Admitted, Passage
from llmagentos.llm.tries import Tries


async def answer(passage: Passage, request: Asking, asked: Asked, tries: Tries) -> AsyncGenerator[ChatChunk, None]:
    """The chunks of an answer under our names, the last one with what it took."""
    operation: Operation = "chat" if isinstance(request, ChatRequest) else "text_completion"
    async with passage.call(operation, request, asked, tries) as admitted:
        call = admitted.call
        generation = Generation(_capped(request, admitted.most_out), yields=admitted.submission.interruptible)
        while True:
            async with aclosing(_part(passage, admitted, generation, tries)) as chunks:
                async for chunk in chunks:
                    if not chunk.opens:  # until there is text, another engine can still take over
                        yield call.ours(chunk)
            if generation.state != "suspended":
                break
            metrics.LLM_PREEMPTIONS.labels(admitted.model.name).inc()
            call.measured.suspended()
            call.measured.resumed(await call.turn(admitted.slot.suspend))
            generation.resume()
        yield call.usage()


async def _part(
    passage: Passage, admitted: Admitted, generation: Generation, tries: Tries
) -> AsyncGenerator[ChatChunk, None]:
    """What comes until the engine stops, or until the slot is wanted: the generation is suspended then."""
    call, slot = admitted.call, admitted.slot
    with passage.engine(admitted, tries) as engine:
        async with aclosing(_asked(engine, generation.request, admitted.submission.priority)) as chunks:
            async for chunk in call.each(chunks):
                if isinstance(chunk.usage, Usage):
                    call.measured.used(generation.usage(chunk.usage))
                if not chunk.choices:
                    continue
                if tokens := generation.took(chunk):
                    call.measured.piece(tokens)
                    slot.produced(tokens)
                yield chunk
                if slot.wanted and generation.suspendable:
                    generation.suspend()
                    return


def _asked(engine: Engine, request: Asking, priority: int) -> AsyncGenerator[ChatChunk, None]:
    if isinstance(request, ChatRequest):
        return engine.chat(request, priority=priority)
    return engine.write(request, priority=priority)


def _capped(request: Asking, most_out: int | None) -> Asking:
    """With the limit in the field that was used: some engines know only one of the two."""
    if most_out is None:
        return request
    each = max(1, most_out // request.choices)
    if isinstance(request, CompletionRequest) or request.max_completion_tokens is None:
        return msgspec.structs.replace(request, max_tokens=each)
    return msgspec.structs.replace(request, max_completion_tokens=each)
