"""Nothing answers without an identity, and none may more than its kind's row in `GRANTS`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llmagentos.api.control import NewProgram, begin
from llmagentos.api.http import HttpClient
from llmagentos.api.tokens import NewToken
from llmagentos.core.config import Config
from llmagentos.core.errors import Unauthenticated
from llmagentos.core.state import StateDirectory
from llmagentos.security.identity import GRANTS, Kind
from llmagentos.server.app import create_app
from llmagentos.server.endpoint import Endpoint
from llmagentos.storage.database import Database
from llmagentos.storage.tables import METADATA
from support.server import ServerProcess

WITHOUT = {("GET", "/login"), ("POST", "/login"), ("GET", "/static/{path:path}"), ("GET", "/install.sh")}
"""What a browser needs before there is a session, and the script that makes a machine a node."""


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """Method and path of everything that the server serves, pages included."""
    found = []
    for route in _app(tmp_path_factory.mktemp("routes")).routes:
        methods = getattr(route, "methods", None) or {"GET", "POST", "PUT", "DELETE"}
        found += [(method, str(getattr(route, "path", "/"))) for method in methods - {"HEAD"}]
    return found


def _app(directory: Path):  # type: ignore[no-untyped-def]  # Starlette's own type
    state = StateDirectory(directory / "state")
    state.prepare()
    return create_app(Config(state=str(state.root)), state)


def _concrete(path: str) -> str:
    return "/".join("x" if part.startswith("{") else part for part in path.split("/"))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer lao_admin_wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic YWRtaW46YWRtaW4="},
        {"Cookie": "llmagentos_session=lao_admin_wrong"},
    ],
)
def test_no_route_answers_without_identity(
    server: ServerProcess, routes: list[tuple[str, str]], headers: dict[str, str]
) -> None:
    async def main() -> list[tuple[str, str, int]]:
        client, answered = HttpClient(), []
        for method, path in [*routes, ("GET", "/no/such/path"), ("PATCH", "/health")]:
            if (method, path) in WITHOUT:
                continue
            done = await client.request(method, server.url, _concrete(path), headers=headers, body=b"", timeout=60)
            sent_to_login = done.status == 303 and done.headers.get("location", "").startswith("/login")
            if done.status != 401 and not sent_to_login:
                answered.append((method, path, done.status))
        await client.aclose()
        return answered

    assert len(routes) > 8
    assert asyncio.run(main()) == []


BY_KEYS = (Kind.NODE, Kind.NODE_KEY)
"""Kinds that no token is made for: tests/integration/fleet/test_node_may.py walks the routes as those."""


def test_each_kind_may_what_its_row_says_and_no_more(server: ServerProcess, tmp_path: Path) -> None:
    endpoints: tuple[Endpoint, ...] = _app(tmp_path).state.endpoints

    async def main() -> None:
        client = HttpClient()
        for kind in [kind for kind in Kind if kind not in BY_KEYS]:
            async with server.client() as admin:
                if kind is Kind.RUN:
                    token = (await begin(admin, NewProgram("a", ["true"], "test"))).token
                else:
                    request = {"name": f"a-{kind.value}", "kind": kind.value}
                    token = (await admin.post("/api/v1/tokens", request, NewToken)).token
            headers = {"Authorization": f"Bearer {token}"}
            for endpoint in endpoints:
                if endpoint.allow in GRANTS[kind]:
                    continue
                done = await client.request(
                    endpoint.method, server.url, _concrete(endpoint.path), headers=headers, body=b"{}", timeout=60
                )
                assert done.status == 403, (kind, endpoint.method, endpoint.path, done.status)
        await client.aclose()

    asyncio.run(main())


def test_a_revoked_token_ends_at_once(server: ServerProcess) -> None:
    async def main() -> None:
        async with server.client() as admin:
            made = await admin.post("/api/v1/tokens", {"name": "short", "kind": "viewer"}, NewToken)
            async with server.client(made.token) as viewer:
                await viewer.text("/api/v1/system")
                await admin.delete(f"/api/v1/tokens/{made.info.id}")
                with pytest.raises(Unauthenticated):
                    await viewer.text("/api/v1/system")

    asyncio.run(main())


async def _everything(url: str) -> str:
    """Every row of every table, as text."""
    database = Database(url)
    async with database.read() as connection:
        rows = [str((await connection.execute(table.select())).all()) for table in METADATA.sorted_tables]
    await database.aclose()
    return "\n".join(rows)


def test_the_database_holds_no_secret(server: ServerProcess) -> None:
    token = server.token
    assert server.stop() == 0
    stored = asyncio.run(_everything(server.database))
    assert "admin" in stored
    assert "lao_admin_" not in stored
    assert token.rpartition("_")[2] not in stored
    assert token not in server.log()
    assert (server.state / "credentials.json").stat().st_mode & 0o777 == 0o600
    assert server.state.stat().st_mode & 0o777 == 0o700
