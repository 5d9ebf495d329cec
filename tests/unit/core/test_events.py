from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.core.events import LAGGED, Hub


def test_every_subscriber_of_a_topic_gets_each_item_in_order() -> None:
    async def main() -> None:
        hub = Hub()
        with hub.subscribe("a") as one, hub.subscribe("a", "b") as two:
            hub.publish("a", 1)
            hub.publish("b", 2)
            hub.publish("c", 3)
            assert [await one.next(1)] == [1]
            assert [await two.next(1), await two.next(1)] == [1, 2]
            with pytest.raises(TimeoutError):
                await one.next(0.01)

    asyncio.run(main())


def test_a_waiting_reader_wakes_and_a_closed_one_ends() -> None:
    async def main() -> None:
        hub = Hub()
        with hub.subscribe("a") as subscription:
            reader = asyncio.ensure_future(subscription.next(5))
            await asyncio.sleep(0)
            hub.publish("a", "now")
            assert await reader == "now"
            hub.close()
            assert [item async for item in subscription] == []

    asyncio.run(main())


@given(count=st.integers(0, 60), limit=st.integers(1, 20))
def test_a_slow_reader_is_told_that_it_lagged_and_never_holds_more_than_the_limit(count: int, limit: int) -> None:
    async def main() -> list[object]:
        hub = Hub(limit=limit)
        with hub.subscribe("a") as subscription:
            for number in range(count):
                hub.publish("a", number)
            hub.close()
            return [item async for item in subscription]

    got = asyncio.run(main())
    if count <= limit:
        assert got == list(range(count))
    else:
        assert got[0] is LAGGED
        assert len(got) <= limit + 1
        assert got[1:] == list(range(count - len(got) + 1, count))


def test_leaving_forgets_the_topic() -> None:
    async def main() -> None:
        hub = Hub()
        with hub.subscribe("a"):
            pass
        hub.publish("a", 1)
        assert hub._topics == {}

    asyncio.run(main())
