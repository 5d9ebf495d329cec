"""What foreign programs send: too much, too slowly, nonsense, in the middle of a full disk or a jump of the clock."""

from __future__ import annotations

import asyncio
import json
import resource
import socket

import pytest

from llmagentos.api.http import HttpClient, Response
from llmagentos.api.tokens import NewToken, TokenInfo
from llmagentos.core.errors import LLMAgentOSError
from support.server import ServerProcess


def _send(server: ServerProcess, method: str, path: str, body: bytes | None = None, **headers: str) -> Response:
    async def main() -> Response:
        client = HttpClient()
        given = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json", **headers}
        try:
            return await client.request(method, server.url, path, headers=given, body=body, timeout=60)
        finally:
            await client.aclose()

    return asyncio.run(main())


def test_fifty_megabytes_are_refused_unread(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(
            f"POST /api/v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
            f"Content-Length: {50 * 1024 * 1024}\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    assert answer.startswith("HTTP/1.1 413 ")
    problem = json.loads(answer.partition("\r\n\r\n")[2])
    assert problem["type"].endswith(":too_large")
    assert problem["limit"] == 4 * 1024 * 1024


def test_fifty_megabytes_in_chunks_are_cut_off(server: ServerProcess) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(
            f"POST /api/v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        try:
            for _ in range(800):
                connection.sendall(chunk)
        except OSError:
            pass  # closed by the server while we were still sending: what is wanted
        try:
            answer = connection.recv(65536)
        except ConnectionResetError:
            answer = b""
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"\xff\xfe", "malformed"),
        (b"[]", "Expected `object`"),
        (b'{"kind": "viewer"}', "`name`"),
        (b'{"kind": "viewer", "name": 3}', "`$.name`"),
        (b'{"kind": "viewer", "name": "x", "nmae": 1}', "`nmae`"),
        (b'{"kind": "wizard", "name": "x"}', "admin, operator"),
        (b'{"kind": "viewer", "name": "../x"}', "regex"),
    ],
)
def test_a_body_that_does_not_fit_is_a_400_that_says_what(server: ServerProcess, body: bytes, says: str) -> None:
    done = _send(server, "POST", "/api/v1/tokens", body)
    assert done.status == 400, done.body
    assert done.headers["content-type"] == "application/problem+json"
    assert says in json.loads(done.body)["detail"]


def test_the_wrong_method_is_a_405_that_names_the_right_ones(server: ServerProcess) -> None:
    done = _send(server, "DELETE", "/api/v1/tokens")
    assert done.status == 405
    assert set(done.headers["allow"].split(", ")) >= {"GET", "POST"}


def test_head_answers_like_get_without_body(server: ServerProcess) -> None:
    done = _send(server, "HEAD", "/health")
    assert (done.status, done.body) == (200, b"")


def test_a_full_disk_refuses_new_work_and_loses_nothing(server: ServerProcess) -> None:
    if not server.database.startswith("sqlite"):
        pytest.skip("the limit on file sizes set here reaches the server's own files, not PostgreSQL's")
    assert server.process is not None
    pid = server.process.pid

    async def make(name: str) -> str:
        async with server.client() as client:
            return (await client.post("/api/v1/tokens", {"name": name, "kind": "viewer"}, NewToken)).info.id

    async def names() -> set[str]:
        async with server.client() as client:
            return {info.name for info in await client.get("/api/v1/tokens", list[TokenInfo])}

    asyncio.run(make("before"))
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, limits[1]))
    with pytest.raises(LLMAgentOSError) as refused:
        asyncio.run(make("during"))
    assert (refused.value.code, refused.value.status) == ("storage_full", 507), server.log()[-3000:]
    assert asyncio.run(names()) >= {"before"}
    resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    asyncio.run(make("after"))
    server.kill()
    server.start()
    found = asyncio.run(names())
    assert found >= {"before", "after"}
    assert "during" not in found


def test_what_was_acknowledged_survives_kill_9(server: ServerProcess) -> None:
    made: list[str] = []

    async def main() -> None:
        async with server.client() as client:
            for number in range(50):
                info = await client.post("/api/v1/tokens", {"name": f"t{number}", "kind": "viewer"}, NewToken)
                made.append(info.info.name)
                if number == 30:
                    server.kill()
                    return

    asyncio.run(main())
    server.start()

    async def names() -> set[str]:
        async with server.client() as client:
            return {info.name for info in await client.get("/api/v1/tokens", list[TokenInfo])}

    assert asyncio.run(names()) >= set(made)


def test_one_slow_client_does_not_hold_the_others(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as slow:
        slow.sendall(
            f"POST /api/v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
            "Content-Length: 100\r\n\r\n{".encode()
        )
        assert _send(server, "GET", "/health").status == 200
        slow.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has given it up meanwhile
            slow.recv(1)


def test_metrics_are_valid(server: ServerProcess, promtool: str) -> None:
    import subprocess

    assert _send(server, "GET", "/health").status == 200
    text = _send(server, "GET", "/metrics").body
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=100)
    assert checked.returncode == 0, checked.stderr.decode()
    assert b"llmagentos_http_request_duration_seconds_bucket" in text
