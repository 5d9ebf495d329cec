"""`llmctl models`: the models, whether they can be used, and how busy they are."""

from __future__ import annotations

import click

from llmagentos.api.llm import ModelInfo
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.output import emit_json, json_option, note, paint, state, table
from llmagentos.core.i18n import tr


@click.command(help=tr("List models, whether they can be used, and how busy they are."))
@json_option
def models(as_json: bool) -> None:
    """Exit code 0, whatever the models' states are."""
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


async def _ask() -> list[ModelInfo]:
    async with connected() as client:
        return await client.get("/api/v1/models", list[ModelInfo])


def _use(model: ModelInfo) -> str:
    return tr("chat") if model.use == "chat" else tr("embedding")
