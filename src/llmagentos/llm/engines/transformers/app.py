"""The ASGI application of a model: chat as a stream, whether it is alive, and what it does now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import msgspec
import torch

from llmagentos.api.completions import CompletionRequest, TextPiece
from llmagentos.api.llm import ChatChunk, ChatRequest, ChunkChoice, Delta, Usage
from llmagentos.core.errors import InvalidInput, LLMAgentOSError
from llmagentos.llm.engines import serving
from llmagentos.llm.engines.engine import ContextOverflow
from llmagentos.llm.engines.serving import HungUp, Message, Receive, Send
from llmagentos.llm.engines.transformers.batcher import Batcher, End, Job
from llmagentos.llm.engines.transformers.loading import Loaded
from llmagentos.llm.engines.transformers.sampling import Picked, Sampler
from llmagentos.llm.engines.transformers.text import TextStream

R = TypeVar("R", ChatRequest, CompletionRequest)

_DONE = b"data: [DONE]\n\n"
_UNABLE = {
    "tools": "calls of tools are not read from its text: have it answer as text, or use another engine",
    "response_format": "it cannot be bound to a schema: use llama.cpp or an endpoint that can",
}


class App:
    """Calls to one model."""

    def __init__(self, loaded: Loaded, batcher: Batcher) -> None:
        self._loaded = loaded
        self._batcher = batcher

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        route = (scope["method"], scope["path"])
        try:
            if route == ("GET", "/health"):
                await serving.answer(send, 200, b'{"status":"ok"}')
            elif route == ("GET", "/metrics"):
                await serving.answer(send, 200, self._metrics(), "text/plain; version=0.0.4")
            elif route == ("POST", "/v1/chat/completions"):
                request = _decoded(await serving.content(receive), ChatRequest)
                await self._generate(request, await asyncio.to_thread(self._chat, request), receive, send, _chat_line)
            elif route == ("POST", "/v1/completions"):
                asked = _decoded(await serving.content(receive), CompletionRequest)
                request = _as_chat(asked)
                await self._generate(request, await asyncio.to_thread(self._text, asked), receive, send, _text_line)
            else:
                await serving.answer(send, 404, serving.shape(InvalidInput(f"there is no {scope['path']}")))
        except HungUp:
            return
        except LLMAgentOSError as error:
            await serving.answer(send, error.status, serving.shape(error))

    async def _generate(
        self,
        request: ChatRequest,
        tokens: list[int],
        receive: Receive,
        send: Send,
        encode: Callable[[ChatChunk], bytes],
    ) -> None:
        if not request.stream:
            raise InvalidInput("only streams are served here: the gateway puts whole answers together", param="stream")
        events: asyncio.Queue[Picked | End | Exception] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        job = self._job(request, tokens, lambda event: loop.call_soon_threadsafe(events.put_nowait, event))
        self._batcher.submit(job)
        async with serving.watched(receive) as gone:
            try:
                await self._stream(send, _Answer(request, self._loaded.tokenizer, job), encode, events, gone)
            finally:
                job.gone = True

    async def _stream(
        self,
        send: Send,
        answer: _Answer,
        encode: Callable[[ChatChunk], bytes],
        events: asyncio.Queue[Picked | End | Exception],
        gone: asyncio.Event,
    ) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for event in _until(events, gone):
            if isinstance(event, Exception):
                error = {"error": {"message": f"the generation failed: {event}"}}
                await _part(send, b"data: " + msgspec.json.encode(error) + b"\n\n")
                break
            for chunk in answer.chunks(event):
                await _part(send, b"data: " + encode(chunk) + b"\n\n")
            if answer.ended:
                await _part(send, _DONE)
                break
        await send({"type": "http.response.body", "body": b""})

    def _chat(self, request: ChatRequest) -> list[int]:
        """The tokens of a conversation. Raises `InvalidInput` or `ContextOverflow`."""
        for name, why in _UNABLE.items():
            value = getattr(request, name)
            if value and value != {"type": "text"}:
                raise InvalidInput(f"the transformers engine does not know {name}: {why}", param=name)
        return self._fitting(self._loaded.tokens(request))

    def _text(self, request: CompletionRequest) -> list[int]:
        """The tokens of a text that goes on. Raises `InvalidInput` or `ContextOverflow`."""
        if not isinstance(request.prompt, str) or request.choices != 1 or request.echo:
            raise InvalidInput("the transformers engine takes one prompt for one answer at a time, without echo")
        return self._fitting(list(self._loaded.tokenizer(request.prompt).input_ids))

    def _fitting(self, tokens: list[int]) -> list[int]:
        if not tokens:
            raise InvalidInput("there is no text to begin with", param="messages")
        if len(tokens) >= self._loaded.context + self._loaded.encodes:
            raise ContextOverflow(
                "the request is longer than the context",
                type="exceed_context_size_error",
                n_prompt_tokens=len(tokens),
                n_ctx=self._loaded.context,
            )
        return tokens

    def _job(self, request: ChatRequest, tokens: list[int], tell: Any) -> Job:
        loaded = self._loaded
        room = loaded.context - (1 if loaded.encodes else len(tokens))
        return Job(
            tokens,
            max(1, min(request.limit or room, room)),
            Sampler(request, loaded.model.generation_config, loaded.model.device),
            loaded.ends,
            tell,
            loaded.forced,
        )

    def _metrics(self) -> bytes:
        found = {
            "requests_running": self._batcher.running,
            "requests_waiting": self._batcher.waiting,
            "steps_total": self._batcher.steps,
            "generated_tokens_total": self._batcher.tokens,
        }
        if self._loaded.model.device.type == "cuda":
            found["device_memory_bytes"] = torch.cuda.memory_allocated()
        return "".join(f"transformers:{name} {value}\n" for name, value in found.items()).encode()


class _Answer:
    """What is sent of one answer."""

    def __init__(self, request: ChatRequest, tokenizer: Any, job: Job) -> None:
        stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
        self._tokenizer = tokenizer
        self._text = TextStream(lambda tokens: str(tokenizer.decode(tokens, skip_special_tokens=True)), stop)
        self._job = job
        self._tokens = 0
        self._wants = bool(request.logprobs)
        self._logprobs: list[dict[str, Any]] = []
        self.ended = False

    def chunks(self, event: Picked | End) -> list[ChatChunk]:
        """The chunks to send after an event of the batcher."""
        if isinstance(event, Picked):
            self._tokens += 1
            if event.logprob is not None:
                self._logprobs.append(self._likely(event))
            text = self._text.add(event.token)
            if not self._text.stopped:
                return [self._chunk(text)] if text else []
            self._job.gone = True
            return self._last(text, "stop")
        return self._last(self._text.end(), "stop" if self._text.stopped else event)

    def _last(self, text: str, reason: str) -> list[ChatChunk]:
        self.ended = True
        read = len(self._job.prompt)
        usage = ChatChunk(usage=Usage(read, self._tokens, read + self._tokens))
        said = [self._chunk(text)] if text or self._logprobs else []
        return [*said, ChatChunk(choices=[ChunkChoice(finish_reason=reason)]), usage]

    def _chunk(self, text: str) -> ChatChunk:
        likely, self._logprobs = self._logprobs, []
        return ChatChunk(
            choices=[ChunkChoice(delta=Delta(content=text), logprobs={"content": likely} if self._wants else None)]
        )

    def _likely(self, picked: Picked) -> dict[str, Any]:
        return self._entry(picked.token, picked.logprob) | {
            "top_logprobs": [self._entry(token, logprob) for token, logprob in picked.top]
        }

    def _entry(self, token: int, logprob: float | None) -> dict[str, Any]:
        text = str(self._tokenizer.decode([token]))
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def _decoded(body: bytes, kind: type[R]) -> R:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise InvalidInput(str(error)) from None


def _as_chat(request: CompletionRequest) -> ChatRequest:
    """What a completion asks of sampling."""
    return ChatRequest(
        [],
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        seed=request.seed,
        stop=request.stop,
        stream=request.stream,
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
        repeat_penalty=request.repeat_penalty,
        logit_bias=request.logit_bias,
        logprobs=request.logprobs is not None or None,
        top_logprobs=request.logprobs,
    )


def _chat_line(chunk: ChatChunk) -> bytes:
    return msgspec.json.encode(chunk)


def _text_line(chunk: ChatChunk) -> bytes:
    pieces = [TextPiece(c.delta.content or "", c.index, c.finish_reason, c.logprobs) for c in chunk.choices]
    return msgspec.json.encode({"choices": pieces, "usage": chunk.usage or None})


async def _until(
    events: asyncio.Queue[Picked | End | Exception], gone: asyncio.Event
) -> AsyncIterator[Picked | End | Exception]:
    """The events of a call, until its caller is gone."""
    hung_up = asyncio.create_task(gone.wait())
    try:
        while not gone.is_set():
            event = asyncio.create_task(events.get())
            await asyncio.wait({event, hung_up}, return_when=asyncio.FIRST_COMPLETED)
            if not event.done():
                event.cancel()
                raise HungUp
            yield event.result()
    finally:
        hung_up.cancel()


async def _part(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
