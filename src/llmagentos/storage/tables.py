"""Every table of the system on one `METADATA`: what migrations are made from."""

from llmagentos.storage import audit, tokens
from llmagentos.storage.database import METADATA

__all__ = ["METADATA", "audit", "tokens"]
