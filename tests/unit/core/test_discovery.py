from __future__ import annotations

import stat
from pathlib import Path

import pytest

from llmagentos.core.discovery import Credentials, NoServer, discover, read, read_secret, state_of, user_file, write
from llmagentos.core.errors import ConfigError


def put(path: Path, server: str) -> None:
    write(path, Credentials(server, f"token of {server}"))


def test_the_order_of_places(tmp_path: Path) -> None:
    work = tmp_path / "a" / "b"
    work.mkdir(parents=True)
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    with pytest.raises(NoServer) as caught:
        discover(env, work)
    assert "llmctl up" in (caught.value.hint or "")

    put(user_file(env), "http://user")
    assert discover(env, work).server == "http://user"
    put(tmp_path / "a" / ".llmagentos" / "credentials.json", "http://parent")
    assert discover(env, work).server == "http://parent"
    put(work / ".llmagentos" / "credentials.json", "http://here")
    assert discover(env, work).server == "http://here"
    put(tmp_path / "named" / "credentials.json", "http://named")
    env["LLMAGENTOS_STATE"] = str(tmp_path / "named")
    assert discover(env, work).server == "http://named"
    assert discover(env | {"LLMAGENTOS_CA": "/ca.pem"}, work).ca == Path("/ca.pem")
    (tmp_path / "token").write_text("secret\n")
    env |= {"LLMAGENTOS_SERVER": "http://env", "LLMAGENTOS_TOKEN_FILE": str(tmp_path / "token")}
    assert discover(env, work) == Credentials("http://env", "secret")
    env |= {"LLMAGENTOS_TOKEN": "direct", "LLMAGENTOS_CA": "/ca.pem"}
    assert discover(env, work) == Credentials("http://env", "direct", Path("/ca.pem"))


def test_a_named_state_never_falls_through_to_another_server(tmp_path: Path) -> None:
    put(tmp_path / ".llmagentos" / "credentials.json", "http://here")
    with pytest.raises(NoServer):
        discover({"LLMAGENTOS_STATE": str(tmp_path / "other")}, tmp_path)


def test_a_server_without_a_token_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoServer, match="no token"):
        discover({"LLMAGENTOS_SERVER": "http://x"}, tmp_path)


@pytest.mark.parametrize(
    ("server", "token"),
    [
        *((server, "t") for server in ("127.0.0.1:7080", "ftp://x", "http://", "http://x:99999", "http://[::1")),
        *(("http://x", token) for token in ("a\r\nb", "t\u00f6ken")),
    ],
)
def test_what_nobody_can_be_asked_with_is_said(tmp_path: Path, server: str, token: str) -> None:
    with pytest.raises(ConfigError, match="the environment: "):
        discover({"LLMAGENTOS_SERVER": server, "LLMAGENTOS_TOKEN": token}, tmp_path)
    write(path := tmp_path / "credentials.json", Credentials(server, token))
    with pytest.raises(ConfigError, match=str(path)):
        read(path)


def test_credentials_are_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "credentials.json"
    credentials = Credentials("http://x", "secret-token", tmp_path / "ca.pem")
    write(path, credentials)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["credentials.json"]
    assert read(path) == credentials
    assert "secret-token" not in repr(credentials)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"server": 1, "token": "t"}', b"\xff\xfe"])
def test_broken_credentials_are_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "credentials.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not a credentials file"):
        read(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path)


def test_a_secret_is_one_line_that_others_cannot_change(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("  value \n")
    assert read_secret(path) == "value"
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="anyone may write"):
        read_secret(path)
    path.chmod(0o600)
    for content in ("", "a\nb\n"):
        path.write_text(content)
        with pytest.raises(ConfigError, match="one line"):
            read_secret(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_secret(tmp_path / "missing")


def test_a_ca_that_is_none_is_said(tmp_path: Path) -> None:
    assert Credentials("http://x", "t").tls() is None
    (tmp_path / "ca.pem").write_text("nonsense")
    with pytest.raises(ConfigError, match="not a readable CA"):
        Credentials("https://x", "t", tmp_path / "ca.pem").tls()


def test_which_state_commands_mean(tmp_path: Path) -> None:
    work = tmp_path / "a" / "b"
    work.mkdir(parents=True)
    assert state_of({}, work) == work / ".llmagentos"
    (tmp_path / ".llmagentos").mkdir()
    assert state_of({}, work) == tmp_path / ".llmagentos"
    assert state_of({"LLMAGENTOS_STATE": "/s"}, work) == Path("/s")
