"""What `llmctl doctor` asks the running server: whether models answer and nodes are there."""

from __future__ import annotations

import time
from collections.abc import Iterator

from llmagentos.api import nodes as nodes_api
from llmagentos.api.client import ApiClient
from llmagentos.api.llm import ModelInfo
from llmagentos.api.nodes import NodeSummary
from llmagentos.cli.connect import execute
from llmagentos.cli.finding import Finding, Verdict
from llmagentos.cli.output import duration
from llmagentos.core.discovery import read
from llmagentos.core.errors import LLMAgentOSError
from llmagentos.core.i18n import tr
from llmagentos.core.state import StateDirectory


def live(directory: StateDirectory) -> Iterator[Finding]:
    """Findings on the models and nodes of the server that runs on `directory`."""
    try:
        models, nodes = execute(_ask(directory))
    except LLMAgentOSError as error:
        yield Finding(tr("engine"), "fail", error.message, error.hint)
        return
    for model in models:
        yield _model(model, directory)
    for node in nodes:
        yield from _node(node)


async def _ask(directory: StateDirectory) -> tuple[list[ModelInfo], list[NodeSummary]]:
    credentials = read(directory.credentials)
    async with ApiClient(credentials.server, credentials.token, tls=credentials.tls(), timeout=10) as client:
        return await client.get("/api/v1/models", list[ModelInfo]), await nodes_api.listing(client)


def _model(model: ModelInfo, directory: StateDirectory) -> Finding:
    verdicts: dict[str, Verdict] = {"ready": "ok", "unloaded": "ok", "loading": "warn"}
    verdict = verdicts.get(model.state, "fail")
    message = tr("{model} ({engine}) is {state}", model=model.name, engine=model.engine, state=model.state)
    if model.note:
        message += f": {model.note}"
    hint = tr("`llmctl status` shows its process, its log is below {path}", path=directory.logs)
    return Finding(tr("engine"), verdict, message, hint if verdict == "fail" else None)


def _node(node: NodeSummary) -> Iterator[Finding]:
    name = tr("nodes")
    if node.state == "ready":
        yield Finding(name, "ok", tr("{node} is ready, {count} jobs in its queue", node=node.name, count=node.queue))
    else:
        silent = duration(max(0.0, time.time() - node.seen))
        yield Finding(
            name,
            "warn",
            tr("{node} has been silent for {time}", node=node.name, time=silent),
            tr("start its node agent; it gets its jobs then. `llmctl node remove {node}` takes it out", node=node.name),
        )
    for unit in node.modules:
        if unit.state == "failed":
            yield Finding(
                name,
                "warn",
                tr("{node}: module {module} fails: {why}", node=node.name, module=unit.name, why=unit.message or "-"),
                f"llmctl node show {node.name}",
            )
