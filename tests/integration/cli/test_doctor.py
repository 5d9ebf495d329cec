"""`llmctl doctor` looks at the files, the processes, and at what the running server says of models and nodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.server import ServerProcess, StartServer, free_port

AWAY = """
models:
  hosted: {engine: openai, url: "http://127.0.0.1:9/v1"}
"""


def test_a_model_that_is_away_and_a_file_open_to_others_are_found(start_server: StartServer) -> None:
    server = start_server(AWAY)
    (server.state / "credentials.json").chmod(0o644)
    # A server alone has no supervisor: what `llmctl up` would hold is checked as not running.
    done = server.llmctl("doctor", "--json")
    found = json.loads(done.stdout)
    by_check = {finding["check"]: finding for finding in found}
    assert by_check["processes"]["verdict"] == "warn"
    assert "llmctl up" in by_check["processes"]["hint"]
    opened = [f for f in found if "open to others" in f["message"]]
    assert [f["verdict"] for f in opened] == ["warn"]
    assert opened[0]["hint"].startswith("chmod 600")
    assert by_check["address"]["verdict"] == "fail"  # our own server holds it


def test_a_database_server_that_is_away_is_found(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, database=f"postgresql://somebody@127.0.0.1:{(port := free_port())}/x")
    (found,) = [f for f in json.loads(server.llmctl("doctor", "--json").stdout) if f["check"] == "database"]
    assert (found["verdict"], found["message"]) == ("fail", f"127.0.0.1:{port} does not answer: Connection refused")
    with pytest.raises(AssertionError, match="ended with"):
        server.start()
    assert "error: the database does not answer" in server.log()
    assert "Traceback" not in server.log()


def test_faults_of_the_configuration_come_first_with_their_line(start_server: StartServer) -> None:
    server = start_server()
    server.file.write_text("node:\n  enabld: true\n")
    done = server.llmctl("doctor")
    assert done.returncode == 1
    assert "llmagentos.yaml:2" in done.stdout
    assert "enabled" in done.stdout
