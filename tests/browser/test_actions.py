"""What people do in the console beside asking agents: models, sessions, memory, schedules, jobs, nodes."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from support.engine import ScriptedEngine
from support.scene import Scene
from support.server import ServerProcess


def test_a_model_is_loaded_and_unloaded(entered: Page, console: ServerProcess) -> None:
    page = entered
    page.goto(f"{console.url}/models")
    row = page.locator("#models tr", has_text="tiny")
    expect(row).to_contain_text("unloaded")
    expect(row).to_contain_text("5m")
    row.get_by_role("button", name="Load tiny").click()
    expect(page).to_have_url(f"{console.url}/models")
    expect(row).not_to_contain_text("unloaded")
    expect(page.locator("#models tr", has_text="scripted").get_by_role("button")).to_have_count(0)


def test_what_cannot_be_undone_is_asked_for(entered: Page, console: ServerProcess, scene: Scene) -> None:
    page, asked = entered, list[str]()
    page.on("dialog", lambda dialog: asked.append(dialog.message))
    page.goto(f"{console.url}/nodes/web-2")
    page.get_by_role("button", name="Drain").click()
    expect(page.locator(".facts")).to_contain_text("draining")
    assert asked == ["Stop giving it jobs, and stop its modules?"]


def test_sessions_and_what_is_remembered(entered: Page, console: ServerProcess, engine: ScriptedEngine) -> None:
    page = entered
    engine.release()
    assert console.llmctl("ask", "support", "--session", "home", "What does it cost?").returncode == 0
    assert console.llmctl("memory", "add", "support", "Likes <i>green</i> tea").returncode == 0
    page.get_by_role("link", name="Sessions", exact=True).click()
    page.get_by_role("link", name="home").click()
    expect(page.locator("#turns")).to_contain_text("What does it cost?")
    expect(page.locator("#turns")).to_contain_text("boils 1.7 litres.")
    page.get_by_role("button", name="Delete the session").click()
    expect(page.locator("#sessions")).to_contain_text("No sessions yet")

    page.get_by_role("link", name="Long-term memory").click()
    expect(page.locator("#facts")).to_contain_text("Likes <i>green</i> tea")
    page.get_by_label("Agent").select_option("support")
    page.get_by_label("Search by words and meaning").fill("tea")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#facts")).to_contain_text("green")
    page.get_by_role("button", name="Forget: Likes").click()
    expect(page.locator("#facts")).to_contain_text("Nothing fits")


def test_a_schedule_of_a_template(entered: Page, console: ServerProcess, scene: Scene) -> None:
    page = entered
    page.goto(f"{console.url}/templates/deploy")
    page.get_by_label("Version").fill("one")
    page.get_by_role("button", name="Launch").click()
    expect(page.locator("#field-version-error")).to_contain_text("has to match")
    expect(page.get_by_label("Version")).to_have_value("one")
    page.get_by_role("link", name="Repeat on a schedule").click()
    page.get_by_label("Name").fill("weekly")
    page.get_by_label("Cron").fill("0 25 * * 1")
    page.get_by_label("Time zone").fill("Asia/Shanghai")
    page.get_by_label("Version").fill("1.2")
    page.get_by_role("button", name="Make the schedule").click()
    expect(page.locator("#cron-error")).to_contain_text("no cron expression")
    page.get_by_label("Cron").fill("0 4 * * 1")
    page.get_by_role("button", name="Make the schedule").click()
    expect(page).to_have_url(f"{console.url}/schedules/weekly")
    expect(page.locator("#next")).to_contain_text("04:00:00 CST")
    page.get_by_label("Cron").fill("")
    page.get_by_label("Or every").fill("6h")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".facts")).to_contain_text("every 6h")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#schedules tr", has_text="weekly")).to_contain_text("paused")
    page.get_by_role("link", name="weekly").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("#schedules")).to_contain_text("No schedules yet")


def test_a_job_says_who_did_what(entered: Page, console: ServerProcess, scene: Scene) -> None:
    page = entered
    page.goto(f"{console.url}/jobs/{scene.job}")
    changes = page.locator("#changes")
    expect(changes).to_contain_text("admin:admin")
    expect(changes.locator("tr", has_text="web-1").first).to_contain_text("node:web-1")
    page.goto(f"{console.url}/nodes?filter=mem%3E4GiB+and+state%3Dready")
    expect(page.locator("#nodes")).to_contain_text("web-1")
    page.get_by_label("Filter").fill("web")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("alert")).to_contain_text("there is no fact 'web'")


def test_what_a_job_fetched_is_downloaded(entered: Page, console: ServerProcess, scene: Scene) -> None:
    page = entered
    page.goto(f"{console.url}/jobs/{scene.job}")
    files = page.locator("#files")
    expect(files.get_by_role("row")).to_have_count(3)
    expect(files.get_by_role("row").nth(1)).to_contain_text("17 B")
    for name, kept, content in (
        ("got/web-1/hosts", "hosts", "127.0.0.1 主机\n"),
        ('<script>alert(1)</script> "é"', 'script> "é"', ""),
    ):
        with page.expect_download() as started:
            files.get_by_role("link", name=name).click()
        assert started.value.path().read_text("utf-8") == content
        assert started.value.suggested_filename.endswith(kept.replace(">", "_").replace('"', "_"))
    page.goto(f"{console.url}/jobs/{scene.job}/files/99")
    expect(page.locator("main")).to_contain_text("this file is not there")
