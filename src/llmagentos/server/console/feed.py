"""What tells an open page that something changed: server-sent events from the hub, at a bearable rate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, NamedTuple

from llmagentos.core.events import LAGGED, Hub, Subscription
from llmagentos.server.sse import Event

PACE_S = 0.4
"""A page is told of changes at most this often."""
LIFE_S = 900.0
"""A stream ends after this; the browser opens a new one, and the session is checked again."""


class Text(NamedTuple):
    """Of an answer that is being written: how it goes on, or, with its `call`, all that there is of it so far."""

    text: str
    call: int = 0


Now = Callable[[], Text | None]
"""The answer that is being written; what comes from the hub after this call follows on it."""
Told = Callable[[Any], Text | None]
"""The text in an item of the hub, if it is one that has any."""
Done = Callable[[Any], bool]
"""Whether nothing follows on an item of the hub."""

CHANGE = Event("change", None)
END = Event("end", None)


async def changes(
    hub: Hub, topics: list[str], *, now: Now, told: Told, done: Done, pace: float = PACE_S
) -> AsyncIterator[Event]:
    """`change` at once and after every change on `topics`, paced; `text` for each `Text`; `end` at the end.

    The first ones cover what changed between the rendering of the page and this subscription.
    """
    loop = asyncio.get_running_loop()
    end, due = loop.time() + LIFE_S, 0.0
    lagged = changed = True
    while lagged:
        with hub.subscribe(*topics) as subscription:
            lagged, written = False, now()
            if written is not None:
                yield _text(written)
            while not lagged and (moment := loop.time()) < end:
                if changed and moment >= due:
                    changed, due = False, moment + pace
                    yield CHANGE
                wait = (due if changed else end) - loop.time()
                items = await _batch(subscription, max(0.0, wait))
                if items is None:
                    return
                lagged = LAGGED in items
                texts = [told(item) for item in items]
                changed = changed or any(each is None or each.call for each in texts)
                for each in [] if lagged else _joined(texts):
                    yield _text(each)
                if any(map(done, items)):
                    yield CHANGE
                    yield END
                    return


def _joined(texts: Iterable[Text | None]) -> list[Text]:
    """With what goes on from another one added to it."""
    joined: list[Text] = []
    for each in texts:
        if each is None:
            continue
        if joined and not each.call:
            each = Text(joined[-1].text + each.text, joined.pop().call)
        joined.append(each)
    return joined


def _text(text: Text) -> Event:
    return Event("text", text._asdict())


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
