"""What agents use of other systems: MCP servers and remote A2A agents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from llmagentos.core.config.values import FilePath, SecretRef, Url

Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class McpServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An MCP server: a program that the server starts (`command`, stdio) or an address (`url`, streamable HTTP)."""

    command: Annotated[list[str], Meta(max_length=100, description="Program and arguments, spoken to over stdio")] = []
    env: Annotated[
        dict[str, str | SecretRef],
        Meta(description="Environment of the program, beside PATH, HOME, LANG and TZ; nothing else is handed on"),
    ] = {}
    workdir: Annotated[
        FilePath | None, Meta(description="Working directory of the program; without it an empty one of its own")
    ] = None
    url: Annotated[Url | None, Meta(description="Address of a server that speaks streamable HTTP")] = None
    token: Annotated[SecretRef | None, Meta(description="Bearer token for `url`")] = None
    connect_s: Annotated[Seconds, Meta(description="Longest wait for the server to start and answer")] = 30.0
    timeout_s: Annotated[Seconds, Meta(description="Longest wait for the result of one call")] = 60.0

    def __post_init__(self) -> None:
        if bool(self.command) == (self.url is not None):
            raise ValueError("expected exactly one of command and url")
        if self.url is not None and (self.env or self.workdir):
            raise ValueError("env and workdir are for a command")
        if self.command and self.token is not None:
            raise ValueError("token is for a url; a program takes secrets from env")

    @property
    def secrets(self) -> list[SecretRef]:
        """The references that have to be there."""
        given = [value for value in self.env.values() if isinstance(value, SecretRef)]
        return [*given, *([self.token] if self.token else [])]

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """`base` with the program's own variables. Raises `ConfigError` for a secret that is not there."""
        own = {name: value.read() if isinstance(value, SecretRef) else value for name, value in self.env.items()}
        return {**base, **own}


class A2aAgent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An agent of another system that speaks A2A."""

    url: Annotated[Url, Meta(description="Where its card is: the origin, or the card's own address")]
    token: Annotated[SecretRef | None, Meta(description="Bearer token for the card and the agent")] = None
    timeout_s: Annotated[Seconds, Meta(description="Longest wait for one request to it, not for its task")] = 60.0

    @property
    def secrets(self) -> list[SecretRef]:
        """The references that have to be there."""
        return [self.token] if self.token else []
