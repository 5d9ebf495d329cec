"""The code helper: what its sandbox stops, and an agent that corrects its function after a failed test."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

import pytest

from support.examples import EXAMPLES, apply, asked, config, evaluate, program, results, with_tools
from support.scripted import scripted_engine
from support.server import StartServer


def _sandbox() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sandbox", EXAMPLES / "coder" / "sandbox.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["sandbox"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sandbox = _sandbox()
needs_namespaces = pytest.mark.skipif(not sandbox.namespaces(), reason="namespaces are not permitted here")


def check(code: str, tests: str = "assert True", **limits: Any) -> Any:
    return sandbox.check(code, tests, sandbox.Limits(**limits))


def test_tests_pass_or_fail() -> None:
    passed = check("def f(x): return x + 1", "def test_f():\n    assert f(1) == 2\nassert f(0) == 1")
    assert (passed.outcome, passed.tests, passed.passed) == ("passed", 2, True)
    failed = check("def f(x): return x", "def test_f():\n    assert f(1) == 2, f'it is {f(1)}'")
    assert failed.outcome == "failed"
    assert "AssertionError: it is 1" in failed.output
    assert "SyntaxError" in check("def f(x) return x").output
    assert check("x = 1", "y = 2").outcome == "no_tests"
    assert check("import os\nos._exit(0)").outcome == "failed"  # nobody saw a test pass


def test_time_is_limited() -> None:
    assert check("while True: pass", cpu_s=1, wall_s=60).outcome == "cpu"
    asleep = check("import time\ntime.sleep(100)", wall_s=0.7)
    assert asleep.outcome == "time"
    assert asleep.seconds < 50


def test_memory_and_files_are_limited() -> None:
    assert "MemoryError" in check("x = bytearray(10**9)").output
    assert "File too large" in check("with open('x', 'wb') as f:\n    f.write(bytes(2 * 1024 * 1024))").output
    assert "Too many open files" in check("found = [open('/dev/null' if False else __import__('sys').executable)"
                                          " for _ in range(99)]").output  # fmt: skip
    noisy = check("while True: print('x' * 1000)")
    assert not noisy.passed
    assert len(noisy.output) <= 4000


def test_the_environment_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMAGENTOS_TOKEN", "s3cret")
    told = check("import os\nprint(sorted(os.environ))")
    assert told.output.strip() in ("[]", "['LC_CTYPE']")  # which Python itself sets


def test_what_a_machine_does_not_permit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "namespaces", tuple)
    told = check("x = 1")
    assert told.passed
    assert told.missing == ["network", "files", "processes"]
    assert not set(told.isolation) & set(told.missing)
    assert check("while True: pass", cpu_s=1, wall_s=60).outcome == "cpu"


@needs_namespaces
def test_there_is_no_network() -> None:
    code = "import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)"
    listening = asyncio.new_event_loop()
    try:
        server = listening.run_until_complete(asyncio.start_server(lambda *_: None, "127.0.0.1", 0))
        told = check(code.format(port=server.sockets[0].getsockname()[1]))
        server.close()
    finally:
        listening.close()
    assert "unreachable" in told.output
    assert "network" in told.isolation


@needs_namespaces
def test_files_and_processes_of_others_are_not_seen() -> None:
    code = f"""
import os
for path in ({str(EXAMPLES)!r}, '/etc/passwd', '/proc/self/environ', '/proc/{os.getpid()}/environ', '/dev/sda'):
    assert not os.path.exists(path), path
for place in ('/', '/usr', os.path.dirname(os.__file__)):
    try:
        open(os.path.join(place, 'x'), 'w')
    except OSError:
        continue
    raise AssertionError(place)
try:
    os.kill({os.getpid()}, 0)
except ProcessLookupError:
    print('nobody')
open('mine', 'w').write('x')
"""
    told = check(code)
    assert told.passed, told.output
    assert told.output.strip() == "nobody"
    assert "No space left" in check("for i in range(99): open(str(i), 'wb').write(bytes(10**6))").output


@needs_namespaces
def test_a_fork_bomb_ends() -> None:
    told = check("import os\nwhile True:\n    os.fork()", wall_s=3)
    assert told.outcome in ("failed", "time")
    counted = check("import os, time\nfor n in range(99):\n    if os.fork() == 0: time.sleep(100)", wall_s=60)
    assert "Resource temporarily unavailable" in counted.output
    assert counted.seconds < 50  # those that were left sleeping did not hold it up


@needs_namespaces
def test_rights_are_not_won_back() -> None:
    code = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for call in (lambda: libc.unshare(0x10000000), lambda: libc.mount(b'none', b'/work', b'tmpfs', 0, None),
             lambda: libc.chroot(b'/work'), lambda: libc.setuid(12345)):
    assert call() == -1 and ctypes.get_errno() == 1, ctypes.get_errno()
"""
    told = check(code)
    assert told.passed, told.output


WRONG = "def median(numbers):\n    return sorted(numbers)[len(numbers) // 2]\n"
RIGHT = """def median(numbers):
    found = sorted(numbers)
    half = len(found) // 2
    return found[half] if len(found) % 2 else (found[half - 1] + found[half]) / 2
"""
LEAP = "def is_leap(year):\n    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)\n"
WORDS = "def reverse_words(text):\n    return ' '.join(reversed(text.split()))\n"
TESTS = {
    "median": "def test_even():\n    assert median([1, 2, 3, 4]) == 2.5, median([1, 2, 3, 4])\n",
    "is_leap": "def test_century():\n    assert not is_leap(1900)\n    assert is_leap(2000)\n",
    "reverse_words": "def test_two():\n    assert reverse_words('a b') == 'b a'\n",
}


def programmer(request: dict[str, Any]) -> str | list[tuple[str, dict[str, Any]]]:
    """Writes, reads what failed, corrects; says nothing of success that it did not see."""
    name = next(name for name in TESTS if name in asked(request))
    done = results(request)
    if done and '"passed"' in done[-1]:
        code = {"median": RIGHT, "is_leap": LEAP, "reverse_words": WORDS}[name]
        return f"```python\n{code}```\n1 test passed."
    if done:
        assert "AssertionError: 3" in done[-1], done[-1]
        return [("sandbox_check", {"code": RIGHT, "tests": TESTS[name]})]
    code = {"median": WRONG, "is_leap": LEAP, "reverse_words": WORDS}[name]
    return [("sandbox_check", {"code": code, "tests": TESTS[name]})]


@needs_namespaces
def test_it_corrects_what_a_test_found(start_server: StartServer) -> None:
    async def main() -> None:
        async with scripted_engine(with_tools(programmer)) as engine:
            await asyncio.to_thread(_cases, start_server, config(engine.url))
            assert len(engine.requests) == 2 + 3 + 2

    asyncio.run(main())


def _cases(start_server: StartServer, models: str) -> None:
    server = start_server(models)
    with program(server, "coder/coder.py"):
        apply(server, "coder/coder.yaml")
        done = evaluate(server, "coder/evals.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "3 of 3 cases are as expected" in done.stdout
