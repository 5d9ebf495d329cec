"""Pages out of templates: language, theme, navigation and the headers that keep a page to itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache, partial
from importlib import resources
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from llmagentos.core.clock import Clock
from llmagentos.core.errors import LLMAgentOSError, NotFound
from llmagentos.core.i18n import LANGUAGES, preferred, translate
from llmagentos.security.identity import Identity, Permission
from llmagentos.server.console import words
from llmagentos.server.console.spoken import told

LANGUAGE_COOKIE = "llmagentos_lang"
THEME_COOKIE = "llmagentos_theme"
STYLESHEETS = (
    "theme.css",
    "layout.css",
    "components.css",
    "tables.css",
    "forms.css",
    "timeline.css",
    "charts.css",
    "pages.css",
)

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


class Pages:
    """Renders templates for a request."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._environment = environment()

    def page(
        self,
        request: Request,
        identity: Identity | None,
        template: str,
        *,
        section: str = "",
        topics: str = "",
        every: int = 0,
        error: LLMAgentOSError | None = None,
        **context: Any,
    ) -> HTMLResponse:
        """`template` as a whole page, or as its live part alone when htmx asks for it.

        `topics` is the query of the feed that keeps the page live; `every` so many seconds it is also read anew, for
        what no topic tells of. A page with neither stands still, and so does one that shows an `error`: what it answers
        cannot be read anew.
        """
        language = language_of(request)
        t = translation(request)
        partly = "HX-Request" in request.headers
        content = self._environment.get_template(template).render(
            **context,
            error=told(error, t) if error is not None else None,
            layout="fragment.html" if partly else "base.html",
            t=t,
            language=language,
            theme=_theme(request),
            identity=identity,
            may=_may(identity),
            now=self._clock.time(),
            section=section,
            topics=topics if error is None else "",
            every=every if error is None else 0,
            here=_here(request),
            in_language=partial(_in_language, request),
            navigation=words.navigation(t),
            states=words.states(t),
            kinds=words.kinds(t),
        )
        return HTMLResponse(content, error.status if error is not None else 200, headers=HEADERS)


def environment() -> jinja2.Environment:
    """The templates' environment: everything is escaped, an unknown name is an error."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("llmagentos.server.console"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(static=static_url, stylesheets=STYLESHEETS)
    made.filters.update(
        iso=iso, utc=utc, duration=words.duration, ticks=ticks, bytes=words.size, number=words.number, json=words.pretty
    )
    return made


def translation(request: Request) -> words.Translate:
    """English text to the language of `request`."""
    return partial(translate, language_of(request))


def language_choice(request: Request) -> Response | None:
    """For a page asked for with `?lang=`: remember the language and send the browser to the page itself."""
    chosen = request.query_params.get("lang")
    if request.method != "GET" or chosen not in LANGUAGES:
        return None
    response = Response(status_code=303, headers=HEADERS | {"Location": _here(request)})
    response.set_cookie(LANGUAGE_COOKIE, chosen, max_age=31_536_000, samesite="lax", path="/")
    return response


def _here(request: Request, **query: str) -> str:
    """The path and query of the page, without a choice of language but with `query`."""
    pairs = [(name, value) for name, value in request.query_params.multi_items() if name != "lang"]
    text = urlencode([*pairs, *query.items()])
    return quote(request.url.path) + (f"?{text}" if text else "")


def _in_language(request: Request, language: str) -> str:
    """Where this page is in another language: what answered a form has no address of its own."""
    return _here(request, lang=language) if request.method == "GET" else f"/?lang={language}"


def language_of(request: Request) -> str:
    """The language chosen by cookie, else the browser's."""
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    return chosen if chosen in LANGUAGES else preferred(request.headers.get("Accept-Language", ""))


def _theme(request: Request) -> str:
    chosen = request.cookies.get(THEME_COOKIE, "")
    return chosen if chosen in ("light", "dark") else ""


def _may(identity: Identity | None) -> Callable[[str], bool]:
    return lambda permission: identity is not None and identity.may(Permission(permission))


def ticks(text: str) -> Markup:
    """`text` with what stands between backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one has no other
        return escape(text)
    made = [Markup("<code>{}</code>").format(part) if number % 2 else escape(part) for number, part in enumerate(parts)]
    return Markup("").join(made)


def iso(at: float) -> str:
    """Seconds since the epoch as RFC 3339, for the `datetime` attribute."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc(at: float) -> str:
    """The same for people whose browser runs no script."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


@cache
def _static() -> Mapping[str, tuple[bytes, str]]:
    root = resources.files("llmagentos.server.console").joinpath("static")
    files = {entry.name: entry for entry in root.iterdir()} | {
        f"vendor/{entry.name}": entry for entry in root.joinpath("vendor").iterdir()
    }
    contents = {name: file.read_bytes() for name, file in files.items() if name.split(".")[-1] in _TYPES}
    return {name: (content, hashlib.sha256(content).hexdigest()[:12]) for name, content in contents.items()}


def static_url(name: str) -> str:
    """Where `name` is served; the digest changes with the content, so browsers may keep it for good."""
    return f"/static/{name}?v={_static()[name][1]}"


def static_file(name: str) -> Response:
    """An asset of the package. Raises `NotFound` for anything else."""
    try:
        content, _ = _static()[name]
    except KeyError:
        raise NotFound(f"no static file {name!r}") from None
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(content, media_type=_TYPES[name.split(".")[-1]], headers=headers)
