"""Runs as A2A tasks: what a message asks for, what a run looks like as a task. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from a2a.types import Artifact, Message, Part, Role, Task, TaskState, TaskStatus
from a2a.utils.errors import ContentTypeNotSupportedError, InvalidParamsError
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from llmagentos.api.runs import Run, RunState, RunSummary

ANSWER = "answer"
"""The artifact that a run makes."""
_CONTEXT = re.compile(r"[A-Za-z0-9._-]{1,64}")

STATES: Mapping[RunState, TaskState] = {
    RunState.QUEUED: TaskState.TASK_STATE_SUBMITTED,
    RunState.RUNNING: TaskState.TASK_STATE_WORKING,
    RunState.PAUSED: TaskState.TASK_STATE_WORKING,
    # A person of ours has to agree, not the caller: nothing is asked of them.
    RunState.WAITING: TaskState.TASK_STATE_WORKING,
    RunState.SUCCEEDED: TaskState.TASK_STATE_COMPLETED,
    RunState.FAILED: TaskState.TASK_STATE_FAILED,
    RunState.KILLED: TaskState.TASK_STATE_CANCELED,
}


def request_of(message: Message) -> str:
    """The text of a message; its data as JSON. Raises `ContentTypeNotSupportedError` for files."""
    parts = []
    for part in message.parts:
        kind = part.WhichOneof("content")
        if kind == "text":
            parts.append(part.text)
        elif kind == "data":
            parts.append(msgspec.json.encode(MessageToDict(part.data)).decode())
        else:
            raise ContentTypeNotSupportedError(message="agents here take text and data, no files")
    return "\n".join(parts)


def session_of(message: Message) -> str | None:
    """The conversation that the message belongs to. Raises `InvalidParamsError`."""
    if message.task_id:
        raise InvalidParamsError(
            message="a task here takes no further messages: send one with its contextId, which begins the next task"
        )
    if message.context_id and not _CONTEXT.fullmatch(message.context_id):
        raise InvalidParamsError(message="contextId must be 1 to 64 letters, digits, '.', '_' and '-'")
    return message.context_id or None


def agent_of(message: Message, metadata: Mapping[str, Any]) -> str | None:
    """The agent that a message to the whole server names, in its own metadata or the request's."""
    for found in (MessageToDict(message.metadata), metadata):
        if isinstance(name := found.get("agent"), str):
            return name
    return None


def task(run: RunSummary, *, history: bool = True) -> Task:
    """`run` as a task; with its answer when it is a `Run` that has one."""
    made = Task(id=run.id, context_id=run.session or run.id, status=status(run))
    if isinstance(run, Run) and run.answer is not None:
        made.artifacts.append(artifact(run.answer, run.sources))
    if history:
        made.history.append(_message(run, Role.ROLE_USER, run.input))
    return made


def status(run: RunSummary) -> TaskStatus:
    """Where the run is."""
    made = TaskStatus(state=STATES[run.state], timestamp=_time(run.ended or run.started or run.created))
    told = _told(run)
    if told:
        made.message.CopyFrom(_message(run, Role.ROLE_AGENT, told))
    return made


def _told(run: RunSummary) -> str | None:
    if run.state is RunState.WAITING:
        return "waits until a person agrees to a call"
    if run.state is RunState.PAUSED:
        return f"paused by {run.paused}"
    if not isinstance(run, Run):
        return None
    return run.error or (f"stopped by {run.killed_by}" if run.killed_by else None)


def artifact(text: str, sources: list[Any]) -> Artifact:
    """The whole answer, with the records that it was made from."""
    parts = [Part(text=text, media_type="text/plain")]
    if sources:
        parts.append(Part(data=ParseDict(msgspec.to_builtins({"sources": sources}), Value())))
    return Artifact(artifact_id=ANSWER, name=ANSWER, parts=parts)


def piece(text: str) -> Artifact:
    """The next piece of an answer that is being written."""
    return Artifact(artifact_id=ANSWER, name=ANSWER, parts=[Part(text=text, media_type="text/plain")])


def _message(run: RunSummary, role: Role, text: str) -> Message:
    name = "user" if role == Role.ROLE_USER else "agent"
    return Message(
        message_id=f"{run.id}-{name}",
        context_id=run.session or run.id,
        task_id=run.id,
        role=role,
        parts=[Part(text=text)],
    )


def _time(seconds: float) -> Timestamp:
    made = Timestamp()
    made.FromNanoseconds(int(seconds * 1e9))
    return made
