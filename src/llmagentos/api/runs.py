"""Runs on the wire: the events of a run's log, its summary, and the client's calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from msgspec import Meta

from llmagentos.api.agents import AgentName, Priority
from llmagentos.api.client import ApiClient

MAX_INPUT = 100_000
MAX_ATTACHMENTS = 20
Request = Annotated[str, Meta(min_length=1, max_length=MAX_INPUT)]
RunId = Annotated[str, Meta(pattern=r"^[0-9a-z]{1,12}$")]
Session = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class RunState(StrEnum):
    """Where a run is; `agents.states` has the transitions."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    WAITING = "waiting_approval"  # for a person's answer
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    KILLED = "killed"

    @property
    def ended(self) -> bool:
        """Whether nothing more can happen."""
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.KILLED)


class RunSort(StrEnum):
    """What a list of runs is sorted by."""

    NEWEST = "newest"
    OLDEST = "oldest"
    PRIORITY = "priority"  # those that go first
    TOKENS = "tokens"  # those that used most
    AGENT = "agent"
    STATE = "state"


class Purpose(StrEnum):
    """What a model is called for."""

    ROUTE = "route"  # embeddings: which tool fits the request
    TOOL = "tool"  # which tool to call next, or with which arguments
    ANSWER = "answer"  # the text that the caller sees
    COMPACT = "compact"  # a summary of the session's older turns


class Turn(msgspec.Struct, frozen=True):
    """An earlier request of the session and its answer."""

    input: str
    answer: str


class Attachment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file that goes with a request, by the SHA-256 of its bytes."""

    digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    type: Annotated[str, Meta(max_length=100)] = "text/plain"
    """Its media type."""
    size: int = 0
    """Bytes."""


class _Data(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """What every kind of event derives from."""


class Created(_Data, frozen=True, tag="created"):
    """Somebody asked. `history` is what the agent may know of the session, fixed here for good."""

    agent: str
    version: int
    model: str
    input: str
    by: str
    session: str | None = None
    history: list[Turn] = []
    priority: int = 0
    """Nice value: -20 goes before all others, 19 after them."""
    parent: str | None = None
    """The run that asked."""
    summary: str = ""
    """What stands for the turns of the session before `history`."""
    context: int = 0
    """Tokens of context that the model had when it was asked; 0 when nobody knew."""
    boundary: str = ""
    """What sets off foreign text in this run's prompts; nobody outside can know it."""
    attachments: list[Attachment] = []
    redact: list[str] = []
    """Kinds of personal data that stand in this log as placeholders only (`security.redaction`)."""
    restore_s: float = 0.0
    """Seconds after the run's end for which who asked sees the values in its answer."""


class Claimed(_Data, frozen=True, tag="claimed"):
    """A host took the run (again, after the host before it was lost)."""

    holder: str
    fence: int


class ModelCalled(_Data, frozen=True, tag="model_called"):
    """A model call began."""

    purpose: Purpose
    model: str
    covers: int = 0
    """With `compact`: so many turns of the session, the oldest, give way to the reply."""


class ToolRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call that the model asks for in its reply, as it wrote it; `arguments` should be a JSON object."""

    name: str
    arguments: str


class ModelReplied(_Data, frozen=True, tag="model_replied"):
    """A model call ended well. Times in seconds."""

    purpose: Purpose
    text: str
    tokens_in: int = 0
    tokens_out: int = 0
    queue_s: float = 0.0
    ttft_s: float = 0.0
    duration_s: float = 0.0
    cut: bool = False
    """The reply ended at the limit of tokens."""
    calls: list[ToolRequest] = []
    """The tools that it asks for, all of them before it is called again."""


class ModelUsed(_Data, frozen=True, tag="model_used"):
    """A call that the run's own program made through the gate, from its beginning to its end. Times in seconds."""

    call: str
    model: str
    status: str
    tokens_in: int = 0
    tokens_out: int = 0
    queue_s: float = 0.0
    ttft_s: float = 0.0
    duration_s: float = 0.0
    error: str | None = None


class ToolCalled(_Data, frozen=True, tag="tool_called"):
    """A tool call began."""

    call_id: str
    name: str
    arguments: dict[str, Any]


class ToolAnswered(_Data, frozen=True, tag="tool_answered"):
    """A tool call ended: with `error`, or with `result`."""

    call_id: str
    result: Any = None
    error: str | None = None
    duration_s: float = 0.0


class ToolRefused(_Data, frozen=True, tag="tool_refused"):
    """A call that the model asked for was not made, and why: its arguments are wrong, or it may not be made."""

    call_id: str
    name: str
    arguments: dict[str, Any]
    error: str


class ApprovalRequested(_Data, frozen=True, tag="approval_requested"):
    """A call waits until a person agrees; after `timeout` seconds it is denied (None: after the server's own)."""

    call_id: str
    name: str
    arguments: dict[str, Any]
    timeout: float | None = None


class ApprovalNotified(_Data, frozen=True, tag="approval_notified"):
    """The webhook took notice of a call that waits."""

    call_id: str
    attempts: int


class Approved(_Data, frozen=True, tag="approved"):
    """A person agreed to a call."""

    call_id: str
    by: str
    reason: str | None = None


class Denied(_Data, frozen=True, tag="denied"):
    """A call is not made: a person said no, or nobody answered in time."""

    call_id: str
    by: str
    reason: str | None = None


class Answered(_Data, frozen=True, tag="answered"):
    """The run succeeded. `sources` are the records that the answer was made from."""

    text: str
    sources: list[Any] = []
    replaced: str | None = None
    """Why the records themselves stand here instead of the model's words."""
    output: Any = None
    """The answer as JSON, of an agent with `output`."""


class Failed(_Data, frozen=True, tag="failed"):
    """The run failed."""

    error: str
    code: str = "internal"


class Exited(_Data, frozen=True, tag="exited"):
    """The run's program ended badly: with `code` (minus a signal's number), or nobody knows how (None)."""

    code: int | None = None


class Killed(_Data, frozen=True, tag="killed"):
    """Somebody stopped the run."""

    by: str


class Paused(_Data, frozen=True, tag="paused"):
    """The run starts no further call. With `now` the call under way was stopped too, and is made again later."""

    by: str
    now: bool = False
    reason: str | None = None


class Resumed(_Data, frozen=True, tag="resumed"):
    """The run goes on."""

    by: str


class Reniced(_Data, frozen=True, tag="reniced"):
    """The run has another nice value from now on."""

    priority: int
    by: str


_Work = Created | Claimed | ModelCalled | ModelReplied | ModelUsed | ToolCalled | ToolAnswered | ToolRefused
_Approval = ApprovalRequested | ApprovalNotified | Approved | Denied
Data = _Work | _Approval | Answered | Failed | Exited | Killed | Paused | Resumed | Reniced


class RunEvent(msgspec.Struct, frozen=True):
    """One entry of a run's log. `seq` counts from 1; `at` is seconds since the epoch, UTC."""

    seq: int
    at: float
    data: Data

    @property
    def type(self) -> str:
        """The kind of event, e.g. `tool_called`."""
        return str(type(self.data).__struct_config__.tag)


class RunDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of an answer while it is being generated. Not kept: the log has the whole."""

    run: str
    text: str
    begins: bool = False
    """Whether this is all that there is of the answer so far, for who begins to follow the run in the middle of it."""


class Wait(msgspec.Struct, frozen=True):
    """What a run's next call to a model waits for, or the run itself."""

    model: str
    """Empty when it is not a model."""
    position: int
    """Place in the model's queue; 1 is next, if nothing else comes."""
    reason: str
    """`slots`, `rate`, `backoff` or `held` (`kernel.calls.Reason`); `tools` when those of a system that is away are not
    there."""
    told: str = ""
    """What is away."""


class RunSummary(msgspec.Struct, frozen=True):
    """A run in a list. Times are seconds since the epoch, UTC."""

    id: str
    agent: str
    version: int
    model: str
    state: RunState
    input: str
    """The start of the request."""
    created: float
    created_by: str
    session: str | None = None
    started: float | None = None
    ended: float | None = None
    model_calls: int = 0
    tool_calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    priority: int = 0
    """Nice value: -20 goes before all others, 19 after them."""
    parent: str | None = None
    """The run that asked."""
    paused: str | None = None
    """Who paused it, and why."""
    approvals: list[str] = []
    """Names of the tools whose calls wait for a person's answer."""
    money: int = 0
    """What its calls to models cost, by the prices when it was asked for, in billionths of the currency."""
    wait: Wait | None = None
    """What its next call waits for, at the moment of asking."""


class Run(RunSummary, frozen=True):
    """One run with its request and outcome in full."""

    answer: str | None = None
    output: Any = None
    """The answer as JSON, of an agent with `output`."""
    sources: list[Any] = []
    attachments: list[Attachment] = []
    error: str | None = None
    killed_by: str | None = None


class NewRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A request to an agent. Requests of one `session` see each other's answers, and run one at a time."""

    agent: AgentName
    input: Request
    session: Session | None = None
    priority: Priority | None = None
    """The agent's when None."""
    parent: RunId | None = None
    """The run that asks: it is killed, paused and resumed with this one below it."""
    attachments: Annotated[list[Attachment], Meta(max_length=MAX_ATTACHMENTS)] = []
    """Files that were uploaded before."""


# The client's calls -------------------------------------------------------------------------------


async def start(
    client: ApiClient,
    agent: str,
    text: str,
    *,
    session: str | None = None,
    priority: Priority | None = None,
    parent: str | None = None,
    attachments: Sequence[Attachment] = (),
) -> RunSummary:
    """Ask `agent`. Raises `NotFound` for an unknown agent, `Conflict` while the session's last run goes on."""
    request = NewRun(agent, text, session, priority, parent, list(attachments))
    return await client.post("/api/v1/runs", request, RunSummary)


async def listing(
    client: ApiClient,
    *,
    ended: bool,
    agent: str | None = None,
    state: RunState | None = None,
    sort: RunSort = RunSort.NEWEST,
    limit: int = 100,
    offset: int = 0,
) -> list[RunSummary]:
    """Runs; with `ended` also those that are over, with `state` only those in it."""
    query = {"all": int(ended), "agent": agent, "state": state, "sort": sort, "limit": limit, "offset": offset}
    return await client.get("/api/v1/runs", list[RunSummary], query=query)


async def get(client: ApiClient, run: str) -> Run:
    """One run by its id or the unique start of it. Raises `NotFound` or `InvalidInput`."""
    return await client.get(f"/api/v1/runs/{quote(run, safe='')}", Run)


async def events(client: ApiClient, run: str) -> list[RunEvent]:
    """A run's log so far."""
    return await client.get(f"/api/v1/runs/{quote(run, safe='')}/events", list[RunEvent])


async def follow(client: ApiClient, run: str, *, after: int = 0) -> AsyncIterator[RunEvent | RunDelta]:
    """A run's log from the event after `after`, live, until the run has ended."""
    path = f"/api/v1/runs/{quote(run, safe='')}/events"
    async with client.events(path, query={"follow": 1}, last_event_id=str(after)) as stream:
        async for event in stream:
            if event.event == "delta":
                yield event.decode(RunDelta)
            elif event.event == "event":
                yield event.decode(RunEvent)
