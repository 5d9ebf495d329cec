"""Who is calling, and what each kind of identity may do.

Least privilege by kind: a node can only work its own queue, a module only serve its own name. The
table `GRANTS` is the whole policy; every endpoint names one `Permission`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Kind(StrEnum):
    """What an identity stands for."""

    ADMIN = "admin"  # a person who may do everything
    OPERATOR = "operator"  # a person who may run and change things, not tokens
    VIEWER = "viewer"  # a person or program that may only look
    NODE = "node"  # a node agent; subject is the node's name
    NODE_KEY = "node_key"  # a node's key, by a signed assertion; subject is the node's name
    MODULE = "module"  # a module process; subject is the module's name
    RUN = "run"  # a program that is a run; subject is the run's id
    JOIN = "join"  # a right to become a node, for as many machines as it says
    METRICS = "metrics"  # a Prometheus server


class Permission(StrEnum):
    """What an endpoint asks for: noun.verb."""

    TOKENS_WRITE = "tokens.write"
    SYSTEM_READ = "system.read"
    METRICS_READ = "metrics.read"
    REGISTRY_READ = "registry.read"
    REGISTRY_WRITE = "registry.write"  # register, renew, drain instances
    SERVICES_CALL = "services.call"  # exchange an identity for a service token
    MODELS_LIST = "models.list"  # their names, as OpenAI's API lists them
    MODELS_READ = "models.read"
    MODELS_CALL = "models.call"  # /v1/*
    MODELS_WRITE = "models.write"  # load and unload
    AGENTS_READ = "agents.read"
    AGENTS_WRITE = "agents.write"
    TOOLS_USE = "tools.use"  # speak MCP: each tool asks for its own permission besides
    TOOLS_WRITE = "tools.write"  # register programs and addresses whose tools agents may call
    RUNS_READ = "runs.read"
    RUNS_CONTENT = "runs.content"  # read what was said in others' runs
    RUNS_WRITE = "runs.write"  # ask, chat, kill
    RUNS_APPROVE = "runs.approve"  # agree to tool calls that wait for a person
    MEMORY_READ = "memory.read"  # what agents remember of oneself
    MEMORY_WRITE = "memory.write"
    RUNS_EXECUTE = "runs.execute"  # claim a run, append to its log
    NODES_READ = "nodes.read"
    NODES_WRITE = "nodes.write"
    NODES_UPGRADE = "nodes.upgrade"  # choose the code that node agents run
    NODES_JOIN = "nodes.join"
    NODE_WORK = "node.work"  # a node's own queue, results, facts, module tokens
    NODE_PROVE = "node.prove"  # exchange an assertion for a node's token
    JOBS_READ = "jobs.read"
    BUDGETS_READ = "budgets.read"
    BUDGETS_WRITE = "budgets.write"
    JOBS_WRITE = "jobs.write"
    JOBS_APPROVE = "jobs.approve"  # let jobs begin that need approval
    TEMPLATES_LAUNCH = "templates.launch"  # make jobs of templates, and of nothing else


_READ = frozenset(
    {
        Permission.SYSTEM_READ,
        Permission.METRICS_READ,
        Permission.REGISTRY_READ,
        Permission.MODELS_LIST,
        Permission.MODELS_READ,
        Permission.AGENTS_READ,
        Permission.RUNS_READ,
        Permission.NODES_READ,
        Permission.JOBS_READ,
        Permission.BUDGETS_READ,
    }
)

GRANTS = MappingProxyType(
    {
        Kind.ADMIN: frozenset(Permission),
        Kind.OPERATOR: _READ
        | {
            Permission.REGISTRY_WRITE,
            Permission.SERVICES_CALL,
            Permission.MODELS_CALL,
            Permission.MODELS_WRITE,
            Permission.AGENTS_WRITE,
            Permission.TOOLS_USE,
            Permission.RUNS_CONTENT,
            Permission.RUNS_WRITE,
            Permission.MEMORY_READ,
            Permission.MEMORY_WRITE,
            Permission.RUNS_APPROVE,
            Permission.RUNS_EXECUTE,
            Permission.NODES_WRITE,
            Permission.JOBS_WRITE,
            Permission.JOBS_APPROVE,
            Permission.TEMPLATES_LAUNCH,
            Permission.BUDGETS_WRITE,
        },
        Kind.VIEWER: _READ,
        Kind.NODE: frozenset({Permission.NODE_WORK}),
        Kind.NODE_KEY: frozenset({Permission.NODE_PROVE}),
        Kind.MODULE: frozenset(
            {
                Permission.REGISTRY_READ,
                Permission.REGISTRY_WRITE,
                Permission.SERVICES_CALL,
                Permission.MODELS_LIST,
                Permission.MODELS_READ,
                Permission.MODELS_CALL,
                Permission.TOOLS_USE,
                Permission.RUNS_EXECUTE,
            }
        ),
        Kind.RUN: frozenset({Permission.MODELS_LIST, Permission.MODELS_CALL}),
        Kind.JOIN: frozenset({Permission.NODES_JOIN}),
        Kind.METRICS: frozenset({Permission.METRICS_READ}),
    }
)


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller whose credential was verified."""

    kind: Kind
    subject: str  # person, node, module or run
    token_id: str | None = None

    def may(self, permission: Permission) -> bool:
        """Whether this identity holds `permission`."""
        return permission in GRANTS[self.kind]

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.subject}"
