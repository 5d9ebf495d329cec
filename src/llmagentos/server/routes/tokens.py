"""Tokens: made, listed, revoked; tokens for service calls; the keys that verify those."""

from __future__ import annotations

from llmagentos.api.tokens import Keys, NewToken, ServiceToken, ServiceTokenRequest, TokenInfo, TokenRequest
from llmagentos.core.errors import InvalidInput, NotFound
from llmagentos.security.identity import Identity, Kind, Permission
from llmagentos.security.service_tokens import TTL_S, ServiceTokenIssuer, module_audience, service_audience
from llmagentos.server.auth import Authenticator
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.storage.tokens import Scope, TokenRecord, TokenRecords

JOIN_TTL_S = 3600.0
SHARED_JOIN_TTL_S = 7 * 86_400.0
"""The longest life of a join token for more than one machine: it lies around in more places."""


def endpoints(records: TokenRecords, authenticator: Authenticator, issuer: ServiceTokenIssuer) -> list[Endpoint]:
    """`records` hold the tokens, `authenticator` forgets revoked ones, `issuer` signs service tokens."""

    async def create(call: Call) -> NewToken:
        secret, record = await _made(records, call.body, str(call.identity))
        return NewToken(secret, _info(record))

    async def listing(_: Call) -> list[TokenInfo]:
        return [_info(record) for record in await records.all()]

    async def revoke(call: Call) -> None:
        if not await authenticator.revoke(call.path["id"]):
            raise NotFound(f"there is no token {call.path['id']!r}", hint="`llmctl token list` shows them")

    async def service_token(call: Call) -> ServiceToken:
        return issue_service_token(issuer, call.identity, call.body)

    async def keys(_: Call) -> Keys:
        return Keys(issuer.jwks()["keys"])

    write = Permission.TOKENS_WRITE
    return [
        Endpoint(
            "POST",
            "/api/v1/tokens",
            write,
            create,
            body=TokenRequest,
            returns=NewToken,
            summary="Make a token",
            audited=True,
        ),
        Endpoint(
            "GET", "/api/v1/tokens", write, listing, returns=list[TokenInfo], summary="List tokens, without secrets"
        ),
        Endpoint("DELETE", "/api/v1/tokens/{id}", write, revoke, summary="Revoke a token", audited=True),
        Endpoint(
            "POST",
            "/api/v1/service-tokens",
            Permission.SERVICES_CALL,
            service_token,
            body=ServiceTokenRequest,
            returns=ServiceToken,
            summary="Get a short-lived token for one service",
        ),
        Endpoint(
            "GET",
            "/api/v1/keys",
            Permission.REGISTRY_READ,
            keys,
            returns=Keys,
            summary="Public keys that verify service tokens",
        ),
    ]


async def _made(records: TokenRecords, request: TokenRequest, by: str) -> tuple[str, TokenRecord]:
    kind = _kind(request.kind)
    joins = kind is Kind.JOIN
    _check_join(request, joins)
    return await records.create(
        kind,
        request.name,
        by=by,
        ttl=request.ttl_s if request.ttl_s is not None or not joins else JOIN_TTL_S,
        one_time=joins,
        uses=request.uses,
        scope=Scope(request.modules, request.labels) if joins else None,
    )


def issue_service_token(issuer: ServiceTokenIssuer, identity: Identity, request: ServiceTokenRequest) -> ServiceToken:
    """A token for the service or module that `request` names. Raises `InvalidInput` unless it names exactly one."""
    if (request.service is None) == (request.module is None):
        raise InvalidInput("name either a service or a module")
    audience = service_audience(request.service) if request.service else module_audience(str(request.module))
    return ServiceToken(issuer.issue(identity, audience), TTL_S)


def _check_join(request: TokenRequest, joins: bool) -> None:
    if not joins and (request.uses != 1 or request.modules or request.labels):
        raise InvalidInput("uses, modules and labels are for tokens of kind join")
    if request.uses > 1 and (request.ttl_s or 0.0) > SHARED_JOIN_TTL_S:
        raise InvalidInput(
            f"a join token for {request.uses} machines may live for {SHARED_JOIN_TTL_S / 86400:g} days at most",
            hint="make another one when this one has expired",
        )


def _kind(text: str) -> Kind:
    offered = [kind.value for kind in Kind if kind not in (Kind.NODE, Kind.NODE_KEY, Kind.RUN)]
    if text not in offered:
        raise InvalidInput(
            f"cannot make a token of kind {text!r}: expected one of {', '.join(offered)}",
            hint="a node gets its token by joining with one of kind join",
        )
    return Kind(text)


def _info(record: TokenRecord) -> TokenInfo:
    return TokenInfo(
        record.id,
        record.kind.value,
        record.subject,
        record.created,
        record.created_by,
        record.expires,
        record.one_time,
        record.uses_left,
    )
