"""`llmctl`: the table of commands. Only the command that is called is imported.

`--help` and completion need nothing but click, so they answer at once.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from llmagentos.core.i18n import tr

# command -> ("module:attribute", help). Grouped as `llmctl --help` shows them.
_SYSTEM = {
    "up": ("up:up", tr("Start the system on this machine")),
    "down": ("up:down", tr("Stop it")),
    "status": ("status:status", tr("What runs here")),
    "doctor": ("doctor:doctor", tr("Check this machine and the system, and say what to do")),
    "config": ("config:config", tr("Check and show the configuration")),
    "server": ("up:server", tr("Run the server alone, without engines and node")),
}
_ACCESS = {
    "login": ("login:login", tr("Use a server that runs elsewhere")),
    "token": ("token:token", tr("Make, list and revoke tokens")),
    "console": ("console:console", tr("The console's address and a one-time login link")),
}
_AGENTS = {
    "ask": ("runs:ask", tr("Ask an agent")),
    "chat": ("runs:chat", tr("Talk with an agent")),
    "ps": ("ps:ps", tr("List runs")),
    "top": ("top:top", tr("Watch runs, models and nodes live")),
    "logs": ("runs:logs", tr("Show a run's events")),
    "trace": ("runs:trace", tr("Show a run's steps with times and tokens")),
    "wait": ("runs:wait", tr("Wait for a run to end")),
    "nice": ("control:nice", tr("Change a run's priority")),
    "pause": ("control:pause", tr("Pause a run")),
    "resume": ("control:resume", tr("Let a paused run go on")),
    "kill": ("control:kill", tr("Stop a run")),
    "approvals": ("approvals:approvals", tr("List what waits for a person: tool calls, jobs")),
    "approve": ("approvals:approve", tr("Agree to a tool call or a job")),
    "deny": ("approvals:deny", tr("Refuse a tool call or a job")),
    "apply": ("agents:apply", tr("Create or change what a file describes")),
    "delete": ("agents:delete", tr("Delete an agent")),
    "agents": ("agents:agents", tr("List agents")),
    "agent": ("agents:agent", tr("Show one agent")),
    "mcp": ("mcp:mcp", tr("List MCP servers and their tools")),
    "sessions": ("sessions:sessions", tr("Conversations with agents")),
    "memory": ("memory:memory", tr("What agents remember of you")),
    "models": ("models:models", tr("List models")),
    "budget": ("budget:budget", tr("Limits on what may be spent, and how far they are used")),
    "simulate": ("simulate:simulate", tr("Compare scheduling policies on a trace")),
}
_SERVICES = {
    "services": ("services:services", tr("List services and their instances")),
    "call": ("services:call", tr("Call a service's method")),
}
_FLEET = {
    "exec": ("adhoc:exec_", tr("Run a command on nodes; with --agent: a program as an agent's run")),
    "lint": ("lint:lint", tr("Check playbooks before they run")),
    "run": ("run:run", tr("Run a playbook on nodes")),
    "nodes": ("nodes:nodes", tr("List nodes")),
    "node": ("node:node", tr("Join this machine, show or remove a node")),
    "jobs": ("jobs:jobs", tr("List jobs")),
    "job": ("jobs:job", tr("Show one job")),
    "schedules": ("schedules:schedules", tr("Run playbooks by the clock")),
    "templates": ("templates:templates", tr("Job templates: list, show and launch them")),
}
_SHELL = {"completion": ("completion:completion", tr("Completion for bash, zsh and fish"))}

SECTIONS = {
    tr("System"): _SYSTEM,
    tr("Access"): _ACCESS,
    tr("Agents and models"): _AGENTS,
    tr("Services"): _SERVICES,
    tr("Nodes and playbooks"): _FLEET,
    tr("Shell"): _SHELL,
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class LazyGroup(click.Group):
    """A group that knows its commands from `COMMANDS` and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f"llmagentos.cli.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise _unknown(args[0])
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]
        return found or click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in commands.items()], col_max=12)


def _unknown(name: str) -> click.UsageError:
    from llmagentos.core.errors import nearest

    close = nearest(name, COMMANDS)
    hint = tr("Did you mean {name}?", name=f"`llmctl {close}`") if close else tr("See `llmctl --help`.")
    return click.UsageError(f"{tr('no command {name}', name=repr(name))}\n{hint}")


def _version(ctx: click.Context, _option: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"llmctl {version('llmagentos')}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=tr("LLMAgentOS: agents, services, models and machines as one system."),
    epilog=tr("`llmctl COMMAND --help` says more about one command."),
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help=tr("The version."))
def cli() -> None:
    """All commands hang below this group, which itself does nothing."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `llmctl`; exits with 0, 1 (it failed), 2 (bad input) or 130 (interrupted)."""
    gc.set_threshold(50_000, 20, 100)  # imports make many objects and no cycles: looking for these takes a tenth of it
    try:
        code = cli.main(args=arguments, prog_name="llmctl", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except Exception as error:  # the outermost edge: every error becomes one line, a hint and an exit code
        from llmagentos.cli.output import fail

        sys.exit(fail(error))
    except KeyboardInterrupt:
        sys.exit(130)


def program() -> NoReturn:
    """`main` as a program of its own, which ends at once: taking modules apart takes as long as a small command."""
    code: object = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError as error:  # nobody reads it any more, or there is no room for it
        from llmagentos.cli.output import fail

        code = fail(error) or code
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    program()
