"""An answer out of an engine, in one go or continued after it gave its slot to more urgent calls, or paused."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from llmagentos.api.completions import CompletionRequest
from llmagentos.api.llm import ChatChunk, ChatRequest, ChunkChoice, Delta, Usage
from llmagentos.core import metrics
from llmagentos.llm.asking import Asked
from llmagentos.llm.call import Interrupted
from llmagentos.llm.engines.engine import Engine
from llmagentos.llm.generation import Asking, Generation
from llmagentos.llm.metering import CallPaused, Operation
from llmagentos.llm.passage import Admitted, Passage
from llmagentos.llm.tries import Tries


async def answer(passage: Passage, request: Asking, asked: Asked, tries: Tries) -> AsyncGenerator[ChatChunk, None]:
    """The chunks of an answer under our names, the last with what it took. Raises what calls do, or `CallPaused`."""
    operation: Operation = "chat" if isinstance(request, ChatRequest) else "text_completion"
    async with passage.call(operation, request, asked, tries) as admitted:
        call = admitted.call
        generation, begun = _generation(passage, admitted, request, asked)
        if begun:
            yield call.ours(ChatChunk(choices=[ChunkChoice(delta=Delta(content=begun))]))
        try:
            while True:
                async with aclosing(_part(passage, admitted, generation, tries)) as chunks:
                    async for chunk in chunks:
                        if not chunk.opens:  # until there is text, another engine can still take over
                            yield call.ours(chunk)
                if generation.state != "suspended":
                    break
                call.measured.suspended()
                call.measured.resumed(await call.turn(admitted.slot.suspend))
                generation.resume()
        except BaseException:
            if call.held:
                _part_with(passage, admitted, generation, request, asked)
            raise
        yield call.usage()


def _generation(passage: Passage, admitted: Admitted, request: Asking, asked: Asked) -> tuple[Generation, str]:
    """The answer, and with what it begins when its run was paused in the middle of it."""
    capped, yields = _capped(request, admitted.most_out), admitted.submission.interruptible
    if yields and asked.run_id is not None:
        found = passage.parted.take(asked.run_id, admitted.model.name, request)
        if found is not None and (capped.limit is None or found[0].tokens < capped.limit):
            part, admitted.call.measured.earlier = found
            return Generation(capped, yields=True, begun=part), part.text
    return Generation(capped, yields=yields), ""


def _part_with(passage: Passage, admitted: Admitted, generation: Generation, request: Asking, asked: Asked) -> None:
    """The call ends as its run is paused; the run's next host makes it again, and goes on where this one stops."""
    measured = admitted.call.measured
    measured.cut_off = True
    if (part := generation.part) is None or asked.run_id is None:
        return
    if part.prompt is not None:
        measured.used(Usage(part.prompt, part.tokens, part.prompt + part.tokens))
    passage.parted.put(asked.run_id, admitted.model.name, request, part, measured.usage)


async def _part(
    passage: Passage, admitted: Admitted, generation: Generation, tries: Tries
) -> AsyncGenerator[ChatChunk, None]:
    """What comes until the engine stops, or until the slot is wanted or the run paused: it is suspended then."""
    call = admitted.call
    try:
        async with aclosing(_pieces(passage, admitted, generation, tries)) as chunks:
            async for chunk in chunks:
                yield chunk
    except Interrupted:
        if not (generation.pausable and (admitted.model.capacity.preemptive or not call.asked)):
            call.measured.cut()
            raise CallPaused(f"the run of the call to {call.measured.model!r} was paused") from None
        generation.pause()


async def _pieces(
    passage: Passage, admitted: Admitted, generation: Generation, tries: Tries
) -> AsyncGenerator[ChatChunk, None]:
    call, slot = admitted.call, admitted.slot
    with passage.engine(admitted, tries) as placed:
        async with aclosing(_asked(placed.engine, generation.request, admitted.submission.priority)) as chunks:
            async for chunk in call.each(chunks):
                if isinstance(chunk.usage, Usage):
                    call.measured.used(generation.usage(chunk.usage))
                if not chunk.choices:
                    continue
                if tokens := generation.took(chunk):
                    placed.answers()
                    call.measured.piece(tokens)
                    slot.produced(tokens)
                yield chunk
                if slot.wanted and generation.suspendable:
                    generation.suspend()
                    metrics.LLM_PREEMPTIONS.labels(admitted.model.name).inc()
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
