"""`puppet apply`: called with directories of the job's own, its report read.

https://www.puppet.com/docs/puppet/7/format_report.html
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from llmagentos.fleet.node.foreign.results import Outcome, Result
from llmagentos.fleet.node.foreign.spec import Call, Spec, inside, tool

# What Puppet itself adds to every catalog.
_OWN = frozenset({"Class", "Filebucket", "Schedule", "Stage", "Whit"})
_DIFF = re.compile(r"/(?P<resource>[A-Z][\w:]*\[.*\])/content\Z", re.S)
_CODES = {0: "no changes", 2: "changes", 4: "failures", 6: "changes and failures"}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Takes Ruby's objects for the mappings, lists and texts that they are."""


def _plain(loader: Any, _: str, node: Any) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node)


_Loader.add_multi_constructor("!ruby/", _plain)


def call(spec: Spec, directory: Path) -> Call:
    """How it is run. Raises `NoTool`."""
    bundle = directory / "bundle"
    manifest = inside(bundle, spec.path)
    modules = [str(path) for name in ("modules", "site-modules", "site") if (path := bundle / name).is_dir()]
    argv = [tool("puppet", "/opt/puppetlabs/bin/puppet"), "apply", "--detailed-exitcodes", "--color=false"]
    for name in ("vardir", "confdir", "rundir", "logdir"):
        argv += [f"--{name}", str(directory / "puppet" / name)]
    argv += ["--lastrunreport", str(directory / "report.yaml"), "--show_diff" if spec.diff else "--no-show_diff"]
    argv += ["--modulepath", os.pathsep.join([*modules, "/etc/puppetlabs/code/modules", "/etc/puppet/code/modules"])]
    argv += ["--hiera_config", str(bundle / "hiera.yaml")] if (bundle / "hiera.yaml").is_file() else []
    argv += ["--noop"] * spec.check + ["--verbose"] * (spec.verbosity > 0) + ["--debug"] * (spec.verbosity > 2)
    argv += ["--tags", ",".join(spec.tags)] if spec.tags else []
    argv += ["--skip_tags", ",".join(spec.skip_tags)] if spec.skip_tags else []
    facts = {f"FACTER_{name.lower()}": _fact(value) for name, value in spec.variables.items()}
    return Call([*argv, "--", str(manifest)], facts)


def _fact(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def outcome(spec: Spec, directory: Path, code: int, output: str) -> Outcome:
    """What it did, from its report; from what it printed when it wrote none."""
    path = directory / "report.yaml"
    if code not in _CODES or not path.is_file():
        return Outcome(error=_last_error(output) or f"puppet ended with code {code} and without a report")
    return read(path.read_text("utf-8", "replace"))


def _last_error(output: str) -> str | None:
    lines = [line for line in output.splitlines() if line.startswith("Error:") and "Facter" not in line]
    return "\n".join(lines[-5:]) or None


def read(report: str) -> Outcome:
    """The results in the text of a report."""
    try:
        found = yaml.load(report, Loader=_Loader)  # noqa: S506 - a safe loader, see above
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return Outcome(error=f"puppet's report cannot be read: {error}")
    if not isinstance(found, dict) or not isinstance(found.get("resource_statuses"), dict):
        return Outcome(error="puppet's report is none: it has no resource_statuses")
    diffs = _diffs(found.get("logs"))
    results = [
        _result(str(name), status, diffs.get(str(name), []))
        for name, status in found["resource_statuses"].items()
        if isinstance(status, dict) and str(status.get("resource_type")) not in _OWN
    ]
    if not results and found.get("status") == "failed":
        errors = [str(each.get("message")) for each in found.get("logs") or () if each.get("level") == "err"]
        return Outcome(error="\n".join(errors) or "puppet failed")
    return Outcome(results)


def _diffs(logs: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in logs if isinstance(logs, list) else ():
        message = str(entry.get("message") or "") if isinstance(entry, dict) else ""
        match = _DIFF.search(str(entry.get("source") or "")) if message.lstrip().startswith("--- ") else None
        if match is not None:
            name = match["resource"].rpartition("/Main/")[2] or match["resource"]
            found.setdefault(name, []).append(message.lstrip("\n"))
    return found


def _result(name: str, status: Mapping[str, Any], diffs: list[str]) -> Result:
    events = [each for each in status.get("events") or () if isinstance(each, dict)]
    messages = [str(each.get("message")) for each in events if each.get("message")]
    shown: dict[str, Any] = {"changed": bool(status.get("changed"))}
    if messages:
        shown["msg"] = "\n".join(messages)
    if changes := [_change(each) for each in events if each.get("status") in ("success", "noop")]:
        shown["changes"] = changes
    if status.get("file"):
        shown["at"] = f"{Path(str(status['file'])).name}:{status.get('line')}"
    duration = status.get("evaluation_time")
    return Result(
        name,
        str(status.get("resource_type", "resource")).lower(),
        _status(status),
        shown,
        diffs,
        float(duration) if isinstance(duration, int | float) else None,
    )


def _change(event: Mapping[str, Any]) -> dict[str, Any]:
    names = {"property": "property", "previous_value": "from", "desired_value": "to"}
    return {to: event.get(name) for name, to in names.items()}


def _status(status: Mapping[str, Any]) -> Literal["ok", "changed", "failed", "skipped"]:
    if status.get("failed") or status.get("failed_to_restart"):
        return "failed"
    if status.get("skipped"):
        return "skipped"
    return "changed" if status.get("changed") or status.get("out_of_sync") else "ok"
