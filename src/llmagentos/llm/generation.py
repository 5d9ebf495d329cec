"""One answer as it is generated: at once, or with interruptions for more urgent calls.

    running   -> suspended   its slot is wanted, and it can be continued
    suspended -> running     it has a slot again: the engine goes on after the text that there is
    running   -> ended       the engine said why it stopped

What is continued is the conversation with the text so far as the beginning of the assistant's message. The
engine has read nearly all of it before (its prefix cache), so next to nothing is computed twice, and with
temperature 0 the text goes on as it would have.

Not interrupted is what could not go on unnoticed: calls of tools and answers in a given form (the grammar's
state is not in the text), drawn with a seed (the state of the random numbers is not either), thoughts (they
are no part of the message), several answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec import UNSET

from llmagentos.api.completions import CompletionRequest
from llmagentos.api.llm import ChatChunk, ChatRequest, Message, Timings, Usage

State = Literal["running", "suspended", "ended"]

TRANSITIONS: dict[State, frozenset[State]] = {
    "running": frozenset({"suspended", "ended"}),
    "suspended": frozenset({"running"}),
    "ended": frozenset(),
}


Asking = ChatRequest | CompletionRequest
"""What an answer is generated to. Of completions one prompt."""


def interruptible(request: Asking) -> bool:
    """Whether the answer to `request` can be continued after an interruption."""
    drawn = request.seed is not None and request.temperature != 0
    if isinstance(request, CompletionRequest):
        return not (drawn or request.echo or request.choices > 1)
    formed = request.response_format is not None and request.response_format.get("type") != "text"
    last = request.messages[-1]
    begun = last.role == "assistant" and not (isinstance(last.content, str) and not last.tool_calls)
    return not (drawn or formed or begun or request.tools or request.choices > 1)


@dataclass(frozen=True, slots=True)
class Part:
    """The beginning of an answer, which another call goes on with: text, its tokens, and what its prompt took."""

    text: str
    tokens: int
    prompt: int | None = None
    cached: int = 0


class Generation:
    """The answer to `request`. With `yields` it can be interrupted, and go on with `begun`."""

    def __init__(self, request: Asking, *, yields: bool, begun: Part | None = None) -> None:
        self.state: State = "running"
        self.tokens = 0
        """Tokens of the answer so far."""
        self._yields = yields and interruptible(request)
        self._asked: Asking = msgspec.structs.replace(request, timings_per_token=True) if self._yields else request
        self._text: list[str] = []
        self._before = 0
        self._prompt: int | None = None
        self._cached = 0
        self._parts: list[Usage] = []
        if begun is not None and self._yields:
            self._text.append(begun.text)
            self._before = self.tokens = begun.tokens
            self._prompt, self._cached = begun.prompt, begun.cached

    @property
    def request(self) -> Asking:
        """What the engine is asked, first or to go on."""
        if not self._before:
            return self._asked
        text = "".join(self._text)
        if isinstance(self._asked, CompletionRequest):
            return msgspec.structs.replace(self._asked, prompt=f"{self._asked.prompt}{text}", **self._left())
        messages = self._asked.messages
        if (last := messages[-1]).role == "assistant":
            going_on = [*messages[:-1], msgspec.structs.replace(last, content=f"{last.content}{text}")]
        else:
            going_on = [*messages, Message("assistant", text)]
        return msgspec.structs.replace(self._asked, messages=going_on, **self._left())

    @property
    def suspendable(self) -> bool:
        """Whether it can be interrupted now: there is text, and more may come."""
        return self._yields and self.state == "running" and self.tokens > self._before and self._room

    @property
    def part(self) -> Part | None:
        """What another call can go on with; None when there is nothing, or it cannot."""
        if not (self._yields and self.tokens and self.state != "ended" and self._room):
            return None
        return Part("".join(self._text), self.tokens, self._prompt, self._cached)

    @property
    def pausable(self) -> bool:
        """Whether it can be stopped now, at once, and go on later, or be begun again without anybody's noticing."""
        return self.state == "running" and self._room and (self._yields or not self.tokens)

    def took(self, chunk: ChatChunk) -> int:
        """A piece came; how many tokens it is worth."""
        if not chunk.choices:
            return 0
        choice = chunk.choices[0]
        tokens = 1 if chunk.adds else 0
        if self._yields:
            if choice.delta.reasoning_content or choice.delta.refusal or choice.delta.tool_calls:
                self._yields = False
            self._text.append(choice.delta.content or "")
            if isinstance(chunk.timings, Timings) and chunk.adds:
                tokens = max(0, self._before + chunk.timings.predicted_n - self.tokens)
                if self._prompt is None:
                    self._prompt = chunk.timings.prompt_n + chunk.timings.cache_n
                    self._cached = chunk.timings.cache_n
        self.tokens += tokens
        if choice.finish_reason is not None and self.state == "running":  # of several choices each says it
            self._become("ended")
        return tokens

    def suspend(self) -> None:
        """It gives up its slot. Raises `ValueError` when it is not `suspendable`."""
        if not self.suspendable:
            raise ValueError("this answer cannot be interrupted now")
        self._stop()

    def pause(self) -> None:
        """It is stopped, whether there is text or not. Raises `ValueError` when it is not `pausable`."""
        if not self.pausable:
            raise ValueError("this answer cannot be paused now")
        self._stop()

    def resume(self) -> None:
        """It has a slot again: `request` goes on."""
        self._become("running")

    def usage(self, last: Usage) -> Usage:
        """What all of it took, by what the engine said of the last part."""
        if self._asked.choices > 1:  # some engines tell it once, others of each choice
            self._parts.append(last)
            out = sum(part.completion_tokens for part in self._parts)
            return Usage(last.prompt_tokens, out, last.prompt_tokens + out)
        if not self._before:
            return last
        prompt = self._prompt if self._prompt is not None else max(0, last.prompt_tokens - self._before)
        out = self._before + last.completion_tokens
        known = {"cached_tokens": self._cached} if isinstance(last.prompt_tokens_details, dict) else UNSET
        return Usage(prompt, out, prompt + out, known)

    @property
    def _room(self) -> bool:
        return self._asked.limit is None or self.tokens < self._asked.limit

    def _stop(self) -> None:
        self._become("suspended")
        self._before = self.tokens

    def _left(self) -> dict[str, int]:
        if (limit := self._asked.limit) is None:
            return {}
        if isinstance(self._asked, ChatRequest) and self._asked.max_completion_tokens is not None:
            return {"max_completion_tokens": limit - self._before}
        return {"max_tokens": limit - self._before}

    def _become(self, state: State) -> None:
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"an answer that is {self.state} cannot be {state}")
        self.state = state
