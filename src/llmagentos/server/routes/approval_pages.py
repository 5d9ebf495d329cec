"""The console's page of tool calls and jobs that wait for a person, and the answers."""

from __future__ import annotations

from starlette.responses import Response

from llmagentos.agents import veiling
from llmagentos.core.errors import CallerError, Conflict, Forbidden, InvalidInput
from llmagentos.security.identity import Permission
from llmagentos.server.console.forms import form_of, see_other
from llmagentos.server.console.render import Pages, language_choice, translation
from llmagentos.server.console.sources import Sources
from llmagentos.server.console.views import approvals
from llmagentos.server.endpoint import Call, Endpoint

MAX_FORM = 16 * 1024
MAX_SHOWN = 200


def endpoints(sources: Sources, pages: Pages) -> list[Endpoint]:
    """`GET /approvals` and what its buttons do."""

    async def show(call: Call, error: CallerError | None = None) -> Response:
        asked = [veiling.asked(each, call.identity) for each in sources.approvals()[:MAX_SHOWN]]
        waiting = approvals.rows(asked, translation(call.request))
        return language_choice(call.request) or pages.page(
            call.request,
            call.identity,
            "approvals.html",
            section="approvals",
            topics="topic=approvals&topic=runs",
            waiting=waiting,
            error=error,
        )

    async def answer(call: Call) -> Response:
        form = {name: values[0] for name, values in form_of(call.body).items()}
        wanted = form.get("answer")
        if wanted not in ("approve", "deny"):
            raise InvalidInput(f"the answer is approve or deny, not {wanted!r}")
        act = sources.approve if wanted == "approve" else sources.deny
        try:
            await act(call.path["id"], call.identity, form.get("reason", "").strip()[:2000] or None)
        except (Conflict, Forbidden) as error:  # somebody else was first, or has to say it
            return await show(call, error)
        return see_other(_back(form.get("back", "")))

    return [
        Endpoint("GET", "/approvals", Permission.RUNS_READ, show),
        Endpoint(
            "POST", "/approvals/{id}", Permission.RUNS_APPROVE, answer, body=bytes, max_body=MAX_FORM, audited=True
        ),
    ]


def _back(path: str) -> str:
    """A page of the console to go back to: nowhere else."""
    known = path.startswith("/runs/") and path[6:].isalnum()
    return path if known else "/approvals"
