"""A small SMTP server (RFC 5321) that puts mail for one domain into a Maildir for each recipient.

For trying things out on one machine: it listens on loopback only, knows no users and no TLS, and takes
mail for its own domain alone, so it relays nothing.
"""

from __future__ import annotations

import asyncio
import mailbox
import re
import sys
from pathlib import Path

MAX_MESSAGE = 1024 * 1024  # bytes
MAX_RECIPIENTS = 100
IDLE_S = 60.0
_LINE = 4096
_ADDRESS = re.compile(r"^(?:FROM|TO):\s*<([^<>\s]*)>", re.IGNORECASE)
_LOCAL = re.compile(r"^[a-z0-9][a-z0-9._+-]{0,63}$")


class Post:
    """Where mail goes: `directory/NAME` is the Maildir of NAME@domain."""

    def __init__(self, directory: Path, domain: str) -> None:
        self._directory = directory
        self._domain = domain.lower()

    def box(self, address: str) -> str | None:
        """The name of an address's Maildir; None when its mail is not taken."""
        name, _, domain = address.lower().rpartition("@")
        return name if domain == self._domain and _LOCAL.match(name) else None

    def deliver(self, boxes: set[str], message: bytes) -> None:
        """Put the message into each Maildir. Raises `OSError`."""
        for name in boxes:
            self._directory.mkdir(parents=True, exist_ok=True)
            mailbox.Maildir(self._directory / name).add(message)


class Session:
    """One connection of a client that has mail to bring."""

    def __init__(self, post: Post, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._post = post
        self._reader = reader
        self._writer = writer
        self._sender: str | None = None
        self._boxes: set[str] = set()

    async def serve(self) -> None:
        """Until the client quits, is silent for a minute or sends what is no line."""
        self._say("220 post ready")
        try:
            while True:
                async with asyncio.timeout(IDLE_S):
                    await self._writer.drain()
                    line = await self._reader.readuntil(b"\n")
                verb, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
                if verb.upper() == "QUIT":
                    self._say("221 bye")
                    break
                await self._command(verb.upper(), rest)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        finally:
            self._writer.close()

    async def _command(self, verb: str, rest: str) -> None:
        match verb:
            case "HELO" | "EHLO":
                self._say("250 post")
            case "MAIL" if found := _ADDRESS.match(rest):
                self._sender, self._boxes = found[1], set()
                self._say("250 ok")
            case "RCPT" if self._sender is not None and (found := _ADDRESS.match(rest)):
                self._recipient(found[1])
            case "DATA" if self._boxes:
                await self._data()
            case "RSET" | "NOOP":
                self._sender = None if verb == "RSET" else self._sender
                self._say("250 ok")
            case "MAIL" | "RCPT" | "DATA":
                self._say("503 not now, or not so")
            case _:
                self._say("502 not known here")

    def _recipient(self, address: str) -> None:
        box = self._post.box(address)
        if box is None:
            self._say("550 nobody of that name here")
        elif len(self._boxes) >= MAX_RECIPIENTS:
            self._say("452 too many recipients")
        else:
            self._boxes.add(box)
            self._say("250 ok")

    async def _data(self) -> None:
        self._say("354 go on")
        await self._writer.drain()
        message = bytearray()
        while True:
            async with asyncio.timeout(IDLE_S):
                line = await self._reader.readuntil(b"\n")
            if line in (b".\r\n", b".\n"):
                break
            if len(message) <= MAX_MESSAGE:
                message += line[1:] if line.startswith(b".") else line  # RFC 5321, 4.5.2: dot stuffing
        boxes, self._boxes, self._sender = self._boxes, set(), None
        if len(message) > MAX_MESSAGE:
            self._say(f"552 more than {MAX_MESSAGE} bytes")
            return
        try:
            await asyncio.to_thread(self._post.deliver, boxes, bytes(message))
        except OSError as error:
            self._say(f"451 it cannot be kept: {error.strerror}")
            return
        self._say("250 delivered")

    def _say(self, line: str) -> None:
        self._writer.write(f"{line}\r\n".encode())


async def serve(directory: Path, domain: str, port: int) -> None:
    """Take mail until cancelled; the port is printed once it is open."""
    post = Post(directory, domain)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Session(post, reader, writer).serve()

    server = await asyncio.start_server(connected, "127.0.0.1", port, limit=_LINE)
    print(f"mail for {domain} on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: mailserver.py DIRECTORY DOMAIN PORT")
    try:
        asyncio.run(serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
    except KeyboardInterrupt:
        sys.exit(0)
