"""Places of a host, lent while a run waits for others."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from llmagentos.agents.slots import Slots, lent


def test_a_run_that_waits_lends_its_place() -> None:
    async def main() -> list[str]:
        slots, told = Slots(1), list[str]()
        inner_done = asyncio.Event()

        async def outer() -> None:
            with slots.held():
                told.append("outer")
                with lent():
                    await inner_done.wait()
                told.append("outer again")

        async def inner() -> None:
            await slots.acquire()
            with slots.held():
                told.append("inner")
                inner_done.set()

        await slots.acquire()
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(outer())
            group.create_task(inner())
        await slots.acquire()  # everything was given back
        return told

    assert asyncio.run(main()) == ["outer", "inner", "outer again"]


def test_outside_of_a_run_nothing_is_lent() -> None:
    with lent():
        waited = True
    assert waited


@given(st.integers(1, 3), st.lists(st.integers(0, 3), min_size=1, max_size=8), st.booleans())
def test_every_place_comes_back(most: int, waits: list[int], cut: bool) -> None:
    """Runs that wait several times, several calls at once, some of them cut off in the middle."""

    async def main() -> None:
        slots = Slots(most)

        async def wait() -> None:
            with lent():
                await asyncio.sleep(0)

        async def run(count: int) -> None:
            await slots.acquire()
            with slots.held():
                await asyncio.gather(*(wait() for _ in range(count)))

        tasks = [asyncio.create_task(run(count)) for count in waits]
        if cut:
            await asyncio.sleep(0)
            tasks[0].cancel()
        async with asyncio.timeout(20):
            await asyncio.gather(*tasks, return_exceptions=True)
            for _ in range(most):
                await slots.acquire()

    asyncio.run(main())
