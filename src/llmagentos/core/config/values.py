"""Values that many keys of the configuration have: names, paths, references to secrets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from llmagentos.core.discovery import read_secret
from llmagentos.core.errors import ConfigError

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Url = Annotated[str, Meta(pattern=r"^https?://[^\s]{1,500}$")]
FilePath = Annotated[str, Meta(extra={"path": True})]
"""A path; a relative one counts from the configuration file."""


class SecretRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a secret stands: `{env: NAME}` or `{file: PATH}`. The secret itself is never in the file."""

    env: Annotated[str | None, Meta(description="Name of the environment variable that holds the secret")] = None
    file: Annotated[FilePath | None, Meta(description="File with the secret on its one line")] = None

    def __post_init__(self) -> None:
        if (self.env is None) == (self.file is None):
            raise ValueError("expected exactly one of env and file")

    def read(self, environ: Mapping[str, str] | None = None) -> str:
        """The secret. Raises `ConfigError` when it is not there."""
        if self.file is not None:
            return read_secret(Path(self.file))
        assert self.env is not None
        found = (os.environ if environ is None else environ).get(self.env)
        if not found:
            raise ConfigError(
                f"the environment variable {self.env} is not set, but the configuration refers to it",
                hint=f"export {self.env}=... before `llmctl up`, or use {{file: PATH}}",
            )
        return found
