"""`llmctl models`: the models, whether they can be used, and how busy they are."""

from __future__ import annotations

import click

from llmagentos.api.llm import ModelInfo, ModelQueue
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.output import ago, emit_json, json_option, note, paint, state, table
from llmagentos.core.i18n import tr


@click.command(help=tr("List models, whether they can be used, and how busy they are."))
@click.option("--queue", is_flag=True, help=tr("Show who uses each model, who waits for it, and why."))
@json_option
def models(queue: bool, as_json: bool) -> None:
    """Exit code 0, whatever the models' states are."""
    if queue:
        _queue(as_json)
    else:
        _models(as_json)


def _models(as_json: bool) -> None:
    found = execute(_ask())
    if as_json:
        emit_json(found)
        return
    table(
        [tr("Model"), tr("State"), tr("Engine"), tr("Use"), tr("Running"), tr("Waiting"), tr("Other names")],
        [
            (
                model.name,
                state(model.state),
                model.engine,
                _use(model),
                f"{model.running}/{model.slots}",
                model.waiting,
                ", ".join(model.aliases) or "-",
            )
            for model in found
        ],
        empty=tr("No models: name them under `models` in llmagentos.yaml."),
    )
    for model in found:
        if model.note:
            note(f"{paint(model.name, 'yellow', err=True)}: {model.note}")


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
    }.get(reason, reason)


async def _ask() -> list[ModelInfo]:
    async with connected() as client:
        return await client.get("/api/v1/models", list[ModelInfo])


async def _ask_queues() -> list[ModelQueue]:
    async with connected() as client:
        return await client.get("/api/v1/models/queue", list[ModelQueue])


def _use(model: ModelInfo) -> str:
    return tr("chat") if model.use == "chat" else tr("embedding")
