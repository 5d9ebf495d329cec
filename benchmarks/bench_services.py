"""Service calls against grpcio's asyncio stack, a bare uvloop echo, and the same service behind granian (RSGI).

Every contender has a server process and a client process; three rounds, taken in turn; the best of each counts.
Ours is the whole path as a user has it: registry, signed token, type hints, metrics. grpcio carries a protobuf
string and a token that is only compared.

Targets: at least 5 times grpcio's calls/s, at most 3 times the bare echo's p50.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

TEXT = "hello"
TOKEN = "Bearer " + "t" * 250  # as long as ours
SEQUENTIAL = 2000
AT_ONCE = 64
SECONDS = 1.0
ROUNDS = 3
SERVICE = "bench"


# --- clients ------------------------------------------------------------------------------------
async def measure(call: Callable[[], Awaitable[Any]]) -> dict[str, float]:
    """Sequential latency, then calls/s and CPU time a call with 64 at once."""
    for _ in range(200):
        await call()
    times = []
    for _ in range(SEQUENTIAL):
        begun = time.perf_counter()
        await call()
        times.append(time.perf_counter() - begun)
    done = 0
    end = time.perf_counter() + SECONDS

    async def worker() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await call()
            done += 1

    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    elapsed, cpu = time.perf_counter() - begun, time.process_time() - cpu
    times.sort()
    return {
        "p50_us": statistics.median(times) * 1e6,
        "p99_us": times[int(len(times) * 0.99)] * 1e6,
        "calls_s": done / elapsed,
        "cpu_us": cpu / done * 1e6,
    }


async def client_bare(address: str) -> dict[str, float]:
    host, port = address.split(":")
    loop = asyncio.get_running_loop()
    payload = json.dumps({"text": TEXT}).encode()
    free: list[_Raw] = []

    async def call() -> None:
        raw = free.pop() if free else (await loop.create_connection(_Raw, host, int(port)))[1]
        await raw.ask(payload)
        free.append(raw)

    return await measure(call)


class _Raw(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.waiter.set_result(data)

    def ask(self, payload: bytes) -> asyncio.Future[bytes]:
        self.waiter = asyncio.get_running_loop().create_future()
        self.transport.write(payload)
        return self.waiter


async def client_grpc(address: str) -> dict[str, float]:
    import grpc.aio
    from google.protobuf.wrappers_pb2 import StringValue

    metadata = (("authorization", TOKEN),)
    async with grpc.aio.insecure_channel(address) as channel:
        echo = channel.unary_unary("/bench/echo", StringValue.SerializeToString, StringValue.FromString)
        return await measure(lambda: echo(StringValue(value=TEXT), timeout=30, metadata=metadata))


async def client_service(service: str) -> dict[str, float]:
    from llmagentos import ServiceClient

    client = ServiceClient(service)
    assert await client.acall("echo", text=TEXT) == TEXT
    return await measure(lambda: client.acall("echo", text=TEXT))


# --- servers ------------------------------------------------------------------------------------
async def server_bare() -> None:
    class Echo(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    print(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


async def server_grpc() -> None:
    import grpc.aio
    from google.protobuf.wrappers_pb2 import StringValue

    async def echo(request: StringValue, context: Any) -> StringValue:
        if dict(context.invocation_metadata()).get("authorization") != TOKEN:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED)
        return StringValue(value=request.value)

    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(echo, StringValue.FromString, StringValue.SerializeToString)
    handler = grpc.method_handlers_generic_handler("bench", {"echo": method})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.Event().wait()


def server_service() -> None:
    from llmagentos import Module, Service

    class Bench(Service):
        async def echo(self, text: str) -> str:
            return text

    module = Module(SERVICE)
    module.register_service(Bench)

    async def ready() -> None:
        print(SERVICE, flush=True)

    module.add_background(ready)
    module.start()


class Rsgi:
    """The same service behind granian: token check, type hints and dispatch are ours, the rest is granian's."""

    def __init__(self) -> None:
        from llmagentos import Service
        from llmagentos.services.rpc.dispatch import Dispatcher
        from llmagentos.services.rpc.limits import Limits
        from llmagentos.services.service import methods_of

        class Bench(Service):
            async def echo(self, text: str) -> str:
                return text

        self.methods = methods_of("granian", Bench())
        self.dispatcher = Dispatcher("granian", {}, Limits())
        self.dispatcher.add("granian", self.methods)

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.task = loop.create_task(self.register())

    async def register(self) -> None:
        from llmagentos.api import registry
        from llmagentos.api.registry import Registration, ServiceSpec
        from llmagentos.security.service_tokens import ServiceTokenVerifier
        from llmagentos.services.link import ServerLink

        link = ServerLink()
        specs = [ServiceSpec("granian", "", [method.spec for method in self.methods.values()])]
        address = f"http://127.0.0.1:{os.environ['GRANIAN_BENCH_PORT']}"
        found = await registry.register(link.api, Registration("granian", "1", address, specs))
        self.dispatcher.verifier = ServiceTokenVerifier({"keys": found.jwks.keys})
        print("granian", flush=True)
        while True:
            await asyncio.sleep(3)
            await registry.renew(link.api, found.instance, timeout=3)

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        from llmagentos.services.rpc.http import Request

        headers = {name.lower().encode(): value.encode() for name, value in scope.headers.items()}
        request = Request(scope.method.encode(), scope.path.encode(), headers)
        request.accepted = self.dispatcher.accept(request)
        request.body = await protocol()
        answer: Any = await self.dispatcher.answer(request)
        protocol.response_bytes(answer.status, [("content-type", "application/json")], answer.body)


def server_granian() -> None:
    import socket

    from granian.constants import Interfaces
    from granian.server.embed import Server

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ["GRANIAN_BENCH_PORT"] = str(port)
    server = Server(Rsgi(), address="127.0.0.1", port=port, interface=Interfaces.RSGI)

    async def serve() -> None:
        await server.serve()

    import uvloop

    uvloop.run(serve())


# --- the run ------------------------------------------------------------------------------------
KINDS = ("bare", "service", "granian", "grpc")
CLIENTS = {"bare": client_bare, "service": client_service, "granian": client_service, "grpc": client_grpc}


def start(kind: str, env: dict[str, str]) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, __file__, "server", kind],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if not line.startswith("["):  # granian warns on stdout
            return process, line.strip()
    raise SystemExit(f"the {kind} server did not start")


def start_llmagentos(state: str) -> tuple[subprocess.Popen[str], dict[str, str]]:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("LLMAGENTOS_")}
    env = clean | {"LLMAGENTOS_STATE": state, "LLMAGENTOS_SERVER_ADDRESS": f"127.0.0.1:{port}"}
    env["LLMAGENTOS_LOG_LEVEL"] = "warning"
    process = subprocess.Popen(
        [sys.executable, "-m", "llmagentos.server"],
        cwd=Path(state).parent,
        env=env,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return process, env
    raise SystemExit("the server did not start")


def main() -> None:
    """Run all, print the table and the ratios; 1 when a target is missed."""
    results: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as directory:
        server, env = start_llmagentos(f"{directory}/.llmagentos")
        running = [server]
        try:
            for _ in range(ROUNDS):
                for kind in KINDS:
                    process, address = start(kind, env)
                    running.append(process)
                    client = [sys.executable, __file__, "client", kind, address]
                    done = subprocess.run(client, env=env, capture_output=True, text=True, timeout=60, check=True)
                    results[kind].append(json.loads(done.stdout))
                    process.send_signal(signal.SIGKILL if kind in ("granian", "bare", "grpc") else signal.SIGTERM)
                    process.wait(15)
        finally:
            for process in running:
                process.kill()
                process.wait()
    report(results)


def report(results: dict[str, list[dict[str, float]]]) -> None:
    best = {
        kind: {name: (max if name == "calls_s" else min)(run[name] for run in runs) for name in runs[0]}
        for kind, runs in results.items()
    }
    print(f"{'':<10}{'p50 us':>9}{'p99 us':>9}{'calls/s':>10}{'client CPU us':>15}")
    for kind, row in best.items():
        print(f"{kind:<10}{row['p50_us']:>9.0f}{row['p99_us']:>9.0f}{row['calls_s']:>10.0f}{row['cpu_us']:>15.0f}")
    throughput = best["service"]["calls_s"] / best["grpc"]["calls_s"]
    latency = best["service"]["p50_us"] / best["bare"]["p50_us"]
    print(f"calls/s against grpcio aio: {throughput:.1f} times (target: at least 5)")
    print(f"p50 against the bare echo: {latency:.1f} times (target: at most 3)")
    print(f"calls/s against granian RSGI: {best['service']['calls_s'] / best['granian']['calls_s']:.1f} times")


if __name__ == "__main__":
    if sys.argv[1:2] == ["server"]:
        found = globals()[f"server_{sys.argv[2]}"]
        if asyncio.iscoroutinefunction(found):
            import uvloop

            (asyncio if sys.argv[2] == "grpc" else uvloop).run(found())
        else:
            found()
    elif sys.argv[1:2] == ["client"]:
        import uvloop

        runner: Any = asyncio if sys.argv[2] == "grpc" else uvloop
        print(json.dumps(runner.run(CLIENTS[sys.argv[2]](sys.argv[3]))))
    else:
        main()
