"""Files of requests: what counts as text, whose they are, how much is taken, when they go."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.agents.attachments import Attachments, UnsupportedFile, decoded, kind_of
from llmagentos.api.runs import Attachment
from llmagentos.core.clock import ManualClock
from llmagentos.core.errors import InvalidInput, NotFound, TooLarge
from llmagentos.storage.attachments import AttachmentRecords
from llmagentos.storage.blobs import Blobs
from llmagentos.storage.database import Database

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"plain", "text/plain"),
        ("中文".encode(), "text/plain"),
        ("中文内容".encode("gbk"), "text/plain"),
        (b"\xef\xbb\xbfbom", "text/plain"),
        (b"", "text/plain"),
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
    ],
)
def test_files_are_what_stands_in_them(content: bytes, kind: str) -> None:
    assert kind_of(content, "file") == kind


@pytest.mark.parametrize("content", [b"%PDF-1.7\n\x00\x01", b"\x7fELF\x02\x01\x01\0", b"a\0b", b"\xff\xfe\xff"])
def test_what_no_model_reads_is_refused(content: bytes) -> None:
    with pytest.raises(UnsupportedFile) as caught:
        kind_of(content, "file.bin")
    assert caught.value.status == 415


@given(st.binary(max_size=300))
def test_any_bytes_are_text_or_not(content: bytes) -> None:
    text = decoded(content)
    assert text is None or not any(character < " " and character not in "\t\n\r\f" for character in text)


@pytest.mark.anyio
async def test_files_are_owned_bounded_and_forgotten(tmp_path: Path) -> None:
    database, clock = Database(f"sqlite:///{tmp_path / 'test.db'}"), ManualClock()
    await database.create_all()
    records = AttachmentRecords(database, clock, Blobs(tmp_path / "files"), days=30)
    files = Attachments(records, text_bytes=100, run_bytes=150)
    try:
        note = await files.keep("ada", digest(b"hello"), "note.txt", b"hello")
        picture = await files.keep("ada", digest(PNG), "cat.png", PNG)
        assert (note.type, note.size, picture.type) == ("text/plain", 5, "image/png")
        claimed = Attachment(note.digest, "note.txt", "image/png", 0)
        assert await files.checked("ada", [claimed], model="m", vision=False) == [note]
        with pytest.raises(NotFound):  # knowing a digest is not having the file
            await files.checked("bob", [note], model="m", vision=False)
        with pytest.raises(UnsupportedFile, match="reads none"):
            await files.checked("ada", [picture], model="m", vision=False)
        found = await files.contents(await files.checked("ada", [note, picture], model="m", vision=True))
        assert found[note.digest] == "hello"
        assert found[picture.digest].startswith("data:image/png;base64,iVBOR")
        with pytest.raises(TooLarge):
            await files.keep("ada", digest(b"x" * 101), "long.txt", b"x" * 101)
        long = await files.keep("ada", digest(b"x" * 99), "long.txt", b"x" * 99)
        with pytest.raises(TooLarge):
            await files.checked("ada", [note, long], model="m", vision=False)
        with pytest.raises(InvalidInput):
            await files.keep("ada", "0" * 64, "note.txt", b"hello")
        clock.advance(31 * 86_400)
        await files.checked("ada", [note], model="m", vision=False)
        await records.prune()
        with pytest.raises(NotFound):
            await files.checked("ada", [picture], model="m", vision=True)
        assert await files.contents([note]) == {note.digest: "hello"}
    finally:
        await database.aclose()
