"""Agents on the wire: what an agent is, and the client's calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec
from msgspec import Meta

from llmagentos.api.client import ApiClient
from llmagentos.core.config.guardrails import Guardrails

AgentName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
MethodName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.[A-Za-z_][A-Za-z0-9_]*$")]
"""`service.method`"""
Text = Annotated[str, Meta(max_length=20_000)]

Route = Literal["model", "embedding"]
ToolsBy = Literal["auto", "native", "schema"]
MAX_RESULT = 256 * 1024
"""Bytes of JSON that a tool's result may have: it becomes part of the log and of a prompt."""
Priority = Annotated[int, Meta(ge=-20, le=19)] | Literal["realtime", "interactive", "batch"]
"""Nice value, -20 (first) to 19 (last), or its name."""


class ToolOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """How a tool may be called: the same keys for every kind of tool."""

    approval: Annotated[
        Literal["required"] | None, Meta(description="`required`: a person has to agree before each call")
    ] = None
    approval_timeout: Annotated[
        Annotated[float, Meta(gt=0, le=31_536_000)] | None,
        Meta(description="Seconds after which a call that nobody answered is denied; else `approvals.timeout_s`"),
    ] = None
    timeout: Annotated[
        Annotated[float, Meta(gt=0, le=86_400)] | None,
        Meta(description="Seconds for one call; without it what is left of the run's time"),
    ] = None
    idempotent: Annotated[
        bool | None, Meta(description="Whether it may be called again without harm; without it as the tool itself says")
    ] = None
    retries: Annotated[
        int, Meta(ge=0, le=10, description="Further tries of a call that failed; only for tools that are idempotent")
    ] = 0
    result_bytes: Annotated[
        int, Meta(ge=64, le=MAX_RESULT, description="Longest result; the rest is cut off, and the model told so")
    ] = MAX_RESULT
    allow: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=200)]],
        Meta(max_length=100, description="Whose runs may use it, e.g. `operator:*` or `admin:ada`; empty: everybody's"),
    ] = []
    interrupted: Annotated[
        Literal["tell", "fail"],
        Meta(
            description="When nobody knows whether a call was carried out: tell the model, or fail the run. "
            "Idempotent tools are called again"
        ),
    ] = "tell"


class ToolUse(ToolOptions, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Something that an agent may call: exactly one of service, mcp, agent, playbook and a2a says what.

    What it does and takes is asked of whoever offers it when a run begins.
    """

    service: Annotated[MethodName | None, Meta(description="service.method")] = None
    examples: Annotated[
        list[Text],
        Meta(max_length=50, description="Requests that this tool is for: they guide the choice by embedding"),
    ] = []
    mcp: Annotated[
        AgentName | None, Meta(description="Name of an MCP server (`llmctl mcp`): its tools, as NAME.TOOL")
    ] = None
    only: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=128)]],
        Meta(max_length=200, description="With `mcp`: the server's tools that are meant; without it all of them"),
    ] = []
    agent: Annotated[
        AgentName | None, Meta(description="Name of another agent: a call is a run of it, below this one")
    ] = None
    playbook: Annotated[
        Annotated[str, Meta(min_length=1, max_length=300)] | None,
        Meta(description="Playbook, counted from the file of the agent: a call is a job"),
    ] = None
    bundle: Annotated[
        Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")] | None,
        Meta(description="With `playbook`: the directory that it is in, as uploaded by `llmctl apply`"),
    ] = None
    nodes: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=200)]],
        Meta(max_length=1000, description="With `playbook`: the nodes; without it the model names them"),
    ] = []
    vars: Annotated[
        dict[str, dict[str, Any]],
        Meta(description="With `playbook`: variables that the model may set, each with its JSON Schema"),
    ] = {}
    a2a: Annotated[
        Annotated[str, Meta(pattern=r"^(https?://[^\s]{1,500}|[A-Za-z0-9][A-Za-z0-9._-]{0,62})$")] | None,
        Meta(
            description="Remote A2A agent: the address where its card is, or its name under `a2a` in llmagentos.yaml "
            "(with its token). A call is a task of it"
        ),
    ] = None
    name: Annotated[
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None,
        Meta(description="With agent, playbook and a2a: what the model calls the tool"),
    ] = None
    doc: Annotated[Text, Meta(description="With agent, playbook and a2a: what it is for, as told to the model")] = ""

    def __post_init__(self) -> None:
        given = [kind for kind in TOOL_KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"a tool is exactly one of {', '.join(TOOL_KINDS)}, not {' and '.join(given) or 'none'}")
        for key, kinds in _ONLY_WITH.items():
            if getattr(self, key) and given[0] not in kinds:
                raise ValueError(f"the key {key!r} is for {' and '.join(kinds)} only")

    @property
    def kind(self) -> str:
        """Which of `TOOL_KINDS` it is."""
        return next(kind for kind in TOOL_KINDS if getattr(self, kind) is not None)

    @property
    def source(self) -> str:
        """Where the tool comes from, e.g. `catalogue.find` or `mcp:files`."""
        return self.service or f"{self.kind}:{getattr(self, self.kind)}"


TOOL_KINDS = ("service", "mcp", "agent", "playbook", "a2a")
_ONLY_WITH = {
    "only": ("mcp",),
    "bundle": ("playbook",),
    "nodes": ("playbook",),
    "vars": ("playbook",),
    "name": ("agent", "playbook", "a2a"),
    "doc": ("agent", "playbook", "a2a"),
}


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one run may use."""

    steps: Annotated[int, Meta(ge=1, le=1000, description="Model calls and tool calls")] = 20
    repeats: Annotated[
        int,
        Meta(
            ge=1, le=1000, description="Calls of one tool with the same arguments; at one more the model is told, once"
        ),
    ] = 3
    parallel: Annotated[
        int, Meta(ge=1, le=64, description="Tool calls at the same time, when the model asks for several")
    ] = 8
    tokens: Annotated[int, Meta(ge=1, description="Tokens read and written by the model")] = 50_000
    reply: Annotated[int, Meta(ge=1, description="Tokens of one reply of the model")] = 1024
    timeout: Annotated[float, Meta(gt=0, le=86_400, description="Seconds of work, waiting for a host not counted")] = (
        300.0
    )


class MemoryUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the agent remembers beyond one session."""

    long_term: Annotated[bool, Meta(description="Whether it remembers facts from one session to the next")] = False
    recall: Annotated[
        Literal["tool", "auto"],
        Meta(
            description="tool: the model asks with the tool `recall`; auto: what fits the request stands in the prompt"
        ),
    ] = "tool"
    remember: Annotated[bool, Meta(description="Whether the model has the tool `remember`")] = True
    shared: Annotated[
        bool, Meta(description="Whether all its users share one memory; without it each has one of their own")
    ] = False
    results: Annotated[int, Meta(ge=1, le=50, description="Facts that a search brings at most")] = 5
    most: Annotated[
        int, Meta(ge=1, le=100_000, description="Facts kept of one user; over it the one that is unused longest goes")
    ] = 1000
    days: Annotated[float, Meta(gt=0, description="Days after which a fact goes that no search has brought")] = 365.0


class AgentSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="Agent"):
    """An agent: a model, instructions, tools. In YAML, `kind: Agent` and these keys."""

    name: Annotated[AgentName, Meta(description="The agent's name")]
    model: Annotated[str, Meta(min_length=1, max_length=200, description="Name of the model")] = "default"
    instructions: Annotated[Text, Meta(description="What the agent is for and how it answers")] = ""
    tools: Annotated[list[ToolUse], Meta(max_length=100, description="What it may call")] = []
    ground: (
        Annotated[
            str,
            Meta(
                pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*\.)?[A-Za-z_][A-Za-z0-9_]*$",
                description="service.method that is called first with the request; its records are all the agent "
                "answers from",
            ),
        ]
        | None
    ) = None
    route: Annotated[Route, Meta(description="What chooses a tool: the model, or similarity by embedding")] = "model"
    tools_by: Annotated[
        ToolsBy,
        Meta(
            description="How the model asks for tools: `native` with the tool calls of OpenAI's API, `schema` with a "
            "JSON object that a grammar enforces, for small models; `auto` as the model's own `tools` says"
        ),
    ] = "auto"
    threshold: Annotated[
        float, Meta(ge=-1, le=1, description="Least similarity for a choice by embedding; below it the agent asks back")
    ] = 0.82
    verify: Annotated[
        bool,
        Meta(
            description="Whether a grounded answer with numbers or mostly words that the records do not have is "
            "replaced by the records themselves"
        ),
    ] = True
    priority: Annotated[
        Priority,
        Meta(description="Whose calls to models go first: -20 (first) to 19 (last), realtime, interactive or batch"),
    ] = 0
    team: Annotated[AgentName | None, Meta(description="Whose budget its runs use: org/TEAM; `default` without it")] = (
        None
    )
    limits: Limits = msgspec.field(default_factory=Limits)
    output: Annotated[
        dict[str, Any] | None, Meta(description="JSON Schema of its answers; without it they are text")
    ] = None
    memory: MemoryUse = msgspec.field(default_factory=MemoryUse)
    guardrails: Annotated[
        Guardrails | None, Meta(description="Redaction and marking; without it as `guardrails` in llmagentos.yaml says")
    ] = None


class AgentInfo(msgspec.Struct, frozen=True):
    """A deployed agent. Times are seconds since the epoch, UTC."""

    name: str
    version: int
    host: str
    """`server`, or `module:<name>`."""
    online: bool
    """Whether its host takes runs now."""
    updated: float
    updated_by: str
    spec: AgentSpec
    functions: list[str] = []
    """Tools that are functions of the module's own."""


class ToolInfo(msgspec.Struct, frozen=True):
    """What an agent may call, as it is offered now."""

    name: str
    source: str
    """`function`, `service.method`, `mcp:NAME`, `agent:NAME`, `playbook:FILE` or `a2a:URL`."""
    doc: str = ""
    parameters: dict[str, Any] = {}
    """JSON Schema of the arguments."""
    idempotent: bool = False
    options: ToolOptions = ToolOptions()
    error: str | None = None
    """Why it is not there now."""


class Applied(msgspec.Struct, frozen=True):
    """What applying a definition did."""

    agent: AgentInfo
    change: Literal["created", "changed", "unchanged"]
    warnings: list[str] = []


async def apply(client: ApiClient, spec: AgentSpec) -> Applied:
    """Create the agent, or give it a new version."""
    return await client.put(f"/api/v1/agents/{quote(spec.name)}", spec, Applied)


async def listing(client: ApiClient) -> list[AgentInfo]:
    """Every agent, by name."""
    return await client.get("/api/v1/agents", list[AgentInfo])


async def get(client: ApiClient, name: str) -> AgentInfo:
    """One agent. Raises `NotFound`."""
    return await client.get(f"/api/v1/agents/{quote(name, safe='')}", AgentInfo)


async def versions(client: ApiClient, name: str) -> Sequence[AgentInfo]:
    """The versions that are kept, newest first. Raises `NotFound`."""
    return await client.get(f"/api/v1/agents/{quote(name, safe='')}/versions", list[AgentInfo])


async def tools(client: ApiClient, name: str) -> list[ToolInfo]:
    """What the agent may call now. Raises `NotFound`."""
    return await client.get(f"/api/v1/agents/{quote(name, safe='')}/tools", list[ToolInfo], timeout=120)


async def delete(client: ApiClient, name: str) -> None:
    """Delete the agent and stop its runs. Raises `NotFound`."""
    await client.delete(f"/api/v1/agents/{quote(name, safe='')}")
