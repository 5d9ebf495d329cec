"""`llmctl lint`: what it is not for."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from llmagentos.cli.lint import lint
from llmagentos.core.errors import InvalidInput


@pytest.mark.parametrize(("name", "tool"), [("site.pp", "puppet"), ("top.sls", "salt-call")])
def test_what_other_tools_check_is_left_to_them(tmp_path: Path, name: str, tool: str) -> None:
    path = tmp_path / name
    path.write_text("file { '/tmp/x': }\n")
    with pytest.raises(InvalidInput, match="no Ansible playbook") as told:
        CliRunner().invoke(lint, ["--offline", str(path)], catch_exceptions=False)
    assert tool in (told.value.hint or "")
