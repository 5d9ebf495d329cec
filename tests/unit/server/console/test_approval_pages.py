"""Answers to tool calls from the console: who may, where it leads, what the second of two people reads."""

from __future__ import annotations

from typing import Any

import pytest

from llmagentos.core.errors import Conflict, InvalidInput
from llmagentos.security.identity import Identity, Kind, Permission
from unit.server.console.test_pages import ask, endpoints, full, text

ANSWER = "/approvals/{id}"


def answering(told: list[Any], error: Exception | None = None) -> Any:
    async def answer(approval: str, identity: Identity, reason: str | None) -> None:
        told.append((approval, str(identity), reason))
        if error is not None:
            raise error

    return answer


@pytest.mark.parametrize(
    ("body", "kept", "leads_to"),
    [
        (b"answer=approve&back=/runs/r1&reason=", ("7", "admin:me", None), "/runs/r1"),
        (b"answer=deny&back=/approvals&reason=too+dear", ("7", "admin:me", "too dear"), "/approvals"),
        (b"answer=deny&back=https://elsewhere.example", ("7", "admin:me", None), "/approvals"),
        (b"answer=deny&back=//elsewhere.example/runs/r1", ("7", "admin:me", None), "/approvals"),
    ],
)
def test_an_answer_is_given_and_leads_back(body: bytes, kept: tuple[Any, ...], leads_to: str) -> None:
    approved: list[Any] = []
    denied: list[Any] = []
    sources = full(approve=answering(approved), deny=answering(denied))
    who = Identity(Kind.ADMIN, "me")
    response = ask(sources, ANSWER, method="POST", body=body, who=who)
    assert (response.status_code, response.headers["location"]) == (303, leads_to)
    assert (approved if b"approve" in body.split(b"&")[0] else denied) == [kept]
    assert len(approved) + len(denied) == 1


def test_the_second_of_two_people_reads_who_was_first() -> None:
    sources = full(approve=answering([], Conflict("r1.call-1 was already denied by operator:ada")))
    response = ask(sources, ANSWER, method="POST", body=b"answer=approve")
    assert response.status_code == 409
    assert "already denied by operator:ada" in text(response)


def test_there_are_two_answers() -> None:
    with pytest.raises(InvalidInput, match="approve or deny"):
        ask(full(), ANSWER, method="POST", body=b"answer=maybe")


def test_who_may_only_look_gets_no_buttons() -> None:
    assert endpoints(full())["POST", ANSWER].allow is Permission.RUNS_APPROVE
    page = text(ask(full(), "/approvals", who=Identity(Kind.VIEWER, "vera")))
    assert '<form class="answer-form"' not in page
    assert '<form class="answer-form"' in text(ask(full(), "/approvals"))
