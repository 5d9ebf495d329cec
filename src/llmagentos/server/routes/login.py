"""Into the console and out of it: the login form, one-time links, and the assets that the form needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from llmagentos.api.console import LoginLink
from llmagentos.core import log
from llmagentos.core.errors import CallerError, Forbidden, LLMAgentOSError, Unauthenticated
from llmagentos.security.identity import Identity, Permission
from llmagentos.server.auth import Authenticator
from llmagentos.server.console.forms import fields_of
from llmagentos.server.console.login import LINK_TTL_S, Attempts, LoginLinks, safe_next
from llmagentos.server.console.render import HEADERS, Pages, language_choice, static_file, translation
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.respond import Errors, Responder, known, read_bounded

MAX_FORM = 16 * 1024
Answer = Callable[[Request], Awaitable[Response]]

_log = log.get(__name__)


def links(made: LoginLinks) -> list[Endpoint]:
    """The API's way to a login link."""

    async def create(call: Call) -> LoginLink:
        return LoginLink(f"/login?{urlencode({'code': made.create(call.identity)})}", LINK_TTL_S)

    return [
        Endpoint(
            "POST",
            "/api/v1/login-links",
            Permission.SYSTEM_READ,
            create,
            returns=LoginLink,
            summary="A link that logs its holder in to the console once",
            audited=True,
        )
    ]


def logout(authenticator: Authenticator) -> Endpoint:
    """The way out."""

    async def leave(call: Call) -> Response:
        response = RedirectResponse("/login", 303, headers=HEADERS)
        await authenticator.close_session(call.request, response)
        _log.info("console logout", identity=str(call.identity))
        return response

    return Endpoint("POST", "/logout", Permission.SYSTEM_READ, leave)


class Login:
    """The login form. `holds(token id)` says whether the token behind a link is still good."""

    def __init__(
        self,
        pages: Pages,
        authenticator: Authenticator,
        made: LoginLinks,
        attempts: Attempts,
        holds: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._pages = pages
        self._authenticator = authenticator
        self._links = made
        self._attempts = attempts
        self._holds = holds

    async def show(self, request: Request) -> Response:
        """The form, or the one button of a link; who has a session goes on."""
        if choice := language_choice(request):
            return choice
        code, target = request.query_params.get("code", ""), safe_next(request.query_params.get("next"))
        identity = await self._authenticator.identify(request, "GET")
        if identity is not None and not code and identity.may(Permission.SYSTEM_READ):
            return RedirectResponse(target, 303, headers=HEADERS)
        return self._form(request, target, code=code[:200])

    async def enter(self, request: Request) -> Response:
        """Open a session for a token or a link's code."""
        _require_same_origin(request)
        form = fields_of(await read_bounded(request, MAX_FORM))
        target = safe_next(form.get("next"))
        client = request.client.host if request.client is not None else ""
        try:
            self._attempts.check(client)
            identity = await self._who(request, form)
        except CallerError as error:
            if isinstance(error, Unauthenticated | Forbidden):
                self._attempts.failed(client)
            _log.warning("console login refused", client=client, reason=error.message)
            return self._form(request, target, error=error)
        response = RedirectResponse(target, 303, headers=HEADERS)
        await self._authenticator.open_session(identity, response, secure=request.url.scheme == "https")
        _log.info("console login", identity=str(identity), client=client)
        return response

    async def _who(self, request: Request, form: Mapping[str, str]) -> Identity:
        t = translation(request)
        if code := form.get("code"):
            identity = self._links.redeem(code)
            if identity is None or (identity.token_id is not None and not await self._holds(identity.token_id)):
                hint = t("`llmctl console` makes a new one.")
                raise Unauthenticated(t("This link was used already, or it is too old"), hint=hint)
            return identity
        identity = await self._authenticator.bearer(form.get("token", "").strip())
        if identity is None:
            hint = t("It may be mistyped, revoked or expired.")
            raise Unauthenticated(t("This token is not valid"), hint=hint)
        if not identity.may(Permission.SYSTEM_READ):
            hint = t("Log in with the token of an administrator, operator or viewer.")
            raise Forbidden(t("This token is for a program, not for people"), hint=hint)
        return identity

    def _form(self, request: Request, target: str, *, code: str = "", error: CallerError | None = None) -> Response:
        return self._pages.page(request, None, "login.html", code=code, next=target, error=error)


def _require_same_origin(request: Request) -> None:
    """No other page may log a person in to an account that is not theirs."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise Forbidden(f"a login must come from the console, not from {origin!r}")


def routes(login: Login, responder: Responder, errors: Errors) -> list[BaseRoute]:
    """What answers without an identity: the form, and the assets of pages."""

    async def static(request: Request) -> Response:
        return static_file(request.path_params["path"])

    return [
        Route("/login", Open({"GET": login.show, "POST": login.enter}, responder, errors)),
        Route("/static/{path:path}", Open({"GET": static}, responder, errors)),
    ]


class Open:
    """One path whose `methods` need no identity; for any other method one is asked for."""

    def __init__(self, methods: Mapping[str, Answer], responder: Responder, errors: Errors) -> None:
        self._methods = methods
        self._responder = responder
        self._errors = errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        answer = self._methods.get("GET" if request.method == "HEAD" else request.method)
        if answer is None:
            response = await self._responder.respond(request, None, allowed=tuple(self._methods))
        else:
            response = await self._answered(request, answer)
        await response(scope, receive, send)

    async def _answered(self, request: Request, answer: Answer) -> Response:
        try:
            return await answer(request)
        except LLMAgentOSError as error:
            return self._errors(request, error, None)
        except Exception as error:  # nothing may escape as a traceback
            return self._errors(request, known(error), None)
