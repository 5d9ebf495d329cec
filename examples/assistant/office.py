"""The assistant's tools as a module with two services: `calendar` over an .ics file, `mail` over SMTP and a Maildir.

Its settings are a YAML file, the first argument; `office.yaml` is one for trying it out.
"""

from __future__ import annotations

import mailbox
import smtplib
import sys
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes
from email.message import EmailMessage, Message
from email.policy import default
from email.utils import formatdate, make_msgid
from pathlib import Path
from threading import Lock
from typing import Any

import yaml
from calendar_file import Calendar, Event, parse

from llmagentos import Module, Service, idempotent

SMTP_S = 15.0
SHOWN = 20  # messages that a search brings at most
TEXT = 4000  # characters of a message that are shown


@dataclass(frozen=True)
class Mail:
    """A message as it came."""

    sender: str
    date: str
    subject: str
    text: str


class CalendarService(Service):
    """The user's appointments, in local time."""

    def __init__(self, file: Path) -> None:
        self._calendar = Calendar(file)
        self._lock = Lock()

    @idempotent
    def now(self) -> str:
        """The time now, with the day of the week."""
        return datetime.now().strftime("%A %Y-%m-%dT%H:%M")

    @idempotent
    def events(self, day: str) -> list[Event]:
        """The appointments of a day, written as 2026-11-23."""
        start = parse(day).date().isoformat()
        return [event for event in self._calendar.events() if event.begin[:10] <= start <= event.end[:10]]

    def add(self, summary: str, begin: str, end: str, location: str = "") -> Event:
        """Make an appointment; times are written as 2026-11-23T10:00. Refused when something else is at that time."""
        event = Event(summary, begin, end, location)
        with self._lock:
            self._calendar.add(event)
        return event


class MailService(Service):
    """The user's mail."""

    def __init__(self, *, address: str, maildir: Path, host: str, port: int) -> None:
        self._address = address
        self._maildir = maildir
        self._smtp = (host, port)

    @idempotent
    def search(self, words: str) -> list[Mail]:
        """Messages that have all these words in sender, subject or text, newest first; all of them for no words."""
        if not self._maildir.is_dir():
            return []
        wanted = words.lower().split()
        messages = [_mail(message) for _, message in _newest(mailbox.Maildir(self._maildir, create=False))]
        found = [mail for mail in messages if all(word in _whole(mail) for word in wanted)]
        return found[:SHOWN]

    def send(self, to: str, subject: str, text: str) -> str:
        """Send a message to one address."""
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = self._address, to, subject
        message["Date"], message["Message-ID"] = formatdate(localtime=True), make_msgid(domain="assistant.local")
        message.set_content(text)
        with smtplib.SMTP(*self._smtp, timeout=SMTP_S) as server:
            server.send_message(message)
        return f"sent to {to}"


def _newest(box: mailbox.Maildir) -> list[tuple[float, Message]]:
    return sorted(((message.get_date(), message) for message in box), key=lambda pair: -pair[0])


def _mail(message: Message) -> Mail:
    parsed: Any = message_from_bytes(message.as_bytes(), policy=default)
    body = parsed.get_body(("plain",))
    text = body.get_content() if body is not None else ""
    return Mail(str(parsed["From"]), str(parsed["Date"]), str(parsed["Subject"]), text.strip()[:TEXT])


def _whole(mail: Mail) -> str:
    return f"{mail.sender} {mail.subject} {mail.text}".lower()


def main(config: Path) -> None:
    """Serve until told to stop."""
    settings = yaml.safe_load(config.read_text("utf-8"))
    mail = settings["mail"]
    module = Module("office")
    module.register_service(CalendarService(config.parent / settings["calendar"]), name="calendar")
    module.register_service(
        MailService(
            address=mail["address"], maildir=config.parent / mail["maildir"], host=mail["smtp"], port=mail["port"]
        ),
        name="mail",
    )
    module.start()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
