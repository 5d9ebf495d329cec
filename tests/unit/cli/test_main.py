"""The table of commands: each exists, says what it does, and `--help` imports none of them."""

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from llmagentos.cli.main import COMMANDS, cli


def every_command() -> list[list[str]]:
    """The words of each command, groups opened."""
    found: list[list[str]] = []

    def walk(group: click.Group, words: list[str]) -> None:
        for name in group.list_commands(click.Context(group)):
            command = group.get_command(click.Context(group), name)
            assert command is not None
            found.append([*words, name])
            if isinstance(command, click.Group):
                walk(command, [*words, name])

    walk(cli, [])
    return found


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_command_has_help(words: list[str]) -> None:
    done = CliRunner().invoke(cli, [*words, "--help"])
    assert done.exit_code == 0, done.output
    lines = [line.strip() for line in done.output.splitlines() if line.strip()]
    assert lines[0].startswith("Usage: ")
    assert len(lines[1]) > 10  # what it does


def test_help_lists_every_command_without_importing_one() -> None:
    code = (
        "import sys\n"
        "from llmagentos.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'asyncio', 'msgspec', 'httptools', 'starlette', 'sqlalchemy', 'rich', 'yaml'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert [name for name in COMMANDS if f"  {name} " not in done.stdout] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["staus"], "Did you mean `llmctl status`?"),
        (["xyzzy"], "See `llmctl --help`."),
        (["status", "--jsn"], "--json"),
    ],
)
def test_a_mistyped_word_gets_its_nearest(arguments: list[str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llmagentos.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        env={"LLMAGENTOS_LANG": "en", "PATH": "/usr/bin"},
    )
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stdout == ""


def test_help_is_chinese_where_the_terminal_is() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llmagentos.cli.main", "--help"],
        capture_output=True,
        text=True,
        timeout=100,
        env={"LC_ALL": "zh_CN.UTF-8", "PATH": "/usr/bin", "PYTHONUTF8": "1"},
    )
    assert "启动" in done.stdout


def test_what_cannot_be_written_is_said_at_the_end() -> None:
    """Output is written when the program ends: nobody may take a full disk for success."""
    command = [sys.executable, "-m", "llmagentos.cli.main", "config", "schema"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=100)
    assert (done.returncode, done.stderr.count("error: ")) == (1, 1)
    assert "No space left" in done.stderr
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=100)
    finally:
        os.close(writer)
    assert done.stderr == "", "whoever closed the pipe has seen enough"
