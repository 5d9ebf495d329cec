"""A headless Chromium of the system, and a server with something to show."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from support.engine import ScriptedEngine
from support.scene import Scene, furnish
from support.server import ServerProcess

expect.set_options(timeout=30_000)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_REFUSED = re.compile("status of 40|Status Error Code 40")
"""What the browser and htmx say of an answer that a test may want, or that a page gets of what was just deleted."""
WORDS = ["The kettle", " costs", " 39.90", " euros", " and", " boils", " 1.7 litres."]

AGENT = """\
kind: Agent
name: support
model: scripted
instructions: Answer questions about products.
memory: {long_term: true}
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for a module: its driver runs an event loop in this thread as long as it lives."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser is installed: looked for {', '.join(NAMES)}")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=[*arguments, "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A browser without any cookie; errors in its console fail the test."""
    context = chromium.new_context(locale="en-GB", timezone_id="Europe/Berlin", color_scheme="light")
    context.set_default_timeout(60_000)
    said: list[str] = []
    context.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    context.on("weberror", lambda error: said.append(str(error.error)))
    context.on(
        "dialog", lambda dialog: (said.append(dialog.message) if dialog.type == "alert" else None, dialog.accept())
    )
    yield context
    context.close()
    assert [text for text in said if not _REFUSED.search(text)] == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A tab."""
    return context.new_page()


@pytest.fixture(scope="module")
def _engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine(WORDS, at_once=2).running() as engine:
        yield engine


@pytest.fixture
def engine(_engine: ScriptedEngine) -> Iterator[ScriptedEngine]:
    """A model that says two words and then waits for the test."""
    _engine.hold(at_once=2)
    yield _engine
    _engine.release()


@pytest.fixture(scope="module")
def _server(_engine: ScriptedEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    model = f"models:\n  scripted:\n    engine: openai\n    url: {_engine.url}\n    aliases: [default]\n"
    model += "  tiny:\n    engine: llama.cpp\n    path: /none/tiny.gguf\n    keep_alive: 5m\n"
    model += "server: {node_away_s: 3600}\n"  # the nodes of the scene say nothing after they were made
    server = ServerProcess(tmp_path_factory.mktemp("console"), model).start()
    definition = server.directory / "support.yaml"
    definition.write_text(AGENT)
    applied = server.llmctl("apply", "-f", str(definition))
    assert applied.returncode == 0, applied.stderr
    yield server
    server.stop()


@pytest.fixture(scope="module")
def scene(_server: ServerProcess) -> Scene:
    """Nodes, a job, services and runs with texts that try to run in the browser."""
    return furnish(_server)


@pytest.fixture
def console(_server: ServerProcess, engine: ScriptedEngine) -> ServerProcess:
    """A server with the model and the agent `support`, the same for all tests here."""
    return _server


def log_in(page: Page, server: ServerProcess) -> None:
    """Log in with the admin's token."""
    page.goto(f"{server.url}/login")
    page.get_by_label("Access token").fill(server.token)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(re.compile(rf"^{re.escape(server.url)}/$"))


@pytest.fixture
def entered(page: Page, console: ServerProcess) -> Page:
    """A tab with a session, on the overview."""
    log_in(page, console)
    return page
