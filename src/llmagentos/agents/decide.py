"""What a run does next: a pure decision over the agent and the folded log.

A host asks, carries the step out, appends what came of it and asks again. Because the answer depends on
nothing but the log, any host can carry on where another was lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from llmagentos.agents import asking, choosing, compaction, foreign, grounding, native, output, routing, support
from llmagentos.agents.calling import Ask, Calls, CallTool, Fail, RefuseTool, batch, interrupted
from llmagentos.agents.log import Log, ModelTurn, ToolTurn
from llmagentos.agents.model import Message, Prompt
from llmagentos.agents.tools import Tool, Toolset
from llmagentos.api.agents import AgentSpec
from llmagentos.api.runs import Purpose

_LONGEST_CHOICE = 512
_LONGEST_QUERY = 1000
_OURS = (grounding.CALL_ID, grounding.RECALL_ID)
"""Calls that no model asks for."""
_SHORTEST_REPLY = 16
"""Under this many tokens no call is made: nothing useful would come of it."""


class CallModel(msgspec.Struct, frozen=True):
    """Call the chat model."""

    prompt: Prompt


class Rank(msgspec.Struct, frozen=True):
    """Compare the request with the tools by embedding."""

    request: str


class Answer(msgspec.Struct, frozen=True):
    """The run's answer."""

    text: str
    sources: list[Any] = []
    replaced: str | None = None
    output: Any = None


Step = Calls | Ask | CallModel | Rank | Answer | Fail
_Next = CallTool | tuple[CallTool | RefuseTool, ...] | CallModel | Rank | Answer | Fail
"""What is wanted next, before limits and permissions."""


def decide(spec: AgentSpec, tools: Toolset, log: Log) -> Step | None:
    """The next step; None when the run has ended, or waits for a person."""
    if log.ended_at is not None or log.questions:
        return None
    if log.open_tools:
        return interrupted(spec, tools, log.open_tools)
    step = _next(spec, tools, log)
    if isinstance(step, CallTool | tuple | CallModel | Rank) and log.steps >= spec.limits.steps:
        return Fail(f"no answer within {spec.limits.steps} steps (limits.steps)", "limit_steps")
    if isinstance(step, CallTool | tuple):
        return batch(spec, tools, log, step if isinstance(step, tuple) else (step,))
    return _within_tokens(spec, log, step) if isinstance(step, CallModel) else step


def _within_tokens(spec: AgentSpec, log: Log, step: CallModel) -> CallModel | Fail:
    """The call with what is left of the run's tokens, or the summary of the session that makes room for it."""
    if log.covered and not log.summary:
        return Fail(f"the model {spec.model!r} did not sum up the session", "compaction_failed")
    step = CallModel(compaction.due(spec, log, step.prompt) or step.prompt)
    left = spec.limits.tokens - log.tokens - step.prompt.estimate
    if left < _SHORTEST_REPLY:
        return Fail(
            f"the next model call does not fit into {spec.limits.tokens} tokens (limits.tokens), "
            f"of which {log.tokens} are used",
            "limit_tokens",
        )
    if left >= step.prompt.max_tokens:
        return step
    return CallModel(msgspec.structs.replace(step.prompt, max_tokens=left))


def _next(spec: AgentSpec, tools: Toolset, log: Log) -> _Next:
    last = log.turns[-1] if log.turns else None
    if isinstance(last, ModelTurn) and last.purpose is Purpose.ANSWER and not last.calls:
        return _answer(spec, tools, log, last)
    if spec.memory.long_term and spec.memory.recall == "auto" and not _called(log, grounding.RECALL_ID):
        return CallTool(grounding.RECALL_ID, grounding.RECALL_ID, {"query": log.input[:_LONGEST_QUERY]})
    records: list[Any] | None = None
    if tools.ground is not None:
        found = _grounding(tools.ground, log)
        if not isinstance(found, list):
            return found
        records = found
    if not tools.tools:
        return _ask(spec, log, records)
    if spec.route == "embedding":
        return _routed(spec, tools, log)
    calls = native.wanted(log, tools.tools)
    if calls:
        return tuple(calls)
    if spec.tools_by == "native" or calls is not None:
        return _asked(spec, tools, log, records)
    return _chosen(spec, tools, log, records)


def _grounding(ground: Tool, log: Log) -> list[Any] | _Next:
    """The records to answer from, or the step that is needed first (or instead)."""
    answered = _called(log, grounding.CALL_ID)
    if answered is None:
        parameter = ground.text_parameter
        if parameter is None:
            return Fail(f"{ground.name} takes no text, so it cannot be asked with the request", "invalid_ground")
        return CallTool(grounding.CALL_ID, ground.name, {parameter: log.input})
    if answered.error is not None:
        return _tool_failed(answered)
    records = grounding.records(answered.result, answered.name)
    return records or Answer(grounding.unknown(log.input))


def _called(log: Log, call_id: str) -> ToolTurn | None:
    return next((turn for turn in log.tools if turn.call_id == call_id), None)


def _tool_failed(turn: ToolTurn) -> Fail:
    error = str(turn.error)
    return Fail(error if error.startswith(turn.name) else f"{turn.name}: {error}", "tool_failed")


def _ask(spec: AgentSpec, log: Log, records: list[Any] | None) -> CallModel | Answer | Fail:
    head, request = asking.system(spec, log, tools=False), asking.request(spec, log)
    if records is not None:
        messages = grounding.prompt(head, records, log.history, request)
        return _model(spec, messages, temperature=0.0, live=not spec.verify, schema=spec.output)
    system = [Message("system", head)] if head else []
    return _model(spec, (*system, *earlier(log), request), schema=spec.output)


def _answer(spec: AgentSpec, tools: Toolset, log: Log, last: ModelTurn) -> _Next:
    text = last.text.strip()
    found = grounding.given(log)
    if spec.output is not None:
        return _formed(spec, tools, log, last, found)
    if not text:
        return Fail(f"the model {spec.model!r} answered nothing", "empty_answer")
    if not found or not _grounded(spec):
        return Answer(text, found)
    request = asking.request(spec, log).content
    if spec.verify and (why := support.unsupported(text, [*found, *asking.remembered(log)], request)) is not None:
        return Answer(grounding.quoted(found, log.input), found, why)
    return Answer(text, support.used(text, found, log.input))


def _formed(spec: AgentSpec, tools: Toolset, log: Log, last: ModelTurn, found: list[Any]) -> _Next:
    """An answer in the form that the agent's is to have; asked for once more when it has not."""
    schema: dict[str, Any] = spec.output or {}
    value, wrong = output.read(last.text, schema, cut=last.cut)
    if wrong is None and found and _grounded(spec) and spec.verify:
        wrong = support.unsupported(
            output.words(value), [*found, *asking.remembered(log)], asking.request(spec, log).content
        )
    if wrong is None:
        return Answer(msgspec.json.encode(value).decode(), found, output=value)
    before = msgspec.structs.replace(log, turns=log.turns[:-1])
    asked = _next(spec, tools, before)
    if not isinstance(asked, CallModel) or any(_is_answer(turn) for turn in before.turns):
        return Fail(f"the model {spec.model!r} gave no answer of the form that is wanted: {wrong}", "bad_output")
    again = (Message("assistant", output.shown(last.text)), Message("user", output.repair(wrong)))
    messages = (*asked.prompt.messages, *again)
    return CallModel(msgspec.structs.replace(asked.prompt, messages=messages, schema=schema, tools=()))


def _is_answer(turn: ModelTurn | ToolTurn) -> bool:
    return isinstance(turn, ModelTurn) and turn.purpose is Purpose.ANSWER and not turn.calls


def _grounded(spec: AgentSpec) -> bool:
    """Whether its answers come from records alone."""
    return spec.ground is not None or spec.route == "embedding"


def _routed(spec: AgentSpec, tools: Toolset, log: Log) -> _Next:
    """One tool, chosen by embedding; its result is the text to answer from."""
    ranking = next((t for t in log.turns if isinstance(t, ModelTurn) and t.purpose is Purpose.ROUTE), None)
    if ranking is None:
        return Rank(log.input)
    chosen = routing.choose(ranking.text, tools.tools, spec.threshold)
    if chosen is None:
        return Answer(routing.ask_back(ranking.text, tools.tools, log.input))
    called = next((turn for turn in log.tools if turn.call_id not in _OURS), None)
    if called is not None:
        if called.error is not None:
            return _tool_failed(called)
        records = grounding.records(called.result, called.name)
        return _ask(spec, log, records) if records else Answer(grounding.unknown(log.input))
    asked = next((t for t in reversed(log.turns) if isinstance(t, ModelTurn) and t.purpose is Purpose.TOOL), None)
    if asked is not None:
        arguments = choosing.parse_object(asked.text)
        if arguments is None:
            return Fail(f"the model {spec.model!r} gave no arguments for {chosen.name}: {asked.text!r}", "bad_reply")
        return CallTool(_call_id(log), chosen.name, arguments)
    if not chosen.parameters.get("properties"):
        return CallTool(_call_id(log), chosen.name, {})
    prompt = choosing.arguments_prompt(chosen, log.input)
    return _model(spec, prompt, purpose=Purpose.TOOL, schema=dict(chosen.parameters), temperature=0.0)


def _asked(spec: AgentSpec, tools: Toolset, log: Log, records: list[Any] | None) -> CallModel:
    """The model asks for tools itself, or answers."""
    head = choosing.system(asking.system(spec, log, tools=True), records)
    boundary = foreign.boundary_of(spec, log)
    messages = native.transcript(head, asking.request(spec, log), log, earlier(log), boundary)
    call = _model(spec, messages, live=not (spec.verify and _grounded(spec)))
    return CallModel(msgspec.structs.replace(call.prompt, tools=native.offered(tools.tools)))


def _chosen(spec: AgentSpec, tools: Toolset, log: Log, records: list[Any] | None) -> _Next:
    """The model chooses, call by call, until it wants to answer."""
    last = log.turns[-1] if log.turns else None
    if isinstance(last, ModelTurn) and last.purpose is Purpose.TOOL:
        choice = choosing.parse(last.text, tools.tools)
        if isinstance(choice, choosing.Call) and not _repeats(choice, log.tools):
            return CallTool(_call_id(log), choice.tool, choice.arguments)
        if isinstance(choice, choosing.Unusable) and _unusable_before(tools, log):
            return Fail(f"the model {spec.model!r} made no usable choice: {choice.reason}", "bad_reply")
        if not isinstance(choice, choosing.Unusable):
            return _model(
                spec,
                _transcript(spec, tools, log, records, answering=True),
                live=not (spec.verify and _grounded(spec)),
                schema=spec.output,
            )
    messages = _transcript(spec, tools, log, records, answering=False)
    return _model(spec, messages, purpose=Purpose.TOOL, schema=choosing.schema(tools.tools), temperature=0.0)


def _transcript(
    spec: AgentSpec, tools: Toolset, log: Log, records: list[Any] | None, *, answering: bool
) -> list[Message]:
    head, boundary = asking.system(spec, log, tools=True, answering=answering), foreign.boundary_of(spec, log)
    request = asking.request(spec, log)
    return choosing.transcript(head, request, log, records, tools.tools, answering=answering, boundary=boundary)


def _repeats(choice: choosing.Call, done: Sequence[ToolTurn]) -> bool:
    """Whether the same call was just answered: a model that asks again will go on asking."""
    return bool(done) and (done[-1].name, done[-1].arguments) == (choice.tool, choice.arguments)


def _unusable_before(tools: Toolset, log: Log) -> bool:
    before = log.turns[-2] if len(log.turns) > 1 else None
    return isinstance(before, ModelTurn) and isinstance(choosing.parse(before.text, tools.tools), choosing.Unusable)


def _call_id(log: Log) -> str:
    return f"call-{len(log.tools) + 1}"


def earlier(log: Log) -> tuple[Message, ...]:
    """The session's earlier turns as messages."""
    return tuple(
        message for turn in log.history for message in (Message("user", turn.input), Message("assistant", turn.answer))
    )


def _model(
    spec: AgentSpec,
    messages: Sequence[Message],
    *,
    purpose: Purpose = Purpose.ANSWER,
    schema: dict[str, Any] | None = None,
    temperature: float | None = None,
    live: bool = True,
) -> CallModel:
    live = live and spec.output is None  # nobody wants to read half of it, or one that is asked for again
    if schema is not None and temperature is None:
        temperature = 0.0
    most = spec.limits.reply if purpose is Purpose.ANSWER else min(_LONGEST_CHOICE, spec.limits.reply)
    return CallModel(Prompt(spec.model, tuple(messages), most, purpose, live, schema, temperature))
