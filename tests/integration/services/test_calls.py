"""Calls across processes, as a user writes them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec

from support.server import ServerProcess

PROVIDER = """
from llmagentos import Module, Service


class HelloService(Service):
    def say_hello(self, name):
        return f"Hello, {name}!"


module = Module("hello-service")
module.register_service(HelloService)
module.start()
"""


def test_the_first_example(server: ServerProcess, start_module, consumer: Callable[[str], str]) -> None:
    module = start_module(PROVIDER)
    printed = consumer(
        'from llmagentos import ServiceClient\nprint(ServiceClient("hello-service").call("say_hello", name="world"))\n'
    )
    assert printed == "Hello, world!\n"
    called = server.llmctl("call", "hello-service", "say_hello", "name=world")
    assert (called.returncode, called.stdout) == (0, '"Hello, world!"\n')
    assert module.stop() == 0
    assert json.loads(server.llmctl("services", "--json").stdout) == []


def test_the_whole_face(start_module, consumer: Callable[[str], str], tmp_path: Path) -> None:
    start_module()
    printed = consumer(
        """
import asyncio
from dataclasses import dataclass
from llmagentos import ServiceClient, ServiceError

@dataclass
class Point:
    x: int
    y: int

client = ServiceClient("hello-service")
print(client.say_hello(name="Ada"))
print(client.using(returns=Point).call("move", point=Point(1, 2), by=[3, 4]))
print(list(client.count(n=3)), list(client.call("acount", n=2)))
print(client.nested_plain())

def told(work):
    try:
        print("no error:", work())
    except Exception as error:
        print(type(error).__name__, getattr(error, "remote_type", None), error, "|", error.hint)

told(lambda: client.fail())
told(lambda: client.say_helo(name="x"))
told(lambda: client.echo(text=3))
told(lambda: client.echo(txt="a"))
told(lambda: client.move(point={"x": 1}, by=[1, "b"]))
told(lambda: client.using(timeout=0.2).never())
told(lambda: list(client.acount(n=3, fail_at=2)))
told(lambda: ServiceClient("helo-service").using(timeout=0.3).anything())

async def main():
    print(await client.acall("echo", text="hi"))
    print([item async for item in await client.acall("acount", n=2)])
    print(await asyncio.gather(*(client.acall("echo", text=str(i)) for i in range(5))))
    told(lambda: client.call("echo", text="blocks"))
    nested = await client.using(timeout=20).acall("nested")  # its own calls have 30 s by themselves
    print(0 < nested.pop("seconds") < 20, nested)

asyncio.run(main())
"""
    )
    lines = [re.sub(r"within 0\.[01]\d+ s", "within 0.2 s", line) for line in printed.splitlines()]  # or what was left
    assert lines == [
        "Hello, Ada!",
        "Point(x=4, y=6)",
        "[0, 1, 2] [{'i': 0}, {'i': 1}]",
        "Hello, nested!",
        "ServiceError LookupError nothing here | None",
        "UnknownMethod None the service 'hello-service' has no method 'say_helo'; it has acount, count, echo, "
        "endless, fail, held, left, move, nested, nested_plain, never, once, say_hello, where | "
        "did you mean 'say_hello'?",
        "BadArguments None hello-service.echo: Expected `str`, got `int` - at `$.text` | it takes text",
        "BadArguments None hello-service.echo: there is no parameter `txt` | did you mean 'text'? it takes text",
        "BadArguments None hello-service.move: Expected `int`, got `str` - at `$.by[1]` | it takes point, by",
        "DeadlineExceeded None hello-service.never: no answer within 0.2 s | None",
        "ServiceError RuntimeError enough | None",
        "NoInstance None no instance of the service 'helo-service' is registered | did you mean 'hello-service'?",
        "hi",
        "[{'i': 0}, {'i': 1}]",
        "['0', '1', '2', '3', '4']",
        "WouldBlock None call('echo') would block this event loop | await client.acall('echo', ...) instead",
        "True {'caller': 'admin:admin', 'run': 'run1'}",
    ]


def test_the_shell(server: ServerProcess, start_module) -> None:
    module = start_module(wait=False)
    waited = server.llmctl("services", "--wait", "hello-service", "--timeout", "60s", "--json")
    rows = json.loads(waited.stdout)
    assert [(row["name"], row["module"], row["state"]) for row in rows] == [("hello-service", "hello-service", "up")]
    assert "hello-service" in server.llmctl("services").stdout
    streamed = server.llmctl("call", "hello-service", "count", "n=2")
    assert (streamed.returncode, streamed.stdout) == (0, "0\n1\n")
    moved = server.llmctl("call", "hello-service", "move", "--json-args", '{"point": {"x": 1}}', "by=[1, 1]")
    assert json.loads(moved.stdout) == {"x": 2, "y": 1}
    wrong = server.llmctl("call", "hello-service", "say_helo")
    assert wrong.returncode == 2
    assert "did you mean 'say_hello'?" in wrong.stderr
    assert server.llmctl("call", "hello-service", "echo", "oops").returncode == 2
    failed = server.llmctl("call", "hello-service", "fail")
    assert (failed.returncode, failed.stderr) == (1, "error: LookupError: nothing here\n")
    assert server.llmctl("call", "hello-service", "never", "--timeout", "0.2").returncode == 1
    missing = server.llmctl("services", "--wait", "other", "--timeout", "0.3")
    assert missing.returncode == 1
    assert "other" in missing.stderr
    assert module.stop() == 0


def curl(*arguments: str) -> tuple[int, bytes]:
    done = subprocess.run(
        ["curl", "-s", "-w", "\n%{http_code}", *arguments], capture_output=True, timeout=100, check=False
    )
    body, _, status = done.stdout.rpartition(b"\n")
    return int(status), body


def test_curl(server: ServerProcess, start_module, promtool: str, tmp_path: Path) -> None:
    start_module()
    address = json.loads(server.llmctl("services", "--json").stdout)[0]["address"]
    method = f"{address}/services/hello-service/say_hello"
    for path in ("/services/hello-service/say_hello", "/health", "/metrics", "/openapi.json", "/", "/services/x/y"):
        for extra in (
            [],
            ["-d", "{}"],
            ["-H", "Authorization: Bearer nonsense"],
            ["-H", f"Authorization: Bearer {server.token}"],
        ):
            assert curl(*extra, f"{address}{path}")[0] == 401, (path, extra)
    token = server.llmctl("token", "service", "hello-service").stdout.strip()
    auth = ["-H", f"Authorization: Bearer {token}"]
    assert curl(*auth, "-d", '{"name": "curl"}', method) == (200, b'"Hello, curl!"')
    assert curl(*auth, "-H", "Transfer-Encoding: chunked", "-d", '{"name": "curl"}', method) == (200, b'"Hello, curl!"')
    assert curl(*auth, method)[0] == 405
    status, body = curl(*auth, "-d", '{"name": "curl"', method)
    assert status == 400
    assert b"truncated" in body
    status, body = curl(*auth, "-d", "{}", f"{address}/services/hello-service/say_helo")
    assert status == 404
    assert b"did you mean 'say_hello'?" in body
    assert curl(*auth, "-d", "{}", f"{address}/services/other/x")[0] == 401, "a token is for one service"
    assert curl(*auth, "-d", '{"n": 2}', f"{address}/services/hello-service/count") == (
        200,
        b'{"item":0}\n{"item":1}\n{"end":true}\n',
    )
    big = tmp_path / "big"
    big.write_bytes(b" " * (50 * 1024 * 1024))
    assert curl(*auth, "-H", "Expect:", "--data-binary", f"@{big}", method)[0] == 413
    assert curl(*auth, "--data-binary", f"@{big}", method)[0] == 413
    document = msgspec.json.decode(curl(*auth, f"{address}/openapi.json")[1])
    assert "/services/hello-service/move" in document["paths"]
    assert curl(*auth, f"{address}/health") == (200, b'{"status":"ok"}')
    status, metrics = curl(*auth, f"{address}/metrics")
    assert b"llmagentos_service_request_duration_seconds" in metrics
    checked = subprocess.run([promtool, "check", "metrics"], input=metrics, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_caller_that_hangs_up_stops_the_method(server: ServerProcess, start_module, consumer, tmp_path: Path) -> None:
    start_module()
    mark = tmp_path / "mark"
    printed = consumer(
        f"""
import asyncio, os, time
from llmagentos import ServiceClient

client = ServiceClient("hello-service")
for item in client.call("endless", mark={str(mark) + "1"!r}):
    break
del item

async def main():
    items = await client.acall("endless", mark={str(mark) + "2"!r})
    async for item in items:
        break
    await items.aclose()
    call = asyncio.create_task(client.acall("held", mark={str(mark) + "3"!r}))
    while not os.path.exists({str(mark) + "3.begun"!r}):
        await asyncio.sleep(0.01)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    deadline = time.monotonic() + 30
    while not all(os.path.exists({str(mark)!r} + n) for n in "23") and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    print(all(os.path.exists({str(mark)!r} + n) for n in "23"))

asyncio.run(main())
"""
    )
    assert printed == "True\n"
