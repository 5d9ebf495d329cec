"""The configuration for others to read: as a JSON Schema for editors, and as YAML without any secret."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec
import yaml

from llmagentos.core.config.schema import Config, Database


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of `llmagentos.yaml`."""
    document = msgspec.json.schema(Config)
    secret = document["$defs"]["SecretRef"]
    secret["oneOf"] = [{"required": ["env"]}, {"required": ["file"]}]
    for definition in document["$defs"].values():
        _plain_defaults(definition)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "llmagentos.yaml",
        **document,
    }


def _plain_defaults(definition: dict[str, Any]) -> None:
    """Optional values are left out of a file, not written as null: editors should not offer null first."""
    for prop in definition.get("properties", {}).values():
        if prop.get("default", ...) is None:
            del prop["default"]


def as_yaml(config: Config) -> str:
    """All values in force, as YAML; secrets are references, a password inside a URL is masked."""
    shown = msgspec.structs.replace(config, database=_masked(config.database))
    return yaml.safe_dump(msgspec.to_builtins(shown), sort_keys=False, allow_unicode=True)


def _masked(database: str | Database | None) -> str | Database | None:
    if isinstance(database, Database):
        return msgspec.structs.replace(database, url=mask_url(database.url))
    return mask_url(database) if database is not None else None


def mask_url(url: str) -> str:
    """`url` with *** for its password."""
    parts = urlsplit(url)
    if not parts.password:
        return url
    user, _, place = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}:***@{place}").geturl()
