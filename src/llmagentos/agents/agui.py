"""A run as AG-UI events (docs.ag-ui.com, "Events"): pure, from the run's log and the pieces of its answer.

The order that clients rely on: RUN_STARTED first; steps, messages and tool calls begin before they go on and end;
nothing is open when RUN_FINISHED comes; nothing comes after that or after RUN_ERROR.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llmagentos.api.agui import RunAgentInput
from llmagentos.api.retelling import Retelling, Retold
from llmagentos.api.runs import (
    Answered,
    ApprovalRequested,
    Approved,
    Claimed,
    Created,
    Denied,
    Exited,
    Failed,
    Killed,
    ModelCalled,
    ModelReplied,
    Paused,
    Resumed,
    RunDelta,
    RunEvent,
    ToolAnswered,
    ToolCalled,
    ToolRefused,
)
from llmagentos.core.errors import InvalidInput

Json = dict[str, Any]


def request_of(given: RunAgentInput) -> str:
    """What is asked: the last message, which must be the user's. Raises `InvalidInput`."""
    last = given.messages[-1]
    if last.role != "user":
        raise InvalidInput(f"the last message must be the user's, not of the role {last.role!r}")
    if isinstance(last.content, str):
        return last.content
    texts = [str(part.get("text", "")) for part in last.content or () if part.get("type") == "text"]
    if not any(texts):
        raise InvalidInput("the last message has no text")
    return "\n".join(texts)


class Translation:
    """One run, event by event. `thread` and `run` are the client's names, `own` is ours."""

    def __init__(self, thread: str, run: str, own: str) -> None:
        self._ids = {"threadId": thread, "runId": run}
        self._own = own
        self._step: str | None = None
        self._message: str | None = None
        self._messages = 0
        self._streamed = ""
        self._retelling = Retelling()
        self._replied = True
        self._asked = ""

    def begin(self) -> list[Json]:
        """What comes first."""
        return [
            {"type": "RUN_STARTED", **self._ids},
            {"type": "STATE_SNAPSHOT", "snapshot": {"run": self._own}},
        ]

    def events(self, item: RunEvent | RunDelta) -> list[Json]:
        """What `item` becomes."""
        if isinstance(item, RunDelta):
            return self._piece(item.text)
        at = int(item.at * 1000)
        return [{**event, "timestamp": at} for event in self._of(item.data)]

    def _of(self, data: Any) -> list[Json]:
        match data:
            case Created():
                self._asked = data.input
                return []
            case Claimed():  # what an earlier host had begun is begun again
                return self._step_ended()
            case ModelCalled():
                return self._called(data)
            case ModelReplied():
                self._replied = True
                return self._step_ended()
            case ToolCalled():
                return _call(data.call_id, data.name, data.arguments)
            case ToolAnswered():
                outcome = data.error if data.error is not None else data.result
                return [_result(data.call_id, outcome)]
            case ToolRefused():
                return [*_call(data.call_id, data.name, data.arguments), _result(data.call_id, data.error)]
            case ApprovalRequested() | Approved() | Denied() | Paused() | Resumed():
                kind = str(type(data).__struct_config__.tag)
                return [{"type": "CUSTOM", "name": kind, "value": msgspec.to_builtins(data)}]
            case Answered() | Failed() | Exited() | Killed():
                return self._ended(data)
            case _:
                return []

    def _ended(self, data: Answered | Failed | Exited | Killed) -> list[Json]:
        if isinstance(data, Answered):
            result = {"answer": data.text, "sources": data.sources, "run": self._own}
            return [*self._answer(data.text), *self._closed(), {"type": "RUN_FINISHED", **self._ids, "result": result}]
        if isinstance(data, Killed):
            message, code = f"stopped by {data.by}", "killed"
        elif isinstance(data, Exited):
            message, code = "its program ended badly", "exited"
        else:
            message, code = data.error, data.code
        return [*self._closed(), {"type": "RUN_ERROR", "message": message, "code": code}]

    def _called(self, data: ModelCalled) -> list[Json]:
        again = self._message is not None and not self._replied  # it was cut off: the same message goes on
        self._retelling.again()
        self._replied = False
        return [*(self._step_ended() if again else self._closed()), *self._stepped(f"model:{data.purpose.value}")]

    # Messages ---------------------------------------------------------------------------------------

    def _piece(self, text: str) -> list[Json]:
        if not text:
            return []
        begun = self._message_begun() if self._message is None else []
        try:
            new = self._retelling.told(text)
        except Retold:  # it is another answer this time
            begun = [*self._message_ended(), *self._message_begun()]
            new = self._retelling.told(text)
        self._streamed += new
        return [*begun, {"type": "TEXT_MESSAGE_CONTENT", "messageId": self._message, "delta": new}] if new else begun

    def _message_begun(self) -> list[Json]:
        self._messages += 1
        self._message = f"{self._own}-{self._messages}"
        self._streamed = ""
        self._retelling = Retelling()
        return [{"type": "TEXT_MESSAGE_START", "messageId": self._message, "role": "assistant"}]

    def _message_ended(self) -> list[Json]:
        ended = self._message
        self._message = None
        return [{"type": "TEXT_MESSAGE_END", "messageId": ended}] if ended is not None else []

    def _answer(self, text: str) -> list[Json]:
        """The answer, unless it has been streamed; what was streamed in its place is taken back."""
        if self._message is None and not self._streamed:
            return [*self._piece(text), *self._message_ended()]
        ended = self._message_ended()
        if self._streamed.strip() == text.strip():
            return ended
        messages = [
            {"id": f"{self._own}-user", "role": "user", "content": self._asked},
            {"id": f"{self._own}-{self._messages}", "role": "assistant", "content": text},
        ]
        return [*ended, {"type": "MESSAGES_SNAPSHOT", "messages": messages}]

    # Steps ------------------------------------------------------------------------------------------

    def _stepped(self, name: str) -> list[Json]:
        self._step = name
        return [{"type": "STEP_STARTED", "stepName": name}]

    def _step_ended(self) -> list[Json]:
        ended = self._step
        self._step = None
        return [{"type": "STEP_FINISHED", "stepName": ended}] if ended is not None else []

    def _closed(self) -> list[Json]:
        return [*self._message_ended(), *self._step_ended()]


def _call(call_id: str, name: str, arguments: Json) -> list[Json]:
    return [
        {"type": "TOOL_CALL_START", "toolCallId": call_id, "toolCallName": name},
        {"type": "TOOL_CALL_ARGS", "toolCallId": call_id, "delta": _json(arguments)},
        {"type": "TOOL_CALL_END", "toolCallId": call_id},
    ]


def _result(call_id: str, outcome: Any) -> Json:
    content = outcome if isinstance(outcome, str) else _json(outcome)
    return {
        "type": "TOOL_CALL_RESULT",
        "messageId": f"{call_id}-result",
        "toolCallId": call_id,
        "content": content,
        "role": "tool",
    }


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
