"""`llmctl models`: the models, whether they can be used, how busy they are; `show`, `load`, `unload`."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import click

from llmagentos.api.llm import LoadModel, ModelInfo, ModelQueue, ReplicaInfo, UnloadModel
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.output import (
    ago,
    duration,
    emit,
    emit_json,
    fields,
    json_option,
    listing_group,
    note,
    paint,
    size,
    state,
    table,
    when,
)
from llmagentos.core.errors import ModelError
from llmagentos.core.i18n import tr

POLL_S = 0.2


@listing_group(tr("List models, whether they can be used, and how busy they are."))
@click.option("--queue", is_flag=True, help=tr("Show who uses each model, who waits for it, and why."))
@json_option
def models(queue: bool, as_json: bool) -> None:
    """Exit code 0, whatever the models' states are."""
    if queue:
        _queue(as_json)
    else:
        _models(as_json)


@models.command(help=tr("Show a model: its memory, its slots, its engines and what they say of themselves."))
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Names may be aliases. Exit code 0, whatever its state is."""
    model = execute(_one(name))
    if as_json:
        emit_json(model)
        return
    fields(_facts(model))
    for replica in model.replicas:
        emit()
        fields(_replica(replica))


@models.command(help=tr("Load a model into memory and wait until it can be used."))
@click.argument("name")
@click.option("--no-wait", is_flag=True, help=tr("Return at once; `llmctl models` shows how far it is."))
@json_option
def load(name: str, no_wait: bool, as_json: bool) -> None:
    """Exit code 1 when it fails."""
    model = execute(_load(name, wait=not no_wait))
    if as_json:
        emit_json(model)
    else:
        emit(tr("{model} is {state}", model=model.name, state=state(model.state)))
    if model.state == "failed":
        raise ModelError(model.note or model.state, hint=tr("its log is below logs/ in the state directory"))


@models.command(help=tr("Take a model out of memory; the next call loads it again."))
@click.argument("name")
@click.option("--force", is_flag=True, help=tr("Even while calls use it: they fail."))
@json_option
def unload(name: str, force: bool, as_json: bool) -> None:
    """Exit code 2 when calls use it."""
    model = execute(_unload(name, force=force))
    if as_json:
        emit_json(model)
    else:
        emit(tr("{model} is {state}", model=model.name, state=state(model.state)))


def _models(as_json: bool) -> None:
    found = execute(_ask())
    if as_json:
        emit_json(found)
        return
    table(
        [
            tr("Model"),
            tr("State"),
            tr("Engine"),
            tr("Use"),
            tr("Running"),
            tr("Waiting"),
            tr("Memory"),
            tr("Tokens/s"),
            tr("Replicas"),
            tr("Other names"),
        ],
        [
            (
                model.name,
                state(model.state),
                model.engine,
                _use(model),
                f"{model.running}/{model.slots}",
                model.waiting,
                size(model.memory_bytes),
                f"{model.tokens_per_s:.1f}",
                f"{sum(replica.state == 'ready' for replica in model.replicas)}/{len(model.replicas)}",
                ", ".join(model.aliases) or "-",
            )
            for model in found
        ],
        empty=tr("No models: name them under `models` in llmagentos.yaml."),
    )
    for model in found:
        if model.note:
            note(f"{paint(model.name, 'yellow', err=True)}: {model.note}")


def _facts(model: ModelInfo) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = [
        (tr("Model"), model.name),
        (tr("Other names"), ", ".join(model.aliases) or "-"),
        (tr("Use"), _use(model)),
        (tr("Engine"), model.engine),
        (tr("State"), state(model.state) + (f": {model.note}" if model.note else "")),
    ]
    if model.keep_alive is not None:
        facts += [(tr("Since"), when(model.since)), (tr("Keep alive"), model.keep_alive)]
    if model.unloads_at is not None:
        facts.append((tr("Unloaded at"), when(model.unloads_at)))
    return [
        *facts,
        (tr("Running"), f"{model.running}/{model.slots}"),
        (tr("Waiting"), f"{model.waiting}/{model.queue}"),
        (tr("Tokens/s"), f"{model.tokens_per_s:.1f}"),
        (tr("Memory"), size(model.memory_bytes)),
        *([(tr("GPU memory"), size(model.device_memory_bytes))] if model.device_memory_bytes is not None else []),
    ]


def _replica(replica: ReplicaInfo) -> list[tuple[str, object]]:
    """What is known of an engine, without what is not."""
    server = " ".join(part for part in (replica.server, replica.version) if part)
    known = [
        (tr("Replica"), replica.name),
        (tr("State"), state(replica.state) + (f": {replica.note}" if replica.note else "")),
        (tr("Server"), server or None),
        (tr("Process"), replica.pid),
        (tr("Our calls"), replica.running),
        (tr("Calls of everybody"), replica.requests_running),
        (tr("Waiting there"), replica.requests_waiting),
        (tr("Cache in use"), None if replica.cache_usage is None else f"{100 * replica.cache_usage:.0f}%"),
        (tr("Tokens/s"), None if replica.tokens_per_s is None else f"{replica.tokens_per_s:.1f}"),
        (tr("First token"), None if replica.ttft_s is None else duration(replica.ttft_s)),
        (tr("Memory"), None if replica.memory_bytes is None else size(replica.memory_bytes)),
        (tr("GPU memory"), None if replica.device_memory_bytes is None else size(replica.device_memory_bytes)),
    ]
    return [(name, value) for name, value in known if value is not None]


def _queue(as_json: bool) -> None:
    found = execute(_ask_queues())
    if as_json:
        emit_json(found)
        return
    table(
        [tr("Model"), tr("State"), tr("Place"), tr("Run"), tr("For"), tr("Priority"), tr("Since"), tr("Waits for")],
        [row for queue in found for row in _queue_rows(queue)],
        empty=tr("No calls run and none wait."),
    )
    for queue in found:
        hidden = queue.waiting_count - len(queue.waiting) + queue.running_count - len(queue.running)
        if hidden:
            note(f"{queue.model}: " + tr("{count} more calls are not shown", count=hidden))


def _queue_rows(queue: ModelQueue) -> list[tuple[object, ...]]:
    running: list[tuple[object, ...]] = [
        (queue.model, state("running"), "-", call.run_id or "-", call.tenant, call.priority, ago(call.since), "-")
        for call in queue.running
    ]
    waiting: list[tuple[object, ...]] = [
        (
            queue.model,
            state("waiting"),
            call.position,
            call.run_id or "-",
            call.tenant,
            call.priority,
            ago(call.since),
            wait_reason(call.reason),
        )
        for call in queue.waiting
    ]
    return running + waiting


def wait_reason(reason: str) -> str:
    """What a call waits for, in words."""
    return {
        "slots": tr("a free slot"),
        "loading": tr("the model to be loaded"),
        "rate": tr("the limit per minute"),
        "backoff": tr("the endpoint, which asked to wait"),
        "held": tr("its run to be resumed"),
        "preempted": tr("a slot again, after a more urgent call"),
    }.get(reason, reason)


async def _ask() -> list[ModelInfo]:
    async with connected() as client:
        return await client.get("/api/v1/models", list[ModelInfo])


async def _ask_queues() -> list[ModelQueue]:
    async with connected() as client:
        return await client.get("/api/v1/models/queue", list[ModelQueue])


async def _one(name: str) -> ModelInfo:
    async with connected() as client:
        return await client.get(f"/api/v1/models/{quote(name)}", ModelInfo)


async def _load(name: str, *, wait: bool) -> ModelInfo:
    async with connected() as client:
        path = f"/api/v1/models/{quote(name)}"
        model = await client.post(f"{path}/load", LoadModel(), ModelInfo)
        if wait and model.state == "loading":
            note(tr("{model} is loading ...", model=model.name))
        while wait and model.state == "loading":
            await asyncio.sleep(POLL_S)
            model = await client.get(path, ModelInfo)
        return model


async def _unload(name: str, *, force: bool) -> ModelInfo:
    async with connected() as client:
        return await client.post(f"/api/v1/models/{quote(name)}/unload", UnloadModel(force), ModelInfo)


def _use(model: ModelInfo) -> str:
    return tr("chat") if model.use == "chat" else tr("embedding")
