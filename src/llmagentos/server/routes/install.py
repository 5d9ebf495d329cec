"""`GET /install.sh`: the one file beside the login page that is served to anybody.

It is static but for the address that it was asked at, and holds no secret: everything that it fetches needs the join
token. `curl -fsSL SERVER/install.sh | sh` could not send one.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PLACEHOLDER = "@SERVER@"
_HOST = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")


def route() -> Route:
    """The route; HEAD is answered as well."""
    return Route("/install.sh", _script, methods=["GET"])


async def _script(request: Request) -> Response:
    host = request.headers.get("host", "")
    # What goes into a shell script is one of a few characters; any other host has to be named with --server.
    origin = f"{request.url.scheme}://{host}" if _HOST.fullmatch(host) else ""
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(_text().replace(PLACEHOLDER, origin), headers=headers, media_type="text/x-shellscript")


@cache
def _text() -> str:
    return resources.files("llmagentos.server").joinpath("install", "install.sh").read_text("utf-8")
