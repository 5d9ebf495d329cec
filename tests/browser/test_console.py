"""The console in a browser: into it, a run as it happens, language, theme, a phone, and out again."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from support.engine import ScriptedEngine
from support.scene import Scene
from support.server import ServerProcess

BACKGROUND = "getComputedStyle(document.documentElement).backgroundColor"
PAGES = (
    "/",
    "/runs",
    "/agents",
    "/agents/support",
    "/sessions",
    "/memory",
    "/services",
    "/models",
    "/budgets",
    "/jobs",
    "/schedules",
    "/nodes",
)


def ask(server: ServerProcess, text: str) -> str:
    """`POST /api/v1/runs`; the run's id. Without asyncio: the browser's driver has a loop of its own."""
    request = urllib.request.Request(
        f"{server.url}/api/v1/runs",
        json.dumps({"agent": "support", "input": text}).encode(),
        {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["id"])


def pages_of(scene: Scene) -> list[str]:
    """Pages of what `scene` holds."""
    return [
        f"/runs/{scene.answered}",
        f"/runs/{scene.failed}",
        f"/jobs/{scene.job}",
        "/nodes/web-1",
        "/agents/helpdesk",
        "/templates/deploy",
        "/new-schedule?template=deploy",
    ]


def test_login_by_link_works_once(page: Page, console: ServerProcess) -> None:
    done = console.llmctl("console", "--json")
    assert done.returncode == 0, done.stderr
    link = re.search(r"http://\S+/login\?code=[\w%-]+", done.stdout)
    assert link is not None, done.stdout
    page.goto(link.group())
    expect(page).to_have_url(f"{console.url}/")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(f"{console.url}/login")
    page.goto(link.group())
    expect(page.get_by_role("alert")).to_contain_text("used already")


def test_login_by_token_leads_where_one_wanted_to_go(page: Page, console: ServerProcess) -> None:
    page.goto(f"{console.url}/runs?active=1")
    expect(page).to_have_url(re.compile(r"/login\?next="))
    page.get_by_label("Access token").fill("lao_admin_wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("not valid")
    page.get_by_label("Access token").fill(console.token)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{console.url}/runs?active=1")
    page.get_by_role("button", name="Log out").click()
    page.goto(f"{console.url}/runs")
    expect(page).to_have_url(re.compile(r"/login\?next="))


def test_a_run_appears_and_is_followed_without_reloading(
    entered: Page, console: ServerProcess, engine: ScriptedEngine
) -> None:
    page = entered
    page.get_by_role("link", name="Runs", exact=True).click()
    page.evaluate("window.unreloaded = true")
    expect(page.locator("#connection")).to_have_attribute("data-state", "open")
    run = ask(console, "What does the <b>kettle</b> cost?")
    row = page.get_by_role("link", name="What does the <b>kettle</b> cost?")
    expect(row).to_be_visible()
    assert page.evaluate("window.unreloaded") is True

    row.click()
    expect(page).to_have_url(f"{console.url}/runs/{run}")
    expect(page.get_by_role("button", name="Stop run")).to_be_visible()
    page.evaluate("window.unreloaded = true")
    expect(page.locator("#connection")).to_have_attribute("data-state", "open")
    engine.release()
    answer = page.locator("#answer .answer:not(.pending)")
    expect(answer).to_have_text("The kettle costs 39.90 euros and boils 1.7 litres.")
    expect(page.locator("#timeline")).to_contain_text("Model writes the answer")
    expect(page.locator("#timeline")).to_contain_text("tokens 128 / 7")
    expect(page.get_by_role("button", name="Stop run")).to_have_count(0)
    expect(page.locator("#connection")).to_have_attribute("data-state", "done")
    expect(page.locator("#announcer")).to_contain_text("succeeded: The kettle costs 39.90 euros")
    assert page.evaluate("window.unreloaded") is True


def test_the_answer_is_shown_while_it_is_written(entered: Page, console: ServerProcess, engine: ScriptedEngine) -> None:
    page = entered
    page.goto(f"{console.url}/agents/support")
    engine.at_once = 0
    page.get_by_label("Request").fill("Tell me")
    page.get_by_role("button", name="Ask").click()
    expect(page).to_have_url(re.compile(r"/runs/[0-9a-z]+$"))
    expect(page.locator("#connection")).to_have_attribute("data-state", "open")
    expect(page.locator("#timeline")).to_contain_text("Model writes the answer")
    page.evaluate(
        """() => { window.seen = []; new MutationObserver(() => {
             const text = document.querySelector(".answer.pending")?.textContent;
             if (text) window.seen.push(text); })
                 .observe(document.body, {childList: true, characterData: true, subtree: true}); }"""
    )
    engine.at_once = 3
    expect(page.locator(".answer.pending")).to_have_text("The kettle costs 39.90")
    with page.context.new_page() as late:
        late.goto(page.url)
        expect(late.locator(".answer.pending")).to_have_text("The kettle costs 39.90")
    engine.release()
    expect(page.locator("#answer .answer:not(.pending)")).to_contain_text("boils 1.7 litres.")
    seen = page.evaluate("window.seen")
    assert seen, "nothing of the answer was shown before its end"
    assert [text for text in seen if not "The kettle costs 39.90 euros and boils 1.7 litres.".startswith(text)] == []


def test_a_run_is_stopped(entered: Page, console: ServerProcess) -> None:
    page = entered
    run = ask(console, "Talk for ever")
    page.goto(f"{console.url}/runs/{run}")
    page.get_by_role("button", name="Stop run").click()
    expect(page.get_by_text("Stopped by admin:admin before there was an answer.")).to_be_visible()


def test_language_and_theme_are_remembered(entered: Page, context: BrowserContext, console: ServerProcess) -> None:
    page = entered
    page.get_by_role("link", name="中文").click()
    expect(page.get_by_role("heading", name="概览")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    page.get_by_role("link", name="运行", exact=True).click()
    expect(page.get_by_role("heading", name="运行", exact=True)).to_be_visible()
    page.get_by_role("link", name="English").click()
    expect(page).to_have_url(f"{console.url}/runs")
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()

    light = page.evaluate(BACKGROUND)
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    dark = page.evaluate(BACKGROUND)
    assert dark != light
    other = context.new_page()
    other.goto(f"{console.url}/nodes")
    expect(other.locator("html")).to_have_attribute("data-theme", "dark")


@pytest.mark.parametrize("width", [360, 700, 768, 900, 1280])
def test_no_page_is_wider_than_its_screen(entered: Page, console: ServerProcess, scene: Scene, width: int) -> None:
    page = entered
    run = ask(console, "x" * 300)
    page.set_viewport_size({"width": width, "height": 800})
    for path in (*PAGES, *pages_of(scene), f"/runs/{run}", "/runs/none", "/nodes/none"):
        page.goto(console.url + path)
        page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert over <= 0, f"{path} is {over} px too wide"


def test_the_menu_of_a_phone(entered: Page, console: ServerProcess) -> None:
    page = entered
    page.set_viewport_size({"width": 375, "height": 740})
    page.goto(console.url)
    link = page.get_by_role("link", name="Nodes", exact=True)
    expect(link).to_be_hidden()
    page.get_by_role("button", name="Menu").click()
    link.click()
    expect(page).to_have_url(f"{console.url}/nodes")
    expect(page.get_by_role("heading", name="Nodes")).to_be_visible()


def test_an_unknown_page_is_a_page(entered: Page, console: ServerProcess) -> None:
    for path in ("/no/such/page", "/runs/none", "/jobs/7", "/jobs/x", "/agents/supprt"):
        response = entered.goto(console.url + path)
        assert response is not None
        assert response.status in (400, 404), path
        expect(entered.get_by_role("heading", level=1)).to_have_text(re.compile("Not found|This cannot be done"))
    expect(entered.get_by_text("did you mean 'support'?")).to_be_visible()


def test_a_grounded_answer_with_its_records_and_steps(entered: Page, console: ServerProcess, scene: Scene) -> None:
    page = entered
    page.goto(f"{console.url}/runs/{scene.answered}")
    expect(page.locator("#answer")).to_contain_text("The biggest is the Kettle 1.7 l (K-170) for 39.90.")
    expect(page.locator("#sources li")).to_have_count(2)
    expect(page.locator("#sources")).to_contain_text("<script>alert(1)</script>")
    steps = page.locator("#timeline > li .line strong")
    expect(steps).to_have_text(["Asked", "Taken up", "Tool call", "Tool call", "Model writes the answer", "Answered"])
    expect(page.get_by_text('"Kettle 1.7 l"')).to_be_hidden()
    page.locator("summary", has_text="Result").click()
    expect(page.get_by_text('"Kettle 1.7 l"')).to_be_visible()


def test_a_job_shows_what_each_task_came_to(entered: Page, console: ServerProcess, scene: Scene) -> None:
    page = entered
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_role("link", name="site.yml").click()
    expect(page).to_have_url(f"{console.url}/jobs/{scene.job}")
    tasks = page.locator(".task")
    expect(tasks).to_contain_text(["Before the first task", "Gathering Facts", "Write its configuration"])
    expect(page.locator(".diff .add").first).to_have_text("+port: 8080")
    expect(page.locator(".task", has_text="Packages")).to_contain_text("No package matching 'git' is available")
    page.get_by_role("link", name="web-1", exact=True).click()
    expect(page.get_by_role("heading", name="web-1")).to_be_visible()
    expect(page.locator(".facts")).to_contain_text("Debian GNU/Linux 12 (bookworm)")
    expect(page.locator("table", has_text="mailer")).to_contain_text("failed")


def test_time_goes_on_while_a_run_does(entered: Page, console: ServerProcess, scene: Scene) -> None:
    page = entered
    page.goto(f"{console.url}/runs/{scene.waiting}")
    expect(page.locator("#connection")).to_have_attribute("data-state", "open")
    expect(page.locator("#timeline")).to_contain_text("Model writes the answer")
    ticking = page.locator("#timeline [data-since]")
    first = ticking.text_content()
    expect(ticking).not_to_have_text(first or "")
