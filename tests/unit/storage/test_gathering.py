"""Group commit: everyone gets their own answer, what comes meanwhile is done together, nobody's end ends others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from llmagentos.storage.gathering import Gathered


class Work:
    """Doubles numbers; fails for odd ones."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.may = asyncio.Event()

    async def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.groups.append(list(items))
        await self.may.wait()
        return [ValueError(str(item)) if item % 2 else item * 2 for item in items]


@settings(max_examples=30)
@given(st.lists(st.integers(0, 99), max_size=30), st.integers(1, 7), st.sets(st.integers(0, 29)))
def test_each_gets_its_own_answer_in_order_and_groups_are_bounded(items, most, cancelled):
    async def main() -> None:
        work = Work()
        gathered = Gathered(work, most=most)
        tasks = [asyncio.create_task(gathered(item)) for item in items]
        while items and not work.groups:
            await asyncio.sleep(0)
        for number, task in enumerate(tasks):
            if number in cancelled:
                task.cancel()
        work.may.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for number, (item, answer) in enumerate(zip(items, answers, strict=True)):
            if number in cancelled:
                assert isinstance(answer, asyncio.CancelledError)
            elif item % 2:
                assert isinstance(answer, ValueError) and str(answer) == str(item)
            else:
                assert answer == item * 2
        done = [item for group in work.groups for item in group]
        begun = len(work.groups[0]) if items else 0
        assert done == [item for number, item in enumerate(items) if number < begun or number not in cancelled]
        assert all(0 < len(group) <= most for group in work.groups)

    asyncio.run(main())


def test_what_the_work_raises_is_told_to_the_whole_group_and_the_next_one_is_done():
    async def main() -> None:
        calls = 0

        async def work(items: Sequence[int]) -> list[int]:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise OSError("the disk is full")
            return list(items)

        gathered = Gathered(work)
        answers = await asyncio.gather(*(gathered(number) for number in range(3)), return_exceptions=True)
        assert all(isinstance(answer, OSError) for answer in answers)
        assert await gathered(7) == 7

    asyncio.run(main())
