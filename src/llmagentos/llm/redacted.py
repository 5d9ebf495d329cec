"""Calls whose callers do not redact themselves: models read placeholders, and the callers get the values back.

Agents redact in their runs, as their logs and tools have to agree. Here are the calls of everybody else: programs
and plain callers of `/v1`. What stands behind a placeholder is known for the length of one call, as each call
brings its whole conversation: the same value has the same placeholder throughout it, and nothing is kept.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

from msgspec.structs import replace

from llmagentos.api.completions import CompletionRequest
from llmagentos.api.llm import (
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    Choice,
    ChunkChoice,
    EmbeddingRequest,
    Embeddings,
    Message,
)
from llmagentos.core.config.guardrails import Guardrails
from llmagentos.llm.gateway import Gateway
from llmagentos.llm.generation import Asking
from llmagentos.llm.sizes import length_of
from llmagentos.security.identity import Identity, Kind
from llmagentos.security.redaction import Vault, hide, in_json

RailsOf = Callable[[str], Awaitable[Guardrails]]
"""What holds for the calls of a program, from its run's id."""

T = TypeVar("T")
_MUCH = 128 * 1024
_BEGUN = re.compile(r"<[A-Z]{0,5}(?:_[A-Z]{0,4})?(?:_\d{0,6})?\Z")
"""What may become a placeholder: the longest has 18 characters."""


class RedactedCalls:
    """The calls of `gateway`. `rails` holds for callers without a run, `rails_of` says what does for programs."""

    def __init__(self, gateway: Gateway, rails: Guardrails, rails_of: RailsOf) -> None:
        self._gateway = gateway
        self._rails = rails
        self._rails_of = rails_of

    def chat(
        self, request: ChatRequest, caller: Identity, *, run_id: str | None = None, **asked: Any
    ) -> AsyncGenerator[ChatChunk, None]:
        """As `Gateway.chat`."""
        if not self._looks_at(caller, run_id):
            return self._gateway.chat(request, caller, run_id=run_id, **asked)
        return self._generate(request, caller, run_id, asked)

    def write(
        self, request: CompletionRequest, caller: Identity, *, run_id: str | None = None, **asked: Any
    ) -> AsyncGenerator[ChatChunk, None]:
        """As `Gateway.write`."""
        if not self._looks_at(caller, run_id):
            return self._gateway.write(request, caller, run_id=run_id, **asked)
        return self._generate(request, caller, run_id, asked)

    async def complete(
        self, request: ChatRequest, caller: Identity, *, run_id: str | None = None, **asked: Any
    ) -> ChatCompletion:
        """As `Gateway.complete`."""
        rails = await self._of(run_id) if self._looks_at(caller, run_id) else Guardrails()
        vault = Vault(rails.prompts)
        if rails.prompts:
            request = await _aside(length_of(request), partial(_chat, request, vault))
        found = await self._gateway.complete(request, caller, run_id=run_id, **asked)
        return _restored(found, vault) if rails.restore and vault.values else found

    async def embed(
        self, request: EmbeddingRequest, caller: Identity, *, run_id: str | None = None, **asked: Any
    ) -> Embeddings:
        """As `Gateway.embed`. Placeholders have no numbers, so that texts that say the same have the same vector."""
        if self._looks_at(caller, run_id) and (kinds := (await self._of(run_id)).prompts):
            texts = await _aside(length_of(request), lambda: [hide(text, kinds) for text in request.texts])
            request = replace(request, input=texts)
        return await self._gateway.embed(request, caller, run_id=run_id, **asked)

    def _looks_at(self, caller: Identity, run_id: str | None) -> bool:
        """Whoever carries on an agent's run has redacted before: only it knows what the run's log says."""
        return bool(self._rails.prompts) if run_id is None else caller.kind is Kind.RUN

    async def _of(self, run_id: str | None) -> Guardrails:
        return self._rails if run_id is None else await self._rails_of(run_id)

    async def _generate(
        self, request: Asking, caller: Identity, run_id: str | None, asked: dict[str, Any]
    ) -> AsyncGenerator[ChatChunk, None]:
        rails = await self._of(run_id)
        vault = Vault(rails.prompts)
        change = partial(_asked, request, vault)
        redacted = await _aside(length_of(request), change) if rails.prompts else request
        if isinstance(redacted, ChatRequest):
            given = self._gateway.chat(redacted, caller, run_id=run_id, **asked)
        else:
            given = self._gateway.write(redacted, caller, run_id=run_id, **asked)
        restoring = Restoring(vault, form=_is_form(request)) if rails.restore and vault.values else None
        async with aclosing(given) as chunks:
            async for chunk in chunks:
                if restoring is None:
                    yield chunk
                elif (restored := restoring.chunk(chunk)) is not None:
                    yield restored


class Restoring:
    """A stream with the values back in their places. A placeholder comes in pieces: its beginning is held back.

    With `form` the answer is JSON.
    """

    def __init__(self, vault: Vault, *, form: bool) -> None:
        self._vault = vault
        self._form = form
        self._held: dict[tuple[int, Any], str] = {}

    def chunk(self, chunk: ChatChunk) -> ChatChunk | None:
        """The chunk as its reader gets it; None when all of it is held back."""
        if not chunk.choices:
            return chunk
        choices = [self._choice(choice) for choice in chunk.choices]
        kept = [choice for choice in choices if choice is not None]
        return replace(chunk, choices=kept) if kept else None

    def _choice(self, choice: ChunkChoice) -> ChunkChoice | None:
        index, delta, ends = choice.index, choice.delta, choice.finish_reason is not None
        told = {
            name: new
            for name in ("content", "reasoning_content", "refusal")
            if (text := getattr(delta, name)) is not None or (ends and (index, name) in self._held)
            for new in [self._text((index, name), text or "", ends=ends, form=self._form and name == "content")]
        }
        calls = [self._call(index, part, ends=ends) for part in delta.tool_calls or []]
        if ends:
            calls += [
                {"index": key[1][1], "function": {"arguments": self._held.pop(key)}}
                for key in [key for key in self._held if key[0] == index]
            ]
        new = replace(delta, **told, tool_calls=calls or None)
        says = any(told.values()) or calls or new.role is not None or choice.logprobs
        return replace(choice, delta=new) if says or ends else None

    def _call(self, index: int, part: dict[str, Any], *, ends: bool) -> dict[str, Any]:
        function = part.get("function")
        if not isinstance(function, dict) or not function.get("arguments"):
            return part
        key = (index, ("tool", part.get("index") or 0))
        return {
            **part,
            "function": {**function, "arguments": self._text(key, function["arguments"], ends=ends, form=True)},
        }

    def _text(self, key: tuple[int, Any], text: str, *, ends: bool, form: bool) -> str:
        text = self._held.pop(key, "") + text
        if not ends and (begun := _BEGUN.search(text)) is not None:
            text, self._held[key] = text[: begun.start()], begun[0]
        return self._vault.restore(text, in_json=form)


def _is_form(request: Asking) -> bool:
    if isinstance(request, CompletionRequest) or request.response_format is None:
        return False
    return request.response_format.get("type") != "text"


async def _aside(length: int, work: Callable[[], T]) -> T:
    """The result of `work` on so many bytes, beside the event loop when that takes long."""
    return work() if length < _MUCH else await asyncio.to_thread(work)


def _asked(request: Asking, vault: Vault) -> Asking:
    if isinstance(request, ChatRequest):
        return _chat(request, vault)
    prompts = [vault.redact(prompt) for prompt in request.prompts]
    return replace(request, prompt=prompts[0] if isinstance(request.prompt, str) else prompts)


def _chat(request: ChatRequest, vault: Vault) -> ChatRequest:
    return replace(request, messages=[_message(message, vault) for message in request.messages])


def _message(message: Message, vault: Vault) -> Message:
    content = message.content
    if isinstance(content, str):
        content = in_json(content, vault.redact)
    elif content is not None:
        content = [
            {**part, "text": vault.redact(part["text"])} if isinstance(part.get("text"), str) else part
            for part in content
        ]
    return replace(
        message,
        content=content,
        tool_calls=_calls(message.tool_calls, vault.redact) if message.tool_calls else message.tool_calls,
        refusal=vault.redact(message.refusal) if message.refusal else message.refusal,
        reasoning_content=vault.redact(message.reasoning_content) if message.reasoning_content else None,
    )


def _calls(calls: list[dict[str, Any]], change: Callable[[str], str]) -> list[dict[str, Any]]:
    """Calls of tools with `change` applied to their arguments."""
    changed = []
    for call in calls:
        function = call.get("function")
        if isinstance(function, dict) and isinstance(function.get("arguments"), str):
            call = {**call, "function": {**function, "arguments": in_json(function["arguments"], change)}}
        changed.append(call)
    return changed


def _restored(found: ChatCompletion, vault: Vault) -> ChatCompletion:
    return replace(found, choices=[_choice(choice, vault.restore) for choice in found.choices])


def _choice(choice: Choice, restore: Callable[[str], str]) -> Choice:
    message = choice.message
    calls, thoughts = message.tool_calls, message.reasoning_content
    return replace(
        choice,
        message=replace(
            message,
            content=in_json(message.content, restore) if message.content else message.content,
            refusal=restore(message.refusal) if message.refusal else message.refusal,
            tool_calls=_calls(calls, restore) if isinstance(calls, list) else calls,
            reasoning_content=restore(thoughts) if isinstance(thoughts, str) else thoughts,
        ),
    )
