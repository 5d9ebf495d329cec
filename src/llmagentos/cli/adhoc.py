"""`llmctl exec NODES -- COMMAND`: one task on nodes, told as `ansible` tells it.

It is a job like any other, of a playbook with one task. `llmctl exec --agent NAME -- PROGRAM` is the other command
of this name: it runs a program here, as an agent's run (`programs`).
"""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import yaml

from llmagentos.api.jobs import Job, JobRecord, LogLine, TaskResult
from llmagentos.cli.adhoc_files import taken_along
from llmagentos.cli.connect import execute
from llmagentos.cli.job_files import brought
from llmagentos.cli.job_following import Document, Lines, watch
from llmagentos.cli.job_output import diff_lines
from llmagentos.cli.output import emit, note, paint
from llmagentos.cli.playbook_options import inventory_options, variable_option, vault_options
from llmagentos.cli.run import asked, submit
from llmagentos.core.errors import InvalidInput
from llmagentos.core.i18n import tr
from llmagentos.fleet.playbooks import bundle

TASK = "ad hoc"
FILTER = "filter:"
_COMMANDS = frozenset({"command", "shell", "raw", "script"})
_COLOURS = {"SUCCESS": "green", "CHANGED": "yellow", "FAILED": "red", "UNREACHABLE!": "bright_red", "SKIPPED": "cyan"}
_WORDS = {"ok": "SUCCESS", "changed": "CHANGED", "skipped": "SKIPPED", "unreachable": "UNREACHABLE!"}
_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")


class Exec(click.Command):
    """Hands over to the other command when there is an `--agent`."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """click's own, of one command or the other."""
        own = args[: args.index("--")] if "--" in args else args
        if any(word == "--agent" or word.startswith("--agent=") for word in own):
            from llmagentos.cli.programs import exec_ as program

            return program.make_context(info_name, args, parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


class Unsafe(str):
    """Text that is no template."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(Unsafe, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text), style="'"))


@click.command(
    "exec",
    cls=Exec,
    help=tr(
        "Run one command or task module on NODES: `llmctl exec web -- uptime`, `llmctl exec web -m service -a"
        ' "name=nginx state=restarted"`. With --agent: run a program here, as an agent\'s run.'
    ),
)
@click.argument("nodes")
@click.argument("command", nargs=-1)
@click.option("-m", "--module", "module", help=tr("Task module (default: shell for COMMAND, command with -a alone)."))
@click.option("-a", "--args", "arguments", help=tr("Its options, as name=value or JSON; or its command."))
@inventory_options
@click.option("-b", "--become", is_flag=True, help=tr("As another user, root unless --become-user says so."))
@click.option("--become-user", help=tr("Which user."))
@click.option("-C", "--check", is_flag=True, help=tr("Change nothing; say what would change."))
@click.option("-D", "--diff", is_flag=True, help=tr("Show differences of changed files."))
@variable_option
@click.option("-f", "--forks", type=click.IntRange(min=1), help=tr("Nodes at a time (default: all)."))
@click.option("-o", "--one-line", is_flag=True, help=tr("One line for each node."))
@vault_options
@click.option("-v", "--verbose", "verbosity", count=True, help=tr("Show more."))
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=1), help=tr("Seconds after which a node stops it."))
@click.option("--json", "as_json", is_flag=True, help=tr("Print one JSON document: the job and its events."))
@click.option("--json-lines", "as_lines", is_flag=True, help=tr("Print each event as a line of JSON, the job at last."))
@click.option(
    "--agent", help=tr("Run COMMAND on this machine as a run of this agent; see `llmctl exec --agent X --help`.")
)
@click.pass_context
def exec_(
    ctx: click.Context,
    /,
    nodes: str,
    command: tuple[str, ...],
    module: str | None,
    arguments: str | None,
    become: bool,
    become_user: str | None,
    one_line: bool,
    as_json: bool,
    as_lines: bool,
    agent: None,
    **given: Any,
) -> None:
    """Exit code 0 when all nodes succeeded, 2 when one failed, 4 when one was unreachable, 1 when cancelled."""
    name, value = task(module, arguments, command)
    if nodes.startswith(FILTER):
        if given["limit"] is not None:
            raise InvalidInput(tr("nodes by a filter cannot be limited again"), hint=tr("put all into one filter"))
        given["limit"], nodes = nodes, "all"
    with tempfile.TemporaryDirectory(prefix="llmctl-exec-") as directory:
        playbook = Path(directory) / f"{_title(name, value)}.yml"
        value = taken_along(name, value, playbook.parent, here=Path.cwd())
        play: dict[str, Any] = {"hosts": nodes, "gather_facts": False, "tasks": [{"name": TASK, name: value}]}
        if become or become_user:
            play |= {"become": True} | ({"become_user": become_user} if become_user else {})
        playbook.write_text(yaml.dump([play], Dumper=_Dumper, allow_unicode=True, sort_keys=False), "utf-8")
        request, content = asked(playbook, tags=(), skip_tags=(), **given)
    job = execute(submit(request, content))
    answers = Answers(one_line=one_line, verbosity=given["verbosity"])
    telling = Lines() if as_lines else Document() if as_json else answers
    ctx.exit(brought(job, bundle.read(content), Path.cwd(), watch(job.summary.id, telling, offer_cancel=True)))


def task(module: str | None, arguments: str | None, command: Sequence[str]) -> tuple[str, Any]:
    """The module and its options. Raises `InvalidInput`.

    A command of one word is text for the shell; of several, these words as they are, and no templates in either.
    """
    if command:
        if module is not None or arguments is not None:
            raise InvalidInput(
                tr("either -m and -a, or a command after --"), hint="llmctl exec NODES -m shell -a 'uptime'"
            )
        text = command[0] if len(command) == 1 else shlex.join(command)
        return "shell", Unsafe(text) if any(mark in text for mark in ("{{", "{%", "{#")) else text
    if arguments is None:
        if module is None:
            raise InvalidInput(tr("there is nothing to run"), hint="llmctl exec NODES -- uptime")
        return module, {}
    if arguments.lstrip().startswith("{") and not arguments.lstrip().startswith("{{"):
        try:
            found = msgspec.json.decode(arguments)
        except msgspec.DecodeError as error:
            raise InvalidInput(tr("-a {given}: not JSON: {error}", given=repr(arguments[:80]), error=error)) from None
        return module or "command", found
    return module or "command", arguments


def _title(name: str, value: object) -> str:
    text = value if isinstance(value, str) else " ".join(map(str, value)) if isinstance(value, Mapping) else ""
    return f"exec-{_PLAIN.sub('-', f'{name} {text}').strip('-')[:60].rstrip('-.')}"


class Answers:
    """What each node answered, as `ansible` prints it."""

    def __init__(self, *, one_line: bool = False, verbosity: int = 0) -> None:
        self._one_line = one_line
        self._verbosity = verbosity
        self._answered: set[str] = set()

    def show(self, record: JobRecord) -> None:
        """One event: a node's answer, or something that it has to say."""
        event = record.event
        if isinstance(event, TaskResult):
            self._answered.add(record.node)
            for diff in () if self._one_line else event.diff:
                emit("\n".join(diff_lines(diff)))
            emit(answer(event, one_line=self._one_line))
        elif isinstance(event, LogLine) and (event.level == "error" or self._verbosity):
            note(f"{record.node} | {event.text}")

    def end(self, job: Job) -> None:
        """The nodes that have not answered."""
        for host in job.hosts:
            if host.node not in self._answered and host.state != "succeeded":
                emit(paint(f"{host.node} | {host.state.upper()}: {host.message or ''}".rstrip(": "), "red"))


def answer(event: TaskResult, *, one_line: bool = False) -> str:
    """`web1 | CHANGED | rc=0 >>` and the output of a command; `web1 | SUCCESS => {...}` for others."""
    word = _WORDS.get(event.status, "FAILED")
    result = dict(event.result)
    if event.action.rpartition(".")[2] in _COMMANDS and "rc" in result and event.status != "skipped":
        outputs = [str(result.get("stdout") or ""), str(result.get("stderr") or "")]
        said = [text for text in outputs if text.strip()]
        failed = event.status == "failed" and not said
        text = "\n".join(said) or (str(result.get("msg") or "") if failed else "")
        head = f"{event.host} | {word} | rc={result['rc']} >>"
        shown = head + (" " + text.replace("\n", "\\n") if one_line else f"\n{text}")
        return paint(shown, _COLOURS[word])
    text = msgspec.json.encode(result).decode()
    if not one_line:
        text = msgspec.json.format(text, indent=4)
    return paint(f"{event.host} | {word} => {text}", _COLOURS[word])
