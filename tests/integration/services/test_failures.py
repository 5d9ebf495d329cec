"""What clients see while instances die, servers go and come back, and modules stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llmagentos.api.http import HttpClient
from llmagentos.core.clock import SystemClock
from llmagentos.core.discovery import Credentials
from llmagentos.core.errors import DeadlineExceeded, ServiceError
from llmagentos.services.caller import ServiceCaller
from llmagentos.services.directory import Directory
from llmagentos.services.errors import CallInterrupted
from llmagentos.services.link import Follower, ServerLink
from llmagentos.services.tokens import ServiceTokens
from support.server import END_S, ServerProcess, eventually

SERVICE = "hello-service"


@asynccontextmanager
async def calling(server: ServerProcess) -> AsyncIterator[ServiceCaller]:
    """A caller as a program has one, on this test's loop."""
    link = ServerLink(lambda: Credentials(server.url, server.token))
    directory = Directory()
    follower = Follower(link, directory)
    tokens = ServiceTokens(link.service_token, SystemClock())
    caller = ServiceCaller(directory, tokens, HttpClient(), SystemClock(), ready=follower.ready)
    task = asyncio.create_task(follower.follow())
    try:
        yield caller
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await caller.aclose()
        await link.aclose()


def test_an_instance_killed_under_load(server: ServerProcess, start_module) -> None:
    modules = [start_module() for _ in range(3)]
    errors: Counter[str] = Counter()
    answered: Counter[int] = Counter()
    late: Counter[int] = Counter()

    async def main() -> None:
        async with calling(server) as caller:
            stop = asyncio.Event()
            killed_at = [float("inf")]

            async def worker(method: str) -> None:
                while not stop.is_set():
                    try:
                        pid = await caller.call(SERVICE, method, {"delay": 0.01})
                    except CallInterrupted as error:
                        assert method == "once", "an idempotent call is repeated elsewhere"
                        assert "may have been carried out" in error.message
                        errors[method] += 1
                        continue
                    answered[pid] += 1
                    if time.monotonic() > killed_at[0] + 10:
                        late[pid] += 1

            async with asyncio.TaskGroup() as group:
                for number in range(64):
                    group.create_task(worker("where" if number % 2 else "once"))
                await eventually(lambda: all(answered[module.pid] > 20 for module in modules))
                os.kill(modules[0].pid, signal.SIGKILL)
                killed_at[0] = time.monotonic()
                await eventually(lambda: len(caller.directory.offering(SERVICE)) == 2)
                await eventually(lambda: all(late[module.pid] > 20 for module in modules[1:]))
                stop.set()

    asyncio.run(main())
    assert "lease ran out" in server.log()
    assert set(late) == {module.pid for module in modules[1:]}, "both that are left work"
    assert errors["once"] <= 32, "at most those that were running there"


def test_the_server_away_and_back(server: ServerProcess, start_module) -> None:
    module = start_module()

    async def main() -> None:
        async with calling(server) as caller:
            assert await caller.call(SERVICE, "echo", {"text": "a"}) == "a"
            version = caller.directory.version
            server.kill()
            for _ in range(20):
                assert await caller.call(SERVICE, "echo", {"text": "b"}) == "b"
                await asyncio.sleep(0.05)
            await asyncio.to_thread(server.start)
            await eventually(lambda: caller.directory.version > version)
            assert [i.module for i in caller.directory.all()] == [SERVICE], "restored from the database"
            assert await caller.call(SERVICE, "echo", {"text": "c"}) == "c"

    asyncio.run(main())
    assert module.log().count('"registered"') == 1
    assert module.stop() == 0


def test_another_server_takes_over(server: ServerProcess, start_module) -> None:
    """New database, new keys, new tokens: the module introduces itself again, and callers get new tokens."""
    module = start_module()

    async def main() -> None:
        async with calling(server) as caller:
            assert await caller.call(SERVICE, "echo", {"text": "a"}) == "a"
            before = [instance.id for instance in caller.directory.all()]
            server.kill()
            for path in sorted(server.state.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            await asyncio.to_thread(server.start)
            await asyncio.to_thread(module.registered, 2)
            await eventually(lambda: [i.id for i in caller.directory.offering(SERVICE)] not in ([], before))
            assert await caller.call(SERVICE, "echo", {"text": "b"}) == "b"

    asyncio.run(main())
    assert module.stop() == 0


def test_a_stopping_module_finishes_what_it_began(server: ServerProcess, start_module, tmp_path: Path) -> None:
    modules, mark = [start_module(), start_module()], tmp_path / "begun"
    mark.touch()

    async def main() -> None:
        async with calling(server) as caller:
            asked = {"delay": 2.0, "mark": str(mark)}
            slow = [asyncio.create_task(caller.call(SERVICE, "once", asked)) for _ in range(16)]
            await eventually(lambda: len(mark.read_text().splitlines()) == len(slow))
            modules[0].process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 1.0
            while time.monotonic() < deadline:
                await asyncio.gather(*(caller.call(SERVICE, "once", {}) for _ in range(16)))
            assert {await task for task in slow} == {module.pid for module in modules}
            await eventually(lambda: len(caller.directory.all()) == 1)

    asyncio.run(main())
    assert modules[0].process.wait(END_S) == 0


def test_a_service_that_never_answers(server: ServerProcess, start_module) -> None:
    start_module()

    async def main() -> None:
        async with calling(server) as caller:
            never = [caller.call(SERVICE, "never", {}, timeout=0.5) for _ in range(100)]
            async with asyncio.timeout(25):  # without a timeout of their own they would take 30 s
                results = await asyncio.gather(*never, return_exceptions=True)
            assert {type(result) for result in results} == {DeadlineExceeded}
            assert await caller.call(SERVICE, "echo", {"text": "still here"}) == "still here"

    asyncio.run(main())


def test_a_module_may_only_be_itself(server: ServerProcess, start_module) -> None:
    token = server.llmctl("token", "create", "--kind", "module", "other").stdout.strip()
    module = start_module(wait=False, LLMAGENTOS_SERVER=server.url, LLMAGENTOS_TOKEN=token)
    assert module.process.wait(END_S) == 2
    assert "may not register the module 'hello-service'" in module.log()
    own = server.llmctl("token", "create", "--kind", "module", SERVICE).stdout.strip()
    start_module(LLMAGENTOS_SERVER=server.url, LLMAGENTOS_TOKEN=own)
    assert json.loads(server.llmctl("services", "--json").stdout)[0]["module"] == SERVICE


def test_a_module_without_a_server_says_so(server: ServerProcess, start_module) -> None:
    module = start_module(wait=False, LLMAGENTOS_STATE="/nonexistent")
    assert module.process.wait(END_S) == 1
    assert "no LLMAgentOS server is known here" in module.log()
    assert "hint: start one with `llmctl up`" in module.log()


STUCK = """
import time
from llmagentos import Module, Service


class StuckService(Service):
    def sleep(self, mark: str):
        open(mark, "w").close()
        time.sleep(600)


module = Module("stuck")
module.register_service(StuckService)
module.start()
"""


def test_a_plain_method_that_never_returns_does_not_hold_up_the_end(
    server: ServerProcess, start_module, tmp_path: Path
) -> None:
    module, mark = start_module(STUCK), tmp_path / "begun"

    async def main() -> None:
        async with calling(server) as caller:
            while not mark.exists():  # it may have been late before it began
                with pytest.raises(DeadlineExceeded):
                    await caller.call("stuck", "sleep", {"mark": str(mark)}, timeout=0.2)
            assert module.stop() == 0  # in less time than the method's 600 s

    asyncio.run(main())


BACKGROUND = """
from llmagentos import Module
from llmagentos.core.errors import ConfigError

module = Module("worker")


async def work():
    raise ConfigError("the queue is missing", hint="make one")


module.add_background(work)
module.start()
"""


def test_background_work_that_fails_ends_the_module(server: ServerProcess, start_module) -> None:
    module = start_module(BACKGROUND, wait=False)
    assert module.process.wait(END_S) == 2
    assert module.log().endswith("error: the queue is missing\nhint: make one\n")
    assert "Traceback" not in module.log()
    assert json.loads(server.llmctl("services", "--json").stdout) == []


ESCAPING = """
import asyncio, sys
from llmagentos import Module, Service


class EscapingService(Service):
    def leave(self):
        sys.exit(3)

    async def aleave(self):
        sys.exit(3)

    def interrupted(self):
        raise KeyboardInterrupt

    def exhausted(self):
        return next(iter([]))

    async def given_up(self):
        other = asyncio.ensure_future(asyncio.sleep(60))
        other.cancel()
        await other

    def leave_streaming(self):
        yield 1
        sys.exit(3)

    async def give_up_streaming(self):
        yield 1
        await self.given_up()


module = Module("escaping")
module.register_service(EscapingService)
module.start()
"""


def test_what_a_method_raises_ends_its_own_call_only(server: ServerProcess, start_module) -> None:
    """Whatever it is: `sys.exit` would end the module for all others, `StopIteration` cannot be carried by a future."""
    module = start_module(ESCAPING)
    raised = {
        "leave": "SystemExit",
        "aleave": "SystemExit",
        "interrupted": "KeyboardInterrupt",
        "exhausted": "StopIteration",
        "given_up": "CancelledError",
        "leave_streaming": "SystemExit",
        "give_up_streaming": "CancelledError",
    }

    async def failed(caller: ServiceCaller, method: str) -> str | None:
        with pytest.raises(ServiceError) as caught:
            result = await caller.call("escaping", method, {})
            assert method.endswith("streaming")
            _ = [item async for item in result]
        return caught.value.remote_type

    async def main() -> None:
        async with calling(server) as caller:
            assert {method: await failed(caller, method) for method in raised} == raised
            assert module.stop() == 0

    asyncio.run(main())
