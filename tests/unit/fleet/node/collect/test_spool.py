"""The spool: in order, bounded, and the same after a restart."""

from __future__ import annotations

import random
import string
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from llmagentos.api.telemetry import Line, Sample
from llmagentos.fleet.node.collect.spool import Spool

OPERATIONS = st.lists(st.sampled_from(["put", "send", "restart"]), max_size=40)


def _line(text: str) -> list[Line]:
    return [Line(1.0, "app", text)]


@given(OPERATIONS)
def test_batches_come_once_and_in_order_across_restarts(tmp_path_factory: object, operations: list[str]) -> None:
    directory = Path(tmp_path_factory.mktemp("spool"))  # type: ignore[attr-defined]
    spool, put, sent = Spool(directory), list[str](), list[str]()
    numbers = [0]
    for operation in operations:
        if operation == "put":
            put.append(f"line {len(put)}")
            spool.put([], _line(put[-1]))
        elif operation == "restart":
            spool = Spool(directory)
        elif (batch := spool.oldest()) is not None:
            sent.append(batch.lines[0].text)
            numbers.append(batch.number)
            spool.acknowledged(batch.number)
    assert sent == put[: len(sent)]
    assert numbers == sorted(set(numbers))
    assert len(spool) == len(put) - len(sent)


def test_the_oldest_give_way_when_it_is_full_and_are_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, most=20_000)
    chance = random.Random(1)
    for number in range(40):
        noise = "".join(chance.choices(string.ascii_letters, k=2000))
        spool.put([Sample(float(number), {"a": 1.0})], _line(noise))
    kept = [int(path.stem) for path in sorted(tmp_path.glob("*.batch"))]
    assert kept == list(range(41 - len(kept), 41))
    assert sum(path.stat().st_size for path in tmp_path.glob("*.batch")) <= 20_000
    assert spool.dropped == 40 - len(kept) > 0


def test_a_damaged_batch_is_left_out(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put([], _line("one"))
    spool.put([], _line("two"))
    next(iter(sorted(tmp_path.glob("*.batch")))).write_bytes(b"not a batch")
    found = Spool(tmp_path).oldest()
    assert found is not None
    assert (found.number, found.lines[0].text) == (2, "two")


def test_a_spool_that_lost_its_name_begins_anew(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put([], _line("one"))
    (tmp_path / "spool.id").unlink()
    again = Spool(tmp_path)
    assert (again.name != spool.name, len(again)) == (True, 0)
