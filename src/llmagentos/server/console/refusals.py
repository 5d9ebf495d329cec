"""Errors as pages: to the login form without a session, else what is wrong and what to do."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from llmagentos.core.errors import LLMAgentOSError, NotFound
from llmagentos.security.identity import Identity
from llmagentos.server.console.render import HEADERS, Pages, translation
from llmagentos.server.console.words import Translate
from llmagentos.server.respond import Errors, error_response

FEED = "/console/feed"


def as_page(pages: Pages) -> Errors:
    """Answers of errors on the console's own paths."""

    def answer(request: Request, error: LLMAgentOSError, identity: Identity | None) -> Response:
        if request.url.path == FEED:
            return error_response(request, error)
        if error.status == 401:
            return _to_login(request)
        title = _title(error, translation(request))
        return pages.page(request, identity, "error.html", title=title, error=error)

    return answer


def as_page_for_browsers(pages: Pages) -> Errors:
    """Answers for paths that nothing has: a page for a person who followed a link, else a problem document."""
    page = as_page(pages)

    def answer(request: Request, error: LLMAgentOSError, identity: Identity | None) -> Response:
        browser = "text/html" in request.headers.get("Accept", "")
        if browser and not request.url.path.startswith(("/api/", "/v1/")):
            shown = NotFound(error.message) if error.status == 404 else error  # its hint is for programs
            return page(request, shown, identity)
        return error_response(request, error)

    return answer


def _to_login(request: Request) -> Response:
    """The login form, and back here afterwards; a live part has its whole page go there."""
    partly = "HX-Request" in request.headers
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    target = "/login" if request.method not in ("GET", "HEAD") or here == "/" else f"/login?next={quote(here, safe='')}"
    if partly:
        return Response(status_code=401, headers=HEADERS | {"HX-Redirect": target})
    return Response(status_code=303, headers=HEADERS | {"Location": target})


def _title(error: LLMAgentOSError, t: Translate) -> str:
    match error.status:
        case 404:
            return t("Not found")
        case 403:
            return t("Not allowed")
        case status if status < 500:
            return t("This cannot be done")
        case _:
            return t("Something went wrong")
