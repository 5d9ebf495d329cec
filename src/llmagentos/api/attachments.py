"""Files for requests on the wire."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

from llmagentos.api.client import ApiClient
from llmagentos.api.runs import Attachment


async def upload(client: ApiClient, name: str, content: bytes, *, timeout: float = 60.0) -> Attachment:
    """Store a file to ask with. Raises `TooLarge`, or `InvalidInput` (415) for what no model can read."""
    digest = hashlib.sha256(content).hexdigest()
    path = f"/api/v1/attachments/{digest}?name={quote(name[-200:], safe='')}"
    return await client.upload(path, content, Attachment, timeout=timeout)
