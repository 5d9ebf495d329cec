"""Options of `llmctl schedules add` and `change`, and what they make of a schedule."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from llmagentos.api.jobs import JobSpec
from llmagentos.api.schedules import ScheduleSpec, TemplateUse
from llmagentos.cli.inventories import OUTSIDE, read_inventories
from llmagentos.cli.job_options import as_typed, changed, was_typed
from llmagentos.cli.output import short
from llmagentos.cli.pack import pack
from llmagentos.cli.playbook_options import extra_vars, inventory_options, listed, variable_option
from llmagentos.cli.span import Span
from llmagentos.core import timespan
from llmagentos.core.errors import InvalidInput
from llmagentos.core.i18n import tr

F = TypeVar("F", bound=Callable[..., Any])


def schedule_options(*, new: bool) -> Callable[[F], F]:
    """When, and what: the options of `add` (`new`) with their defaults, or those of `change`, which have none."""
    options = (
        click.argument("playbook", type=click.Path(path_type=Path), required=False),
        click.option("--cron", help=tr("Minute hour day-of-month month day-of-week, e.g. '30 2 * * MON-FRI'.")),
        click.option("--every", type=Span(), help=tr("Interval, e.g. 15m or 6h.")),
        click.option(
            "--zone",
            default="UTC" if new else None,
            show_default=new,
            help=tr("Time zone of --cron, e.g. Europe/Berlin."),
        ),
        click.option("--jitter", type=Span(), help=tr("Each time is late by up to so much, e.g. 5m.")),
        click.option(
            "--catch-up",
            type=click.Choice(["none", "last"]),
            default="none" if new else None,
            show_default=new,
            help=tr("What becomes of times at which no server ran: nothing, or the last one is made up for."),
        ),
        click.option("--template", metavar="NAME", help=tr("Launch this job template instead of a playbook.")),
        click.option(
            "-p", "--parameter", "parameters", multiple=True, help=tr("An answer of the template's survey: k=v.")
        ),
        inventory_options,
        click.option("-C", "--check", is_flag=True, help=tr("Change nothing; say what would change.")),
        click.option("-D", "--diff", is_flag=True, help=tr("Show differences of changed files.")),
        variable_option,
        click.option("-t", "--tags", multiple=True, help=tr("Only tasks with these tags (commas or repeated).")),
    )

    def added(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return added


_UNSET = {
    "jitter": "jitter",
    "parameter": "parameters",
    "inventory": "inventories",
    "limit": "limit",
    "check": "check",
    "diff": "diff",
    "extra-vars": "extra",
    "tags": "tags",
    "priority": "priority",
    "lock": "lock",
    "window": "window",
    "window-stop": "window_stop",
    "approval": "approval",
    "approver": "approvers",
    "total-timeout": "total_timeout",
    "retries": "retries",
    "retry-on": "retry_on",
    "backoff": "backoff",
    "batch": "batches",
    "max-failures": "max_failures",
    "gate": "gate",
    "gate-playbook": "gate_playbook",
    "gate-timeout": "gate_timeout",
    "pause": "pause",
    "rollback": "rollback",
}
"""Options that a schedule may do without again, and their names among the command's arguments."""


class Unset(click.ParamType[str]):
    """The name of an option, with or without its dashes."""

    name = "option"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The option's name among the command's arguments."""
        found = _UNSET.get(str(value).removeprefix("--"))
        if found is None:
            known = ", ".join(_UNSET)
            self.fail(tr("{value} is none of: {known}", value=repr(value), known=known), param, ctx)
        return found


unset_option = click.option(
    "--unset",
    multiple=True,
    type=Unset(),
    metavar="OPTION",
    help=tr("Do without this option again, e.g. --unset window; with -e or -p: only what is given now."),
)


def require_one_kind(
    *, runs_template: bool, parameters: tuple[str, ...], job: Mapping[str, Any], unset: Collection[str] = ()
) -> None:
    """Answers are for templates, the options of a job for playbooks. Raises `InvalidInput`."""
    if not runs_template and (parameters or "parameters" in unset):
        raise InvalidInput(tr("-p answers a template's survey, and this schedule is of a playbook"))
    if runs_template and (any(map(was_typed, job.values())) or not {"jitter", "parameters"}.issuperset(unset)):
        raise InvalidInput(
            tr("a schedule of a template has no options of a job"),
            hint=tr("the template has its own: `llmctl templates show NAME`"),
        )


def times(
    before: ScheduleSpec,
    *,
    cron: str | None,
    every: float | None,
    zone: str | None,
    jitter: float | None,
    catch_up: Any,
    unset: Collection[str] = (),
) -> ScheduleSpec:
    """`before` with the times that were given; an interval takes the place of a cron expression and the other way."""
    if cron is not None and every is not None:
        raise InvalidInput(tr("either --cron or --every"))
    if every is not None and not 10 <= every <= 366 * 86_400:
        raise InvalidInput(tr("an interval is between 10s and 366d"))
    if jitter is not None and jitter > 86_400:
        raise InvalidInput(tr("times are late by at most 24h"))
    found = before
    if "jitter" in unset:
        found = msgspec.structs.replace(found, jitter_s=0.0)
    if cron is not None or every is not None:
        found = msgspec.structs.replace(found, cron=cron, every_s=every)
    given = {"zone": zone, "jitter_s": jitter, "catch_up": catch_up}
    return msgspec.structs.replace(found, **{name: value for name, value in given.items() if value is not None})


def new_job(
    playbook: Path,
    *,
    inventories: tuple[str, ...],
    limit: str | None,
    extra: tuple[str, ...],
    tags: tuple[str, ...],
    **more: Any,
) -> tuple[JobSpec, bytes]:
    """What a new schedule runs, and its bundle. Raises `InvalidInput`."""
    directory = _directory(playbook)
    sources, outside = read_inventories(inventories, directory)
    digest, content = pack(directory, more=outside)
    spec = JobSpec(
        digest,
        playbook.name,
        inventory=sources,
        limit=limit,
        extra_vars=extra_vars(extra),
        tags=listed(tags),
        **more,
    )
    return spec, content


def changed_use(before: TemplateUse | None, template: str | None, unset: Collection[str]) -> TemplateUse:
    """The template that is launched from now on, with the answers that stay: those to another one do not."""
    if before is None or template not in (None, before.name):
        return TemplateUse(template or "")
    return TemplateUse(before.name) if "parameters" in unset else before


_NONE = JobSpec("", "")
"""What a schedule of a template has for a job, before it gets a playbook."""


def changed_job(
    before: JobSpec | None,
    playbook: Path | None,
    *,
    inventories: tuple[str, ...],
    limit: str | None,
    extra: tuple[str, ...],
    tags: tuple[str, ...],
    check: bool,
    diff: bool,
    unset: Collection[str],
    **typed: Any,
) -> tuple[JobSpec, bytes | None]:
    """`before`, or a plain job, with what was given; the bundle when there is a playbook. Raises `InvalidInput`."""
    spec, content = before or _NONE, None
    if "inventories" in unset:
        spec = msgspec.structs.replace(spec, inventory=[])
    if playbook is not None or inventories:
        spec, content = _packed(spec, playbook, inventories)
    variables = ({} if "extra" in unset else spec.extra_vars) | extra_vars(extra)
    plain = msgspec.structs.replace(
        spec,
        limit=limit if limit is not None else None if "limit" in unset else spec.limit,
        extra_vars=variables,
        tags=listed(tags) if tags else [] if "tags" in unset else spec.tags,
        check=check or (spec.check and "check" not in unset),
        diff=diff or (spec.diff and "diff" not in unset),
    )
    return msgspec.structs.replace(plain, **changed(spec, typed, unset)), content


def _packed(spec: JobSpec, playbook: Path | None, inventories: tuple[str, ...]) -> tuple[JobSpec, bytes | None]:
    """`spec` with another playbook, another inventory or both."""
    directory = _directory(playbook) if playbook is not None else None
    # A directory that nothing is in: what an inventory brings along is then always outside, and told below.
    sources, outside = read_inventories(inventories, directory or Path("/dev/null/none"))
    if inventories:
        spec = msgspec.structs.replace(spec, inventory=sources)
    if playbook is None or directory is None:
        if outside:
            raise InvalidInput(
                tr("the inventory has variables beside it, which go along with the playbook's directory"),
                hint=tr("name the PLAYBOOK as well"),
            )
        return spec, None
    if not inventories and any(source.directory == OUTSIDE for source in spec.inventory):
        raise InvalidInput(
            tr("the schedule's inventory has variables that went along with the playbook's directory"),
            hint=tr("give the inventory again with -i, or --unset inventory"),
        )
    digest, content = pack(directory, more=outside)
    return msgspec.structs.replace(spec, bundle=digest, playbook=playbook.name, kind="playbook"), content


def _directory(playbook: Path) -> Path:
    if not playbook.is_file():
        raise InvalidInput(
            tr("there is no playbook {path}", path=repr(str(playbook))), hint=tr("the path of a YAML file")
        )
    return playbook.absolute().parent


def told(spec: ScheduleSpec) -> Iterator[tuple[str, str]]:
    """The options that a schedule has, by their names: what could be given again, or be `--unset`."""
    found: dict[str, Any] = {"jitter": timespan.written(spec.jitter_s) if spec.jitter_s else None}
    if spec.catch_up != "none":
        found["catch_up"] = spec.catch_up
    if spec.template is not None:
        found["parameters"] = " ".join(f"{name}={value}" for name, value in spec.template.parameters.items())
    if (job := spec.job) is not None:
        found |= {
            "inventories": ", ".join(source.name for source in job.inventory),
            "limit": job.limit,
            "check": job.check,
            "diff": job.diff,
            "extra": " ".join(f"{name}={value}" for name, value in job.extra_vars.items()),
            "tags": ",".join(job.tags),
            **as_typed(job),
        }
    names = {argument: option for option, argument in _UNSET.items()} | {"catch_up": "catch-up"}
    for name, value in found.items():
        if was_typed(value) and value not in ("", 0):
            yield names[name], _text(name, value)


def _text(name: str, value: Any) -> str:
    if value is True:
        return tr("yes")
    if name in _SPANS:
        return timespan.written(value)
    return short(", ".join(value) if isinstance(value, tuple) else str(value), _WIDTH)


_SPANS = frozenset({"total_timeout", "backoff", "gate_timeout", "pause"})
_WIDTH = 100
