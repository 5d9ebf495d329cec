"""What browsers send with a form, and where they go after it."""

from __future__ import annotations

from urllib.parse import parse_qs, quote, urlencode

from starlette.responses import RedirectResponse, Response

from llmagentos.server.console.render import HEADERS

MAX_FIELDS = 700


def form_of(body: bytes) -> dict[str, list[str]]:
    """The fields of a form, as the browser sends them."""
    try:
        return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:  # more fields than any survey has
        return {}


def fields_of(body: bytes) -> dict[str, str]:
    """The fields of a form that has each of them once; of several of one name the first."""
    return {name: values[0] for name, values in form_of(body).items()}


def see_other(path: str, **query: str) -> Response:
    """On to the page `path`, whose parts may be any text."""
    target = quote(path, safe="/") + (f"?{urlencode(query)}" if query else "")
    return RedirectResponse(target, 303, headers=HEADERS)
