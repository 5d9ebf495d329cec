"""The options of a task against those that its module takes, for ansible-core's own modules.

The lists (`options.json`, see scripts/) are those of all releases of ansible-core that are supported together.
What only the node can know, templates in place of options, defaults of modules, is left to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources

import msgspec
from yaml.nodes import MappingNode, Node

from llmagentos.core.errors import nearest
from llmagentos.fleet.playbooks.document import get, is_null, items, line_of, scalar

MAX_SHOWN = 80
MAX_TEXT = 10_000
# They take text that is no options.
_FREE_FORM = frozenset({"command", "shell", "raw", "script", "expect", "include_vars"})
OPTION = re.compile(
    r"\s*(?:(?P<name>[A-Za-z_]\w*)=)?"
    r"(?P<value>(?:\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|\{\{[^{}]{0,500}\}\}|\S)+)"
)
"""One of the words of a task's text: `name=value`, or a value alone; with the quotes that it has."""
_MERGE = "<<"  # YAML 1.1: more options come from elsewhere
_SWITCHES = frozenset({"yes", "no", "true", "false", "on", "off"})


class Takes(msgspec.Struct, frozen=True):
    """What one module takes: all names, of each required one all its names, the choices of some."""

    names: frozenset[str]
    required: list[list[str]] = []
    choices: dict[str, list[str]] = {}


class Problem(msgspec.Struct, frozen=True):
    """Something wrong with the options at `line`."""

    line: int
    code: str
    message: str


@cache
def _known() -> Mapping[str, Takes]:
    text = resources.files(__package__).joinpath("options.json").read_bytes()
    return msgspec.json.decode(text, type=dict[str, Takes])


def short_name(module: str) -> str:
    """The module's name without the namespaces of ansible-core's own."""
    return module.removeprefix("ansible.builtin.").removeprefix("ansible.legacy.")


def problems(name: str, content: Node, task: MappingNode, *, defaults: bool) -> Iterator[Problem]:
    """What is wrong with the options of the module `name`; `defaults`: some may be given by `module_defaults`."""
    short = short_name(name)
    takes = _known().get(short)
    if takes is None or "." in short:
        return
    given, whole = _given(short, content, task)
    for option, (line, value) in given.items():
        if option is None:
            shown = repr((value or "")[:MAX_SHOWN])
            yield Problem(line, "options", f"{short} takes options like name=value, and {shown} is none")
        elif option not in takes.names:
            yield Problem(line, "option", _unknown(short, option, takes.names))
        elif value is not None and "{{" not in value and "{%" not in value:
            choices = takes.choices.get(option)
            if choices and value not in choices and value.lower() not in _SWITCHES:
                yield Problem(line, "choice", _no_choice(short, option, value, choices))
    if whole and not defaults:
        for names in takes.required:
            if not given.keys() & set(names):
                yield Problem(line_of(content), "required", f"{short} needs the option {names[0]!r}")


def _given(short: str, content: Node, task: MappingNode) -> tuple[dict[str | None, tuple[int, str | None]], bool]:
    """Line and text of each option; whether these are certainly all. None as an option is text that is none."""
    found: dict[str | None, tuple[int, str | None]] = {}
    more = get(task, "args")
    whole = isinstance(more, MappingNode) or is_null(more)
    if isinstance(more, MappingNode):
        found |= {key: (line_of(key_node), scalar(value)) for key, key_node, value in items(more)}
    if isinstance(content, MappingNode):
        found |= {key: (line_of(key_node), scalar(value)) for key, key_node, value in items(content)}
        whole = whole and len(content.value) == len(list(items(content))) and _MERGE not in found
        return {key: each for key, each in found.items() if key != _MERGE and "{{" not in str(key)}, whole
    text = scalar(content)
    if short in _FREE_FORM or text is None:
        return found, whole and short not in _FREE_FORM
    if text.strip().startswith("{{") or len(text) > MAX_TEXT:
        return found, False
    line = line_of(content)
    for match in OPTION.finditer(text):
        found[match["name"]] = (line, match["value"].strip("'\""))
    return found, whole


def _unknown(module: str, option: str, names: frozenset[str]) -> str:
    close = nearest(option, names)
    told = f"{module} has no option {option[:MAX_SHOWN]!r}"
    return told + (f": the nearest is {close!r}" if close else "")


def _no_choice(module: str, option: str, value: str, choices: list[str]) -> str:
    close = nearest(value, choices)
    told = f"{module}: {option} cannot be {value[:MAX_SHOWN]!r}"
    return told + (f": the nearest is {close!r}" if close else f", but {', '.join(choices[:12])}")
