"""What tells an open page that something changed: server-sent events from the hub, at a bearable rate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from markupsafe import escape

from llmagentos.core.events import Hub, Subscription
from llmagentos.server.sse import Event

PACE_S = 0.4
"""A page is told of changes at most this often."""
LIFE_S = 900.0
"""A stream ends after this; the browser opens a new one, and the session is checked again."""

Text = Callable[[Any], str | None]
"""The streamed text in an item of the hub, or None when the item is a change of state."""
Done = Callable[[Any], bool]
"""Whether nothing follows on an item of the hub."""


class Fragment(Event, frozen=True):
    """An event whose data is HTML for the page, not JSON."""

    def encode(self) -> bytes:
        lines = "".join(f"data: {line}\n" for line in str(self.data).split("\n"))
        return f"event: {self.event}\n{lines}\n".encode()


CHANGE = Fragment("change", "")
END = Fragment("end", "")


async def changes(hub: Hub, topics: list[str], *, text: Text, done: Done, pace: float = PACE_S) -> AsyncIterator[Event]:
    """`change` at once and after every change on `topics`, paced; `text` for each piece of an answer; `end` at the end.

    The first one covers what changed between the rendering of the page and this subscription.
    """
    loop = asyncio.get_running_loop()
    end, due = loop.time() + LIFE_S, 0.0
    changed = True
    with hub.subscribe(*topics) as subscription:
        while (now := loop.time()) < end:
            if changed and now >= due:
                changed, due = False, now + pace
                yield CHANGE
            wait = (due if changed else end) - loop.time()
            items = await _batch(subscription, max(0.0, wait))
            if items is None:
                return
            pieces = [text(item) for item in items]
            changed = changed or None in pieces
            if written := "".join(piece for piece in pieces if piece):
                yield Fragment("text", str(escape(written)))
            if any(map(done, items)):
                yield CHANGE
                yield END
                return


async def _batch(subscription: Subscription, wait: float) -> list[Any] | None:
    """What comes within `wait` seconds, as soon as something does; None once the hub is closed."""
    items: list[Any] = []
    try:
        items.append(await subscription.next(wait))
        while True:
            items.append(await subscription.next(0))
    except TimeoutError:
        return items
    except StopAsyncIteration:
        return items or None
