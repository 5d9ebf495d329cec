"""`llmctl apply`, `delete`, `agents`, `agent`."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from msgspec.structs import replace

from llmagentos.agents.definition import read_agent
from llmagentos.api import agents as api
from llmagentos.api.agents import AgentInfo, AgentSpec, ToolInfo
from llmagentos.api.templates import TemplateSpec
from llmagentos.cli.connect import connected, execute
from llmagentos.cli.output import (
    ago,
    emit,
    emit_json,
    fields,
    json_option,
    listing_group,
    note,
    short,
    state,
    table,
    warn,
)
from llmagentos.cli.pack import pack
from llmagentos.cli.run import uploaded
from llmagentos.cli.templates import is_template, read_template
from llmagentos.cli.templates import put as put_template
from llmagentos.core.errors import InvalidInput
from llmagentos.core.i18n import tr


@click.command(help=tr("Create agents and job templates from YAML files, or give them a new version."))
@click.option(
    "-f",
    "--file",
    "files",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    multiple=True,
    help=tr("The file; may be given several times."),
)
def apply(files: tuple[Path, ...]) -> None:
    """Checks every file before anything is applied."""
    made = [read_template(file) for file in files if is_template(file)]
    packed: dict[str, bytes] = {}
    specs = [_with_playbooks(read_agent(file), file, packed) for file in files if not is_template(file)]
    execute(_apply(specs, packed, made))


def _with_playbooks(spec: AgentSpec, file: Path, packed: dict[str, bytes]) -> AgentSpec:
    """The agent with the directories of its playbooks packed into `packed`. Raises `InvalidInput`."""
    tools = []
    for tool in spec.tools:
        if tool.playbook is None or tool.bundle is not None:
            tools.append(tool)
            continue
        playbook = file.absolute().parent / tool.playbook
        if not playbook.is_file():
            raise InvalidInput(tr("{file}: there is no playbook {playbook}", file=file, playbook=playbook))
        digest, packed_now = pack(playbook.parent)
        packed[digest] = packed_now
        tools.append(replace(tool, bundle=digest))
    return replace(spec, tools=tools)


async def _apply(
    specs: list[AgentSpec], packed: dict[str, bytes], templates: list[tuple[str, TemplateSpec, bytes]]
) -> None:
    words = {"created": tr("created"), "changed": tr("changed"), "unchanged": tr("unchanged")}
    async with connected() as client:
        for digest, content in packed.items():
            await uploaded(client, digest, content)
        for spec in specs:
            done = await api.apply(client, spec)
            emit(
                tr(
                    "agent {name}: {change} (version {version})",
                    name=spec.name,
                    change=words[done.change],
                    version=done.agent.version,
                )
            )
            for warning in done.warnings:
                warn(warning)
        for name, template, content in templates:
            put = await put_template(client, name, template, content)
            told = tr(
                "job template {name}: {change} (version {version})",
                name=name,
                change=words[put.change],
                version=put.template.version,
            )
            emit(told)


@click.command(help=tr("Delete an agent and stop its runs."))
@click.argument("kind", type=click.Choice(["agent"]))
@click.argument("name")
def delete(kind: str, name: str) -> None:
    """The kind is named so that other things can be deleted by the same command."""
    execute(_delete(name))
    note(tr("{kind} {name} deleted", kind=kind, name=name))


async def _delete(name: str) -> None:
    async with connected() as client:
        await api.delete(client, name)


@listing_group(tr("List agents; `show NAME` shows one with its tools."))
@json_option
def agents(as_json: bool) -> None:
    """One line an agent."""
    found = execute(_listing())
    if as_json:
        emit_json(found)
        return
    table(
        [tr("Name"), tr("Model"), tr("Uses"), tr("Hosted by"), tr("State"), tr("Version"), tr("Deployed")],
        (
            [
                agent.name,
                agent.spec.model,
                ", ".join(_tools(agent)) or "-",
                agent.host,
                state("ready" if agent.online else "away"),
                agent.version,
                ago(agent.updated),
            ]
            for agent in found
        ),
        empty=tr("No agents. `llmctl apply -f FILE` creates one."),
    )


async def _listing() -> list[AgentInfo]:
    async with connected() as client:
        return await api.listing(client)


@click.command(help=tr("Show one agent with its tools."))
@click.argument("name")
@click.option("--schema", is_flag=True, help=tr("Show what each tool takes, as JSON Schema."))
@json_option
def agent(name: str, schema: bool, as_json: bool) -> None:
    """The definition in force, the versions that are kept, and what its tools are now."""
    versions, tools = execute(_versions(name))
    if as_json:
        emit_json({**msgspec.to_builtins(versions[0]), "tools": tools})
        return
    _show(versions)
    _show_tools(tools, schema)


agents.add_command(agent, "show")


def _show_tools(tools: list[ToolInfo], schema: bool) -> None:
    if not tools:
        return
    emit()
    table(
        [tr("Tool"), tr("From"), tr("Arguments"), tr("Options"), tr("What it does")],
        (
            [
                tool.name,
                tool.source,
                short(", ".join(tool.parameters.get("properties", {})) or "-", 40),
                short(_options(tool) or "-", 40),
                short(tool.error or tool.doc or "-", 60),
            ]
            for tool in tools
        ),
    )
    for tool in tools if schema else ():
        emit(f"\n{tool.name}: {msgspec.json.encode(tool.parameters).decode()}")


def _options(tool: ToolInfo) -> str:
    """What was said of it beyond where it comes from."""
    given = [f"{name}={value}" for name, value in msgspec.to_builtins(tool.options).items()]
    return ", ".join([*given, *(["idempotent"] if tool.idempotent and not tool.options.idempotent else [])])


def _show(versions: list[AgentInfo]) -> None:
    shown = versions[0]
    limits = shown.spec.limits
    fields(
        [
            (tr("Name"), shown.name),
            (tr("Version"), shown.version),
            (tr("Model"), shown.spec.model),
            (tr("Hosted by"), f"{shown.host} ({state('ready' if shown.online else 'away')})"),
            (tr("Answers from"), shown.spec.ground or "-"),
            (tr("Tools"), ", ".join(_tools(shown)) or "-"),
            (tr("Tools chosen by"), shown.spec.route),
            (
                tr("Limits"),
                tr(
                    "{steps} steps, {tokens} tokens, {timeout} s",
                    steps=limits.steps,
                    tokens=limits.tokens,
                    timeout=f"{limits.timeout:g}",
                ),
            ),
            (tr("Deployed"), tr("{time} by {who}", time=ago(shown.updated), who=shown.updated_by)),
            (tr("Versions kept"), ", ".join(str(each.version) for each in versions)),
        ]
    )
    if shown.spec.instructions:
        emit(f"\n{shown.spec.instructions}")


async def _versions(name: str) -> tuple[list[AgentInfo], list[ToolInfo]]:
    async with connected() as client:
        return list(await api.versions(client, name)), await api.tools(client, name)


def _tools(shown: AgentInfo) -> list[str]:
    ground = [shown.spec.ground] if shown.spec.ground else []
    return list(dict.fromkeys([*ground, *(tool.source for tool in shown.spec.tools), *shown.functions]))
