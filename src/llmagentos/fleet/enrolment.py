"""How machines become nodes and prove it: join tokens, certificates, short-lived tokens, and what modules get.

A machine joins once, with a join token and a request for a certificate. From then on it proves that it holds the
key of a certificate that counts (an assertion), and gets a token for an hour. Where the server speaks TLS itself
the token works only on connections that present that certificate (RFC 8705).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Awaitable, Callable

from llmagentos.api.nodes import (
    Cloned,
    Facts,
    Grant,
    Join,
    Joined,
    NodeRevoked,
    NodeToken,
    NotAllowed,
    Renewed,
    Superseded,
    Trouble,
)
from llmagentos.core import log
from llmagentos.core.clock import Clock
from llmagentos.core.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from llmagentos.core.events import Hub
from llmagentos.fleet.job_news import GONE
from llmagentos.fleet.presence import Presence
from llmagentos.kernel.clones import Seen, Verdict, judge
from llmagentos.security import assertions
from llmagentos.security.assertions import Assertion
from llmagentos.security.certificates import Certificate, CertificateAuthority, public_key
from llmagentos.security.identity import Identity, Kind
from llmagentos.storage.certificates import CertificateRecord, CertificateRecords
from llmagentos.storage.nodes import NodeRecord, NodeRecords
from llmagentos.storage.tokens import Scope, TokenRecord, TokenRecords

RESERVED = frozenset({"self", "join", "all", "ungrouped", "localhost"})
TOKEN_S = 3600.0
"""Life of a node's token; it gets the next one at half of it."""
RETRY_S = 10.0
MAX_MODULES = 256
"""Modules of one node that may have tokens, and grants."""
TOKENS_PER_MODULE = 2
"""The newest tokens of a module on one node that stay good: the running one's and its successor's."""

_log = log.get(__name__)


class Enrolment:
    """Nodes' identities. `forget_tokens` makes revoked tokens useless at once; certificates are good for `days`.

    `placed` names the job that put a module on a node.
    """

    def __init__(
        self,
        records: NodeRecords,
        certificates: CertificateRecords,
        tokens: TokenRecords,
        ca: CertificateAuthority,
        presence: Presence,
        hub: Hub,
        clock: Clock,
        *,
        days: float,
        forget_tokens: Callable[[], None],
        placed: Callable[[str, str], Awaitable[str | None]],
    ) -> None:
        self._records = records
        self._certificates = certificates
        self._tokens = tokens
        self._ca = ca
        self._presence = presence
        self._hub = hub
        self._clock = clock
        self._days = days
        self._forget_tokens = forget_tokens
        self._placed = placed

    async def join(self, identity: Identity, request: Join) -> Joined:
        """A machine becomes a node. Raises `Conflict` when the name is taken; a join token is then still good."""
        if request.name in RESERVED:
            raise InvalidInput(f"a node cannot be called {request.name!r}: the API and inventories use that word")
        known = await self._records.find(request.name)
        if known is not None and known.revoked is None and known.seen != known.joined:
            raise Conflict(
                f"there is a node {request.name!r} already",
                hint=f"join under another name, or `llmctl node revoke {request.name}` (or remove) first",
            )
        certificate = self._certify(request.csr, request.name)
        if known is not None and (before := await self._unheard(known, certificate)) is not None:
            secret, made = await self._token(before, by=str(identity))
            return await self._answer(known.joined, before, secret, made)
        scope = await self._use(identity)
        joined = await self._enter(known, request, scope)
        if known is not None:
            await self._end_tokens(request.name)
            await self._certificates.revoke(request.name)
        if scope.modules:
            await self._records.grant(request.name, scope.modules, by=str(identity), most=MAX_MODULES)
        await self._certificates.add(certificate)
        secret, made = await self._token(certificate, by=str(identity))
        answer = await self._answer(joined, certificate, secret, made)
        self._hub.publish("nodes", request.name)
        _log.info("node joined", node=request.name, hostname=request.hostname, certificate=certificate.serial)
        return answer

    async def _unheard(self, known: NodeRecord, asked: Certificate) -> Certificate | None:
        """What the node got when it joined, if it asks with the same key again because that answer was lost.

        That takes no further use of its join token: whoever signs with that key is who the certificate was made for.
        """
        if known.revoked is not None or known.seen != known.joined:
            return None
        before = await self._certificates.newest(known.name)
        if before is None or not before.good(self._clock.time()):
            return None
        same = public_key(before.certificate.pem) == public_key(asked.pem)
        return before.certificate if same else None

    async def _answer(self, joined: float, certificate: Certificate, secret: str, made: TokenRecord) -> Joined:
        name = certificate.node
        if not await self._stands(name, joined):
            await self._take_back(name, certificate=certificate.serial, token=made.id)
            raise _taken(name)
        self._presence.heard(name, joined)
        return Joined(name, secret, TOKEN_S, certificate.pem)

    async def _enter(self, known: NodeRecord | None, request: Join, scope: Scope) -> float:
        """The record of a node that joins; when it joined. Of several that try one gets through, or one after another.

        Raises `Conflict`.
        """
        facts = Facts(hostname=request.hostname, version=request.version)
        if known is not None and known.revoked is not None:
            joined = await self._records.rejoin(request.name, facts, place=request.place)
        # Else one that is known joined, but its answer never arrived: nothing was ever heard from it.
        elif known is not None and not await self._records.remove(request.name, joined=known.joined):
            joined = None
        else:
            joined = await self._records.add(request.name, facts, place=request.place, labels=scope.labels)
        if joined is None:
            raise _taken(request.name)
        return joined

    async def _stands(self, name: str, joined: float) -> bool:
        """Whether the node still is the one that `joined` then.

        Who ends an identity says so in the node's record first, and then ends what was made of it. So what is made
        while that happens is either found there, or taken back here.
        """
        record = await self._records.find(name)
        return record is not None and record.revoked is None and record.joined == joined

    async def _take_back(self, name: str, *, certificate: str | None = None, token: str | None = None) -> None:
        if certificate is not None:
            await self._certificates.revoke(name, serial=certificate)
        if token is not None:
            await self._tokens.revoke(token)
            self._forget_tokens()

    async def _use(self, identity: Identity) -> Scope:
        if identity.kind is not Kind.JOIN:
            return Scope()
        scope = await self._tokens.consume(str(identity.token_id))
        if scope is None:
            raise Unauthenticated("this join token was used already", hint="`llmctl token create` makes another")
        return scope

    def _certify(self, csr: str, name: str) -> Certificate:
        return self._ca.certify(csr, name, days=self._days, now=self._clock.time())

    async def _token(self, certificate: Certificate, *, by: str) -> tuple[str, TokenRecord]:
        return await self._tokens.create(
            Kind.NODE, certificate.node, by=by, ttl=TOKEN_S, binding=certificate.thumbprint
        )

    # --- proofs -------------------------------------------------------------------------------

    async def identify(self, token: str) -> Identity | None:
        """Whose assertion `token` is; None when it is none. Raises `Unauthenticated` for one that does not count."""
        if assertions.serial_of(token) is None:
            return None
        assertion, _ = await self._verify(token)
        return Identity(Kind.NODE_KEY, assertion.node, assertion.serial)

    async def _verify(self, token: str) -> tuple[Assertion, CertificateRecord]:
        serial = assertions.serial_of(token)
        found = await self._certificates.find(serial) if serial is not None else None
        if found is None:
            raise Unauthenticated("the assertion names a certificate that is not known here", hint=_AGAIN)
        mine, now = found.certificate, self._clock.time()
        # First whether it is the node at all: only then it is told more.
        assertion = assertions.verify(token, serial=mine.serial, node=mine.node, certificate=mine.pem, now=now)
        if found.revoked is not None:
            raise NodeRevoked(f"the certificate of node {mine.node!r} was revoked", hint=_AGAIN)
        if not found.good(now):
            raise NodeRevoked(f"the certificate of node {mine.node!r} has expired", hint=_AGAIN)
        return assertion, found

    async def exchange(self, token: str) -> NodeToken:
        """A token for an assertion. Raises `Cloned` or `Superseded` for a machine that is a copy of the node."""
        assertion, found = await self._verify(token)
        name = assertion.node
        record = await self._records.find(name)
        if record is None:
            raise removed(name)
        await self._require_first(record, assertion)
        await self._certificates.supersede(found.certificate)
        await self._tokens.revoke_subject(Kind.NODE, name, keep=1)  # what the node does right now still counts
        secret, made = await self._token(found.certificate, by=f"certificate:{assertion.serial}")
        if not await self._stands(name, record.joined):
            await self._take_back(name, token=made.id)
            raise _ended(name)
        return NodeToken(secret, TOKEN_S)

    async def _require_first(self, record: NodeRecord, assertion: Assertion) -> None:
        name = record.name
        seen = Seen(record.place, record.counter, not self._presence.away(name))
        verdict = judge(seen, place=assertion.place, counter=assertion.counter)
        if verdict is Verdict.ACCEPTED and not await self._records.spoke(
            name, place=assertion.place, counter=assertion.counter
        ):
            verdict = Verdict.SUPERSEDED
        if verdict is Verdict.ACCEPTED:
            return
        what = f"another machine used the identity of {name!r}, and was refused"
        if record.trouble is None or record.trouble.message != what or self._clock.time() - record.trouble.at > RETRY_S:
            await self._records.set_trouble(name, Trouble(self._clock.time(), what))
            self._hub.publish("nodes", name)
            _log.warning("node's identity used twice", node=name, verdict=verdict.name)
        if verdict is Verdict.ELSEWHERE:
            raise Cloned(
                f"the node {name!r} answers from another machine (or from before a restart); this one is refused",
                hint=f"is this a copy of {name!r}? Delete its node state and join it under another name",
                retry_after=RETRY_S,
            )
        raise Superseded(
            f"another machine with the identity of node {name!r} has spoken to the server since: this one is a copy",
            hint="delete this machine's node state and join it under another name (or revoke the other one)",
        )

    async def renew(self, name: str, csr: str) -> Renewed:
        """A certificate for a new key. The old one counts until the new one is used."""
        record = await self._records.find(name)
        if record is None:
            raise removed(name)
        certificate = self._certify(csr, name)
        await self._certificates.add(certificate)
        if not await self._stands(name, record.joined):
            await self._take_back(name, certificate=certificate.serial)
            raise _ended(name)
        self._hub.publish("nodes", name)
        _log.info("node's certificate renewed", node=name, certificate=certificate.serial)
        return Renewed(certificate.pem)

    async def revoke(self, name: str) -> None:
        """End a node's identity at once: certificates, tokens, and those of its modules. Raises `NotFound`."""
        if not await self._records.revoke(name):
            raise NotFound(f"there is no node {name!r}", hint="`llmctl nodes` lists them")
        await self._certificates.revoke(name)
        await self._end_tokens(name)
        self._presence.forget(name)
        self._hub.publish("nodes", name)
        _log.warning("node revoked", node=name)

    async def forget(self, name: str) -> None:
        """The node was removed."""
        await self._certificates.forget(name)
        await self._end_tokens(name)

    async def _end_tokens(self, name: str) -> None:
        await self._tokens.revoke_subject(Kind.NODE, name)
        await self._tokens.revoke_made_by(_by(name))
        self._forget_tokens()
        self._hub.publish(f"queue:{name}", GONE)  # what was asked with those tokens and waits

    async def newest(self, name: str) -> CertificateRecord | None:
        """The certificate that a node got last."""
        return await self._certificates.newest(name)

    # --- modules ------------------------------------------------------------------------------

    async def module_token(self, node: str, module: str) -> str:
        """A token of kind module for a unit on `node`; older ones of the same unit end. Raises `NotAllowed`."""
        record = await self._records.find(node)
        if record is None:
            raise removed(node)
        if not await self._may_run(node, module):
            raise NotAllowed(
                f"node {node!r} may not have a token for module {module!r}: no playbook that was run for it puts"
                " this module there, and nobody allowed it",
                hint=f"llmctl node allow {node} {module}",
            )
        if not await self._records.used_module(node, module, most=MAX_MODULES):
            raise Conflict(f"node {node!r} has tokens for {MAX_MODULES} modules: no more", limit=MAX_MODULES)
        token, made = await self._tokens.create(Kind.MODULE, module, by=_by(node))
        if not await self._stands(node, record.joined):
            await self._take_back(node, token=made.id)
            raise _ended(node)
        await self._tokens.revoke_made_by(_by(node), subject=module, keep=TOKENS_PER_MODULE)
        self._forget_tokens()
        return token

    async def _may_run(self, node: str, module: str) -> bool:
        if any(fnmatch.fnmatchcase(module, grant.pattern) for grant in await self._records.grants(node)):
            return True
        by = await self._placed(node, module)
        if by is None:
            return False
        await self.allow(node, module, by)
        _log.info("module allowed on node", node=node, module=module, by=by)
        return True

    async def allow(self, node: str, pattern: str, by: str) -> None:
        """Let `node` have tokens for modules that `pattern` matches. Raises `Conflict` for too many."""
        if not await self._records.grant(node, [pattern], by=by, most=MAX_MODULES):
            raise Conflict(f"node {node!r} has {MAX_MODULES} grants: no more", limit=MAX_MODULES)
        self._hub.publish("nodes", node)

    async def deny(self, node: str, pattern: str) -> None:
        """Take a grant back; tokens of modules that no other grant covers end. Raises `NotFound`."""
        if not await self._records.deny(node, pattern):
            raise NotFound(f"node {node!r} has no grant {pattern!r}", hint=f"`llmctl node show {node}` lists them")
        left = await self._records.grants(node)
        for module in await self._records.modules(node):
            if not any(fnmatch.fnmatchcase(module, grant.pattern) for grant in left):
                await self._tokens.revoke_made_by(_by(node), subject=module)
        self._forget_tokens()
        self._hub.publish("nodes", node)

    async def grants(self, node: str) -> list[Grant]:
        """What a node may have tokens for."""
        return await self._records.grants(node)

    async def prune(self) -> None:
        """Delete certificates that ended long ago."""
        await self._certificates.prune()


_AGAIN = "`llmctl node join` again with a new join token"


def removed(name: str) -> Unauthenticated:
    """What a node that is no more is told."""
    return Unauthenticated(f"node {name!r} was removed", hint=_AGAIN)


def _ended(name: str) -> Unauthenticated:
    """What a node is told whose identity ended while it asked."""
    return NodeRevoked(f"the identity of node {name!r} was ended", hint=_AGAIN)


def _taken(name: str) -> Conflict:
    return Conflict(f"another machine just joined as {name!r}", hint="join under another name")


def _by(node: str) -> str:
    return f"node:{node}"
