"""Files that go with a request: what they are, whether the model can read them, and how they reach the prompt."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from msgspec.structs import replace

from llmagentos.api.runs import Attachment
from llmagentos.core.errors import InvalidInput, NotFound, TooLarge

TEXT = "text/plain"
PICTURE = "data:image/"
"""What the contents of a picture begin with."""
_ENCODINGS = ("utf-8-sig", "gb18030")
"""What texts are written in here; the second has no signature, so it counts only without control characters."""
_CONTROL = frozenset(map(chr, range(32))) - set("\t\n\r\f") | {"\x7f"}
_MAGIC: Mapping[bytes, str] = MappingProxyType(
    {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF87a": "image/gif", b"GIF89a": "image/gif"}
)


class UnsupportedFile(InvalidInput):
    """Neither text nor a picture, or a picture for a model that reads none."""

    code = "unsupported_file"
    status = 415


class Files(Protocol):
    """Where files are kept."""

    async def put(self, owner: str, digest: str, kind: str, content: bytes) -> None: ...
    async def use(self, owner: str, digest: str) -> tuple[str, int] | None: ...
    async def content(self, digest: str) -> bytes | None: ...


def kind_of(content: bytes, name: str) -> str:
    """The media type, by what stands in the file. Raises `UnsupportedFile`."""
    for magic, kind in _MAGIC.items():
        if content.startswith(magic):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    if decoded(content) is None:
        raise UnsupportedFile(
            f"{name!r} is neither text (UTF-8, GB 18030) nor a picture (PNG, JPEG, GIF, WebP)",
            hint="convert it to text first",
        )
    return TEXT


def decoded(content: bytes) -> str | None:
    """The text in a file; None when it is none."""
    for encoding in _ENCODINGS:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        return None if _CONTROL.intersection(text) else text
    return None


def texts(contents: Iterable[str]) -> list[str]:
    """Of the contents of files those that can be read: there is nothing to find in megabytes of base 64."""
    return [content for content in contents if not content.startswith(PICTURE)]


class Attachments:
    """Files of those who ask. `text_bytes` bounds the text of one run, `run_bytes` all of its files."""

    def __init__(self, files: Files, *, text_bytes: int, run_bytes: int) -> None:
        self._files = files
        self._text_bytes = text_bytes
        self._run_bytes = run_bytes

    async def keep(self, owner: str, digest: str, name: str, content: bytes) -> Attachment:
        """Store a file. Raises `UnsupportedFile`, `TooLarge`, `InvalidInput` for another digest, or `StorageFull`."""
        kind = kind_of(content, name)
        if kind == TEXT and len(content) > self._text_bytes:
            raise TooLarge(
                f"{name!r} has {len(content)} bytes of text, more than {self._text_bytes}",
                hint="attach the part that matters; `attachments.text_bytes` is the limit",
            )
        await self._files.put(owner, digest, kind, content)
        return Attachment(digest, name, kind, len(content))

    async def checked(self, owner: str, given: Sequence[Attachment], *, model: str, vision: bool) -> list[Attachment]:
        """`given` as they were stored. Raises `NotFound`, `UnsupportedFile` or `TooLarge`."""
        found = []
        for each in given:
            stored = await self._files.use(owner, each.digest)
            if stored is None:
                raise NotFound(
                    f"there is no file {each.name!r} ({each.digest[:12]}...) of yours", hint="upload it first"
                )
            found.append(replace(each, type=stored[0], size=stored[1]))
        pictures = [each for each in found if each.type != TEXT]
        if pictures and not vision:
            raise UnsupportedFile(
                f"{pictures[0].name!r} is a picture, and the model {model!r} reads none",
                hint="`vision: true` of a model in llmagentos.yaml says that it does",
            )
        for what, total, most in (
            ("text", sum(each.size for each in found if each.type == TEXT), self._text_bytes),
            ("files", sum(each.size for each in found), self._run_bytes),
        ):
            if total > most:
                raise TooLarge(f"{total} bytes of {what} are attached, more than {most}")
        return found

    async def contents(self, attachments: Sequence[Attachment]) -> dict[str, str]:
        """What the files hold, by digest: text as it is, pictures as `data:` URLs."""
        return {each.digest: await self._content(each) for each in attachments}

    async def _content(self, attachment: Attachment) -> str:
        content = await self._files.content(attachment.digest)
        if content is None:
            return "(this file is no longer kept)"
        if attachment.type == TEXT:
            return decoded(content) or ""
        return f"data:{attachment.type};base64,{base64.b64encode(content).decode()}"
