"""What probes print, and probes that hang, fail or flood."""

from __future__ import annotations

import asyncio
import os
import time

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.api.telemetry import SERIES
from llmagentos.fleet.node.collect.journal import parse as parse_entry
from llmagentos.fleet.node.collect.probes import Probes, output, parse
from llmagentos.fleet.node.collect.wanted import Probe
from support.server import eventually

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("12\n", {"probe_jobs": 12.0}),
        ("# HELP x y\nx 1\n", {"x": 1.0}),
        ('q{name="a b"} 2.5\nz 1e3\n', {'q{name="a b"}': 2.5, "z": 1000.0}),
    ],
)
def test_a_number_or_prometheus_text(text: str, found: dict[str, float]) -> None:
    assert parse("jobs", text) == found


@given(st.text(max_size=200))
def test_any_output_is_values_or_one_error(text: str) -> None:
    try:
        found = parse("p", text)
    except ValueError as error:
        assert str(error)
    else:
        assert all(SERIES.fullmatch(name) for name in found)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_journal_line_is_an_entry_or_nothing(line: bytes) -> None:
    assert parse_entry("ssh", line) is None or line.strip()


def test_an_entry_of_the_journal() -> None:
    line = b'{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"1763716000000000","SYSLOG_IDENTIFIER":"sshd","MESSAGE":"hi"}'
    assert parse_entry("ssh", line) == (1763716000.0, "ssh", "sshd: hi", "s=1")
    assert parse_entry("ssh", line.replace(b'"hi"', b"[104,105,255]")) == (1763716000.0, "ssh", "sshd: hi\ufffd", "s=1")


async def test_a_probe_that_hangs_ends_with_all_it_started() -> None:
    seconds = f"370.{os.getpid()}"  # by which ours are known among all of this machine
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"over 0\.3 s"):
        await output(Probe(f"sleep {seconds} & sleep {seconds}", timeout=0.3))
    assert time.monotonic() - began < 100
    await eventually(
        lambda: not [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", seconds]]
    )


async def test_a_probe_that_fails_or_floods_says_so() -> None:
    with pytest.raises(ValueError, match="exit code 3"):
        await output(Probe("exit 3"))
    with pytest.raises(ValueError, match="over 65536 bytes"):
        await output(Probe("yes", timeout=20))


async def test_values_are_kept_and_a_failure_is_a_value() -> None:
    probes = Probes()
    probes.want({"good": Probe("echo 5"), "bad": Probe("exit 1")})
    try:
        async with asyncio.timeout(40):
            while len(probes.values()) < 5:
                await asyncio.sleep(0.01)
        values = probes.values()
        assert values["probe_good"] == 5.0
        assert values['probe_success{probe="good"}'] == 1.0
        assert values['probe_success{probe="bad"}'] == 0.0
        probes.want({"good": Probe("echo 5")})
        assert not any("bad" in name for name in probes.values())
    finally:
        await probes.close()
