"""The documentation is true: links lead somewhere, tables and reference pages are those of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from llmagentos.cli import programs
from llmagentos.cli.main import COMMANDS, cli
from llmagentos.security.identity import GRANTS, Kind, Permission

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def dead_links(page: Path, text: str) -> list[str]:
    return [target for target, _ in LINK.findall(text) if not (page.parent / target).exists()]


def unknown_commands(text: str) -> list[str]:
    """Words after `llmctl` in code that are no command."""
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, flags=re.S))
    named = re.findall(r"\bllmctl ([a-z][a-z-]*)", code)
    return sorted({name for name in named if name not in COMMANDS})


def unknown_options(text: str) -> list[str]:
    """Options of commands in code that these commands (or those below them) do not take."""
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, flags=re.S))
    used = re.findall(r"\bllmctl ([a-z][a-z-]*)([^`\n|#]*)", code)
    return sorted(
        f"{name} {option}"
        for name, rest in used
        if name in COMMANDS
        for option in re.findall(r"(?<=\s)--[a-z][a-z-]*", rest.partition(" -- ")[0])
        if option not in _options(name)
    )


@cache
def _options(name: str) -> frozenset[str]:
    commands = [cli.get_command(click.Context(cli), name), *([programs.exec_] if name == "exec" else [])]
    found = {"--help"}
    while commands:
        command = commands.pop()
        assert command is not None
        commands += getattr(command, "commands", {}).values()
        found |= {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return frozenset(found)


def granted(text: str) -> Iterator[tuple[str, frozenset[Permission]]]:
    """The rows of SECURITY.md's table of identities."""
    for kind, may in re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", text, flags=re.M):
        names = re.findall(r"`([\w.]+)`", may)
        yield kind, frozenset(Permission) if may.strip() == "everything" else frozenset(map(Permission, names))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_commands_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    assert dead_links(page, text) == []
    assert unknown_commands(text) == []
    assert unknown_options(text) == []


def test_the_table_of_identities_is_the_policy() -> None:
    assert dict(granted((ROOT / "SECURITY.md").read_text())) == {kind.value: GRANTS[kind] for kind in Kind}


def test_the_reference_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "make_reference.py", "--check"], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, f"{done.stderr}run `make docs`"


def test_decisions_are_numbered_once() -> None:
    numbers = [path.name[:4] for path in (ROOT / "docs" / "decisions").glob("*.md")]
    assert sorted(numbers) == sorted(set(numbers))


def test_both_readmes_link_to_each_other_and_say_the_same_commands() -> None:
    english, chinese = ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh-CN.md"))
    assert "(README.zh-CN.md)" in english
    assert "(README.md)" in chinese
    commands = re.compile(r"^\$ (.*?)(?:\s+#.*)?$", re.M)
    assert commands.findall(english) == commands.findall(chinese)


def test_the_guards_can_fail() -> None:
    assert dead_links(ROOT / "README.md", "[a](no/such.md) [b](README.md) [c](https://x.example)") == ["no/such.md"]
    assert unknown_commands("`llmctl frobnicate` llmctl prose, `llmctl up`") == ["frobnicate"]
    assert unknown_options("`llmctl up --detach --frob` and `llmctl exec web -- x --any`") == ["up --frob"]
    assert dict(granted("| `viewer` | x | `jobs.read` |\n")) == {"viewer": frozenset({Permission.JOBS_READ})}
