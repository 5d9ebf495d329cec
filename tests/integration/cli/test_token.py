"""`llmctl token`: the secret alone on stdout, spans of time, and tokens that end when they are revoked."""

from __future__ import annotations

import json

import pytest

from support.server import ServerProcess


def test_a_token_is_made_listed_and_revoked(server: ServerProcess) -> None:
    made = server.llmctl("token", "create", "grafana", "--kind", "metrics", "--ttl", "12h")
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    assert secret.startswith("lao_metrics_")
    assert "\n" not in secret
    listed = json.loads(server.llmctl("token", "list", "--json").stdout)
    (token,) = [token for token in listed if token["name"] == "grafana"]
    assert round(token["expires"] - token["created"]) == 12 * 3600
    assert secret not in json.dumps(listed)
    assert "grafana" in server.llmctl("token", "list").stdout
    assert server.llmctl("token", "revoke", token["id"]).returncode == 0
    again = server.llmctl("token", "revoke", token["id"])
    assert again.returncode == 2
    assert token["id"] in again.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--kind", "wizard"], "'admin', 'operator'"),
        (["--ttl", "soon"], "90s, 30m, 12h or 7d"),
        (["--ttl", "0s"], "90s, 30m, 12h or 7d"),
        (["--ttl", "9999999999w"], "90s, 30m, 12h or 7d"),
    ],
)
def test_nonsense_is_named(server: ServerProcess, arguments: list[str], says: str) -> None:
    done = server.llmctl("token", "create", "x", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stdout == ""


def test_a_viewer_may_make_no_tokens(server: ServerProcess) -> None:
    viewer = server.llmctl("token", "create", "eve").stdout.strip()
    server.env |= {"LLMAGENTOS_SERVER": server.url, "LLMAGENTOS_TOKEN": viewer}
    done = server.llmctl("token", "create", "root", "--kind", "admin")
    assert done.returncode == 2
    assert "tokens.write" in done.stderr


def test_a_wrong_token_says_what_to_do(server: ServerProcess) -> None:
    server.env |= {"LLMAGENTOS_SERVER": server.url, "LLMAGENTOS_TOKEN": "lao_admin_wrong"}
    done = server.llmctl("token", "list")
    assert done.returncode == 2
    assert "hint: " in done.stderr


def test_a_server_that_is_away_says_what_to_do(server: ServerProcess) -> None:
    server.stop()
    done = server.llmctl("token", "list")
    assert done.returncode == 1
    assert "llmctl up" in done.stderr


def test_a_service_token_names_its_service(server: ServerProcess) -> None:
    done = server.llmctl("token", "service", "catalogue", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["expires_in"] == 3600
    for nobody in ("", "a b"):
        done = server.llmctl("token", "service", nobody)
        assert (done.returncode, done.stdout) == (2, "")
