"""The assistant: real mail and calendar, a scripted model; sending waits for a person, through `kill -9`."""

from __future__ import annotations

import asyncio
import contextlib
import mailbox
import re
import smtplib
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from llmagentos.api import approvals, runs
from llmagentos.api.runs import RunState
from support.examples import apply, asked, config, evaluate, program, results, with_tools
from support.scripted import scripted_engine
from support.server import ServerProcess, StartServer

CALENDAR = """BEGIN:VCALENDAR\r
VERSION:2.0\r
X-WR-CALNAME:Ada\r
BEGIN:VEVENT\r
UID:1@office.test\r
DTSTART:20261123T100000\r
DTEND:20261123T110000\r
SUMMARY:Dentist\\, Dr. Wu\r
LOCATION:a long way that is folded be\r
 cause of its length\r
END:VEVENT\r
END:VCALENDAR\r
"""
MAIL = ("mail_send", {"to": "bo@office.test", "subject": "Lunch", "text": "I am free at noon.\n.\nAda"})


def assistant(request: dict[str, Any]) -> str | list[tuple[str, dict[str, Any]]]:
    """Looks up what it says, and says what came of it."""
    what, done = asked(request), results(request)
    if "Write to" in what:
        if not done:
            return [MAIL]
        return "I sent it." if "sent to" in done[-1] else f"It was not mailed: {done[-1]}"
    if "Lunch with Bo" in what:
        new = {"summary": "Lunch with Bo", "begin": "2026-11-24T12:00", "end": "2026-11-24T13:00"}
        return f"Done: {done[-1]}" if done else [("calendar_add", new)]
    if "小李" in what:
        new = {"summary": "与小李的会议", "begin": "2026-11-23T10:00", "end": "2026-11-23T11:00"}
        return f"那时没有空：{done[-1]}" if done else [("calendar_add", new)]
    if "messages" in what:
        return f"Found: {done[-1]}" if done else [("mail_search", {"words": "lunch"})]
    return f"You have: {done[-1]}" if done else [("calendar_events", {"day": "2026-11-23"})]


class Office:
    """The assistant's surroundings."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.calendar = server.directory / "calendar.ics"
        self.calendar.write_bytes(CALENDAR.encode())

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        mail = ("assistant/mailserver.py", str(self.server.directory / "mail"), "office.test", "0")
        with program(self.server, *mail, ready="mail for") as log:
            self.port = int(re.search(r":(\d+)", log.read_text())[1])  # type: ignore[index]
            file = self.server.directory / "office.yaml"
            file.write_text(
                f"calendar: calendar.ics\n"
                f"mail: {{address: ada@office.test, maildir: mail/ada, smtp: 127.0.0.1, port: {self.port}}}\n"
            )
            with program(self.server, "assistant/office.py", str(file)):
                apply(self.server, "assistant/assistant.yaml")
                yield

    def inbox(self, name: str) -> list[str]:
        """The texts of a user's mail."""
        place = Path(self.server.directory, "mail", name)
        if not place.exists():
            return []
        return [str(each.get_payload()) for each in mailbox.Maildir(place, create=False)]


def test_its_cases_and_mail_that_waits_through_a_crash(start_server: StartServer) -> None:
    async def main() -> None:
        async with scripted_engine(with_tools(assistant)) as engine:
            await asyncio.to_thread(_all, start_server, config(engine.url))

    asyncio.run(main())


def _all(start_server: StartServer, models: str) -> None:
    server = start_server(models)
    office = Office(server)
    with office.open():
        done = evaluate(server, "assistant/evals.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "5 of 5 cases are as expected" in done.stdout
        assert len(office.inbox("bo")) == 1  # one was approved, one denied
        calendar = office.calendar.read_text()
        assert calendar.count("SUMMARY:Lunch with Bo") == 1
        assert "X-WR-CALNAME:Ada" in calendar
        assert "小李" not in calendar
        asyncio.run(_waits(server, office))
        _takes_its_own_mail_only(office)
        asyncio.run(_finds(server))


async def _waits(server: ServerProcess, office: Office) -> None:
    """A run that waits is there again after `kill -9`, and its mail goes once it is approved, once."""
    async with server.client() as client:
        run = (await runs.start(client, "assistant", "Write to bo@office.test about lunch.")).id
        await _until(client, run, RunState.WAITING)
    await asyncio.to_thread(server.kill)
    assert len(office.inbox("bo")) == 1
    await asyncio.to_thread(server.start)
    async with server.client() as client:
        (waiting,) = await approvals.listing(client)
        assert (waiting.run, waiting.tool, waiting.arguments) == (run, "mail.send", MAIL[1])
        await approvals.approve(client, waiting.id)
        found = await _until(client, run, RunState.SUCCEEDED)
        assert found.answer == "I sent it."
    sent = office.inbox("bo")
    assert len(sent) == 2
    assert sent[-1].split() == ["I", "am", "free", "at", "noon.", ".", "Ada"]


async def _until(client: Any, run: str, state: RunState) -> runs.Run:
    async with asyncio.timeout(60):
        while (found := await runs.get(client, run)).state is not state:
            assert not found.state.ended, found
            await asyncio.sleep(0.02)
    return found


def _takes_its_own_mail_only(office: Office) -> None:
    message = EmailMessage()
    message["From"], message["Subject"] = "bo@office.test", "Re: Lunch"
    message["To"] = "ada@office.test"
    message.set_content("Noon is fine. 好的。")
    with smtplib.SMTP("127.0.0.1", office.port, timeout=60) as smtp:
        smtp.send_message(message)
        for to in ("eve@elsewhere.test", "../ada@office.test"):
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                smtp.sendmail("bo@office.test", to, b"no")
        assert smtp.docmd("TURN")[0] == 502


async def _finds(server: ServerProcess) -> None:
    async with server.client() as client:
        run = (await runs.start(client, "assistant", "Which messages have I about lunch?")).id
        found = await _until(client, run, RunState.SUCCEEDED)
    assert "Noon is fine. 好的。" in str(found.answer)
