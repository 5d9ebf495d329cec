"""Logging in over HTTP: what the cookie is, who may have one, when it ends, and that no other page can act with it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from llmagentos.api.console import LoginLink
from llmagentos.api.http import HttpClient, Response
from llmagentos.api.tokens import NewToken, TokenRequest
from llmagentos.core.errors import Forbidden
from support.server import ServerProcess

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Browser:
    """Requests with the cookies that were set."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.cookies: dict[str, str] = {}
        self._client = HttpClient()

    async def get(self, path: str, **headers: str) -> Response:
        return await self._send("GET", path, headers, None)

    async def post(self, path: str, *, origin: str | None = "", **fields: str) -> Response:
        headers = dict(FORM) if origin is None else FORM | {"Origin": origin or self.server.url}
        return await self._send("POST", path, headers, urlencode(fields).encode())

    async def _send(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Response:
        cookie = {"Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items())} if self.cookies else {}
        done = await self._client.request(method, self.server.url, path, headers={**headers, **cookie}, body=body)
        if found := re.match(r"([^=]+)=([^;]*);", done.headers.get("set-cookie", "")):
            self.cookies[found[1]] = found[2].strip('"')
        return done

    async def log_in(self, token: str, **fields: str) -> Response:
        return await self.post("/login", token=token, **fields)

    async def aclose(self) -> None:
        await self._client.aclose()


Visit = Callable[[Callable[[Browser], Coroutine[Any, Any, None]]], None]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all that leaves it as it was."""
    server = ServerProcess(tmp_path_factory.mktemp("login")).start()
    yield server
    server.stop()


@pytest.fixture
def visit(shared: ServerProcess) -> Visit:
    return visiting(shared)


def visiting(server: ServerProcess) -> Visit:
    def run(main: Callable[[Browser], Coroutine[Any, Any, None]]) -> None:
        async def closing() -> None:
            browser = Browser(server)
            try:
                await main(browser)
            finally:
                await browser.aclose()

        asyncio.run(closing())

    return run


async def token_of(server: ServerProcess, kind: str, name: str) -> NewToken:
    async with server.client() as admin:
        return await admin.post("/api/v1/tokens", TokenRequest(kind, name), NewToken)


def test_a_session_is_a_cookie_that_scripts_and_other_sites_do_not_get(visit: Visit) -> None:
    async def main(browser: Browser) -> None:
        done = await browser.log_in(browser.server.token, next="/nodes")
        assert (done.status, done.headers["location"]) == (303, "/nodes")
        cookie = done.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert browser.server.token not in cookie
        page = await browser.get("/")
        assert page.status == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert (await browser.get("/login")).headers["location"] == "/"

    visit(main)


def test_a_session_cannot_be_used_as_a_token_nor_a_token_as_a_session(visit: Visit) -> None:
    async def main(browser: Browser) -> None:
        await browser.log_in(browser.server.token)
        session = browser.cookies["llmagentos_session"]
        browser.cookies.clear()
        assert (await browser.get("/api/v1/system", Authorization=f"Bearer {session}")).status == 401
        browser.cookies["llmagentos_session"] = browser.server.token
        assert (await browser.get("/")).headers["location"] == "/login"

    visit(main)


def test_only_people_log_in(visit: Visit) -> None:
    async def main(browser: Browser) -> None:
        for kind in ("module", "join", "metrics"):
            made = await token_of(browser.server, kind, "x")
            done = await browser.log_in(made.token)
            assert done.status == 403, kind
            assert browser.cookies == {}
        viewer = await token_of(browser.server, "viewer", "vi")
        assert (await browser.log_in(viewer.token)).status == 303
        assert (await browser.get("/runs")).status == 200
        assert (await browser.post("/runs", agent="x", input="y")).status == 403

    visit(main)


def test_logout_and_revocation_end_a_session_at_once(visit: Visit) -> None:
    async def main(browser: Browser) -> None:
        made = await token_of(browser.server, "operator", "op")
        await browser.log_in(made.token)
        kept = dict(browser.cookies)
        assert (await browser.post("/logout")).headers["location"] == "/login"
        browser.cookies = kept
        assert (await browser.get("/")).status == 303
        await browser.log_in(made.token)
        assert (await browser.get("/")).status == 200
        async with browser.server.client() as admin:
            await admin.delete(f"/api/v1/tokens/{made.info.id}")
        assert (await browser.get("/")).status == 303

    visit(main)


def test_a_link_dies_with_the_token_that_made_it(visit: Visit) -> None:
    async def main(browser: Browser) -> None:
        made = await token_of(browser.server, "operator", "op")
        async with browser.server.client(made.token) as operator:
            links = [await operator.post("/api/v1/login-links", {}, LoginLink) for _ in range(2)]
        codes = [link.path.partition("code=")[2] for link in links]
        looked = await browser.get(links[0].path)  # a preview of the link does not use it up
        assert codes[0] in looked.body.decode()
        assert (await browser.post("/login", code=codes[0])).status == 303
        assert (await browser.post("/login", code=codes[0])).status == 401
        async with browser.server.client() as admin:
            await admin.delete(f"/api/v1/tokens/{made.info.id}")
        assert (await browser.post("/login", code=codes[1])).status == 401

    visit(main)


def test_a_program_gets_no_link(shared: ServerProcess) -> None:
    async def main() -> None:
        made = await token_of(shared, "module", "x")
        async with shared.client(made.token) as module:
            with pytest.raises(Forbidden):
                await module.post("/api/v1/login-links", {}, LoginLink)

    asyncio.run(main())


@pytest.mark.parametrize("origin", ["http://evil.example", "null", None])
def test_other_pages_cannot_act_with_the_cookie(visit: Visit, origin: str | None) -> None:
    async def main(browser: Browser) -> None:
        await browser.log_in(browser.server.token)
        for path in ("/runs", "/runs/x/kill", "/logout"):
            assert (await browser.post(path, origin=origin, agent="a", input="b")).status == 403, path
        assert (await browser.get("/")).status == 200

    visit(main)


def test_other_pages_cannot_log_anybody_in(visit: Visit) -> None:
    async def main(browser: Browser) -> None:
        done = await browser.post("/login", origin="http://evil.example", token=browser.server.token)
        assert done.status == 403
        assert browser.cookies == {}

    visit(main)


def test_guessing_has_to_wait(server: ServerProcess) -> None:
    async def main(browser: Browser) -> None:
        for _ in range(10):
            assert (await browser.log_in("lao_admin_guess")).status == 401
        done = await browser.log_in(browser.server.token)
        assert done.status == 429
        assert browser.cookies == {}

    visiting(server)(main)


def test_a_login_form_is_small(visit: Visit) -> None:
    async def main(browser: Browser) -> None:
        assert (await browser.log_in("x" * 100_000)).status == 413
        assert (await browser.post("/login")).status == 401
        assert (await browser.post("/login", **{f"field{number}": "1" for number in range(1000)})).status == 401

    visit(main)


def test_nothing_is_redirected_elsewhere(visit: Visit) -> None:
    async def main(browser: Browser) -> None:
        done = await browser.log_in(browser.server.token, next="//evil.example")
        assert done.headers["location"] == "/"

    visit(main)


def test_assets_may_be_kept_and_nothing_else_is_served(visit: Visit) -> None:
    async def main(browser: Browser) -> None:
        login = (await browser.get("/login")).body.decode()
        assets = re.findall(r'(?:href|src)="(/static/[^"]+)"', login)
        assert len(assets) > 8
        for path in assets:
            done = await browser.get(path)
            assert done.status == 200, path
            assert "immutable" in done.headers["cache-control"]
        for path in ("/static/none.css", "/static/vendor/README", "/static/../render.py", "/static/%2e%2e/render.py"):
            assert (await browser.get(path)).status == 404, path

    visit(main)
