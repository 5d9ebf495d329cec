"""`llmctl login`: a server is remembered once it takes the token, and used from anywhere then."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.server import ServerProcess


@pytest.fixture
def elsewhere(server: ServerProcess, tmp_path: Path) -> ServerProcess:
    """The server as somebody sees it who has neither its state directory nor a variable of it."""
    for name in ("LLMAGENTOS_STATE", "LLMAGENTOS_CONFIG", "LLMAGENTOS_SERVER_ADDRESS", "LLMAGENTOS_DATABASE"):
        server.env.pop(name, None)
    server.env["XDG_CONFIG_HOME"] = str(tmp_path / "mine")
    server.directory = tmp_path / "elsewhere"
    server.directory.mkdir()
    return server


def test_a_server_is_remembered_once_it_takes_the_token(elsewhere: ServerProcess, tmp_path: Path) -> None:
    wrong = elsewhere.llmctl("login", elsewhere.url, "--token-file", "-", stdin="lao_admin_wrong\n")
    assert wrong.returncode == 2
    assert "does not accept this token" in wrong.stderr
    assert elsewhere.llmctl("services").returncode == 1
    done = elsewhere.llmctl("login", elsewhere.url + "/", "--token-file", "-", stdin=f" {elsewhere.token}\n")
    assert done.returncode == 0, done.stderr
    kept = tmp_path / "mine" / "llmagentos" / "credentials.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert elsewhere.llmctl("services").returncode == 0


@pytest.mark.parametrize("url", ["ftp://x", "https://x:99999", "https://[::1", "https://", "http://example.com"])
def test_what_is_no_address_or_would_send_the_token_in_clear_is_refused(tmp_path: Path, url: str) -> None:
    done = ServerProcess(tmp_path).llmctl("login", url, "--token-file", "-", stdin="lao_admin_x\n")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: '{url}' ")
    assert "Traceback" not in done.stderr
