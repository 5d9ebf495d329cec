"""What stands between agents and their tools: whose runs may use which, and people who agree to single calls."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from llmagentos.core.config.values import SecretRef, Url

Pattern = Annotated[str, Meta(min_length=1, max_length=200)]


class Tools(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What no agent may do, whatever its own definition says."""

    deny: Annotated[
        dict[Pattern, list[Pattern]],
        Meta(
            description="Tools that the runs of a caller may not call; both may have wildcards, e.g. "
            "`viewer:*: [shop.*]`. A run that another run asked for counts as that one's caller's"
        ),
    ] = {}
    modules: Annotated[
        dict[Pattern, list[Pattern]],
        Meta(
            description="What the agents of a module with a token of its own may use of the server's, by the module's "
            "name, e.g. `shop: [mcp:files, agent:*, playbook:restart-web.yml]`; without it nothing. Both may have "
            "wildcards"
        ),
    ] = {}


class Webhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where calls and jobs that wait are told, at least once each, until it answers 2xx."""

    url: Annotated[Url, Meta(description="Gets a POST with a JSON object for each call or job that waits")]
    token: Annotated[SecretRef | None, Meta(description="Bearer token for it")] = None
    timeout_s: Annotated[float, Meta(gt=0, le=300, description="Longest wait for its answer")] = 10.0
    attempts: Annotated[
        int,
        Meta(ge=1, le=1000, description="Tries for one call, 1 s to 5 min apart; then the log says it was given up"),
    ] = 30


class Approvals(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tool calls and jobs that a person has to agree to (`approval: required`)."""

    timeout_s: Annotated[
        float, Meta(gt=0, le=31_536_000, description="A call that nobody answered for so long is denied")
    ] = 86_400.0
    jobs_timeout_s: Annotated[
        float, Meta(gt=0, le=31_536_000, description="A job that nobody approved for so long is given up: cancelled")
    ] = 604_800.0
    own_jobs: Annotated[
        bool,
        Meta(
            description="Whether whoever submitted a job may approve it, when the job names no `approvers`; otherwise "
            "somebody else has to"
        ),
    ] = False
    webhook: Webhook | None = None
