"""Where a call goes and when it is sent again, with instances that are scripted at the transport."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from llmagentos.api import problem
from llmagentos.api.http import ConnectFailed, ConnectionLost, HttpClient, Response, Target
from llmagentos.api.registry import Change, Instance, MethodSpec, ServiceSpec
from llmagentos.api.tokens import ServiceToken
from llmagentos.core.clock import SystemClock
from llmagentos.core.errors import DeadlineExceeded, InvalidInput, ServiceError, Unauthenticated, Unavailable
from llmagentos.services import context
from llmagentos.services.caller import ServiceCaller
from llmagentos.services.context import CallContext
from llmagentos.services.directory import Directory
from llmagentos.services.errors import CallInterrupted, NoInstance, Overloaded, UnknownMethod
from llmagentos.services.tokens import ServiceTokens

REFUSED = {context.REFUSED_HEADER.lower(): "1"}


def instance(number: int, *, state: Any = "up", methods: tuple[str, ...] = ("get", "put")) -> Instance:
    specs = [MethodSpec(name, idempotent=name == "get") for name in methods]
    return Instance(f"i{number}", "m", "1", f"http://10.0.0.{number}:80", [ServiceSpec("s", "", specs)], [], state, 0.0)


class Network(HttpClient):
    """Instances by number: a function of the request's bytes each."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts: dict[int, Callable[[bytes], Response]] = {}
        self.asked: list[int] = []
        self.requests: list[bytes] = []

    async def exchange(self, target: Target, request: bytes, timeout: float | None) -> Response:
        number = int(target.host.rpartition(".")[2])
        self.asked.append(number)
        self.requests.append(request)
        await asyncio.sleep(0)
        return self.hosts[number](request)


def ok(_: bytes) -> Response:
    return Response(200, {}, b'"ok"')


def dead(_: bytes) -> Response:
    raise ConnectFailed("refused")


def dying(_: bytes) -> Response:
    raise ConnectionLost("gone")


def answer(error: Any, headers: dict[str, str] | None = None) -> Callable[[bytes], Response]:
    return lambda _: Response(error.status, headers or {}, problem.encode(error))


class World:
    def __init__(self, *hosts: Callable[[bytes], Response], wait: float = 0.05) -> None:
        self.network = Network()
        self.directory = Directory()
        self.directory.replace(instance(n) for n in range(1, len(hosts) + 1))
        self.network.hosts = dict(enumerate(hosts, 1))
        self.fetched = 0
        self.caller = ServiceCaller(
            self.directory,
            ServiceTokens(self.fetch, SystemClock()),
            self.network,
            SystemClock(),
            wait=wait,
            draw=lambda n: 0,
        )

    async def fetch(self, service: str) -> ServiceToken:
        self.fetched += 1
        return ServiceToken(f"token{self.fetched}", 3600.0)

    async def call(self, method: str = "get", **options: Any) -> Any:
        return await self.caller.call("s", method, {}, **options)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def failing(world: World, kind: type[Exception], method: str = "put", **options: Any) -> Any:
    with pytest.raises(kind) as told:
        run(world.call(method, **options))
    return told.value


def test_one_that_cannot_be_reached_is_passed_over_and_then_avoided() -> None:
    world = World(dead, ok, ok)

    async def main() -> None:
        for _ in range(50):
            assert await world.call("put") == "ok"

    run(main())
    assert Counter(world.network.asked)[1] == 1, "a suspect gets no more calls"


def test_a_lost_call_is_repeated_only_when_idempotent() -> None:
    world = World(dying, ok)
    assert run(world.call("get")) == "ok"
    assert world.network.asked == [1, 2]
    world = World(dying, ok)
    error = failing(world, CallInterrupted)
    assert world.network.asked == [1]
    assert "may have been carried out" in error.message
    assert "@idempotent" in error.hint


def test_a_call_that_kills_instances_is_not_fed_to_all_of_them() -> None:
    world = World(*[dying] * 10)
    failing(world, CallInterrupted, "get")
    assert len(world.network.asked) == 3


def test_when_none_can_be_reached_it_waits_for_news() -> None:
    world = World(dead, dead, wait=5.0)

    async def main() -> None:
        call = asyncio.create_task(world.call("put"))
        while len(world.network.asked) < 2:
            await asyncio.sleep(0)
        world.network.hosts[3] = ok
        world.directory.apply(Change("up", instance(3)))
        assert await call == "ok"

    run(main())
    assert world.network.asked[-1] == 3
    assert "no instance can be reached" in failing(World(dead, dead), Unavailable).message


def test_nobody_there() -> None:
    world = World(ok)
    with pytest.raises(NoInstance, match="'t'") as told:
        run(world.caller.call("t", "get", {}))
    assert told.value.hint == "is its module running? registered are: s"

    async def later() -> None:
        late = World(wait=5.0)
        late.network.hosts[1] = ok
        call = asyncio.create_task(late.call())
        await asyncio.sleep(0)
        late.directory.apply(Change("up", instance(1)))
        assert await call == "ok"

    run(later())


def test_a_refusal_goes_elsewhere_a_failure_does_not() -> None:
    busy = answer(Overloaded("busy", retry_after=1.0), REFUSED)
    world = World(busy, ok)
    assert run(world.call("put")) == "ok"
    assert world.network.asked == [1, 2]
    failing(World(busy, busy), Overloaded)
    # The same code from inside the method is its result: nothing is repeated.
    world = World(answer(Overloaded("busy", retry_after=1.0)), ok)
    failing(world, Overloaded)
    assert world.network.asked == [1]
    error = failing(World(answer(ServiceError("no", remote_type="ValueError"))), ServiceError)
    assert (error.message, error.remote_type) == ("no", "ValueError")


def test_an_old_token_is_replaced_once() -> None:
    def picky(request: bytes) -> Response:
        return ok(request) if b"Bearer token2\r\n" in request else old(request)

    old = answer(Unauthenticated("expired"), REFUSED)
    world = World(picky)
    assert run(world.call("put")) == "ok"
    assert world.fetched == 2
    world = World(old)
    failing(world, Unauthenticated)
    assert len(world.network.asked) == 2


def test_methods_of_newer_instances() -> None:
    world = World(ok, ok)
    world.directory.apply(Change("up", instance(2, methods=("get", "put", "patch"))))
    for _ in range(5):
        assert run(world.call("patch")) == "ok"
    assert set(world.network.asked) == {2}
    error = failing(world, UnknownMethod, "pat")
    assert error.message == "the service 's' has no method 'pat'; it has get, patch, put"
    assert run(world.caller.describe("s", "get")).idempotent


def test_draining_instances_get_calls_only_when_alone() -> None:
    world = World(ok, ok)
    world.directory.apply(Change("draining", instance(1, state="draining")))
    for _ in range(5):
        run(world.call())
    assert set(world.network.asked) == {2}
    world.directory.apply(Change("down", instance(2)))
    assert run(world.call()) == "ok"
    assert world.network.asked[-1] == 1


def test_what_travels_with_a_call() -> None:
    world = World(ok)

    async def main() -> None:
        context.enter(CallContext(SystemClock().monotonic() + 500.0, "run1", "00-abc-def-01"))
        await world.call(timeout=6000.0)

    run(main())
    head = world.network.requests[0].decode()
    assert head.startswith("POST /services/s/get HTTP/1.1\r\n")
    assert 400.0 < float(head.partition("X-LLMAgentOS-Timeout: ")[2].partition("\r\n")[0]) <= 500.0
    assert "\r\ntraceparent: 00-abc-def-01\r\n" in head
    assert "\r\nX-LLMAgentOS-Run: run1\r\n" in head
    failing(world, InvalidInput, run_id="a\r\nEvil: 1")


def test_a_deadline_that_has_passed() -> None:
    world = World(ok)

    async def main() -> None:
        context.enter(CallContext(SystemClock().monotonic() - 1.0))
        await world.call()

    with pytest.raises(DeadlineExceeded):
        run(main())
    assert world.network.asked == []


def test_results_are_converted() -> None:
    world = World(lambda _: Response(200, {}, msgspec.json.encode({"id": "a"})))
    assert run(world.call(returns=dict[str, str])) == {"id": "a"}
    assert "does not fit" in failing(world, ServiceError, returns=int).message
    with pytest.raises(InvalidInput, match=r"s\.get: .*object"):
        run(world.caller.call("s", "get", {"x": object()}))


def test_calls_in_work_are_counted_on_every_path() -> None:
    world = World(dead, dying, ok, answer(ServiceError("no")))

    async def main() -> None:
        await asyncio.gather(*(world.call("get") for _ in range(30)), return_exceptions=True)
        assert [peer.outstanding for peer in world.caller._peers.values()] == [0] * 4

    run(main())


def test_tokens_outlive_a_server_that_is_away() -> None:
    class Clock(SystemClock):
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    answers: list[Any] = [
        ServiceToken("one", 100.0),
        Unavailable("away"),
        Unavailable("away"),
        ServiceToken("two", 9.0),
    ]
    asked = []

    async def fetch(service: str) -> ServiceToken:
        asked.append(clock.now)
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def main() -> None:
        tokens = ServiceTokens(fetch, clock)
        got = []
        for now in (0, 49, 51, 55, 62):
            clock.now = float(now)
            got.append(await tokens.get("s"))
        assert got == ["one"] * 5
        assert asked == [0, 51, 62], "not asked again at once"
        clock.now = 101.0
        assert await tokens.get("s") == "two"
        clock.now = 200.0
        answers.append(Unavailable("away"))
        with pytest.raises(Unavailable):
            await tokens.get("s")

    run(main())
