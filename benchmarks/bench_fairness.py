"""Light work beside heavy work through the real server, with a scripted engine of 4 slots (no model: it sleeps).

4 runs of 6 parallel calls of 1 s, and 12 runs of 4 calls of 0.1 s one after the other, all of one tenant, begin at
once: with `fcfs` and with `fair`. Then 1,000 streams that wait for a slot: what they cost in memory. Then 8 streams
at the same time, at the engine directly and through the gate: tokens a second, with the scripted engine and with the
real small model (on one thread, so that a core is left for the server on two).
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil
import uvloop

from llmagentos.api.client import ApiClient
from llmagentos.api.control import NewProgram, Program, begin
from llmagentos.api.hosting import LeaseRequest, lease
from llmagentos.api.http import HttpClient
from llmagentos.api.llm import ModelQueue
from llmagentos.core.config import load
from llmagentos.core.discovery import read
from llmagentos.core.state import StateDirectory
from llmagentos.llm.engines import children
from llmagentos.llm.engines.local import place
from llmagentos.llm.engines.openai import split_base

PORT = 7097
TOKENS_PER_S = 100
SLOTS = 4
HEAVY, LIGHT = 4, 12
WAITING = 1000
STREAMS = 8
REAL = "smollm2-135m"


# The scripted engine ------------------------------------------------------------------------------


async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Streams `max_tokens` tokens at `TOKENS_PER_S`, for any request."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            request = json.loads(await reader.readexactly(length))
            await answer(writer, request["max_tokens"], len(request["messages"][0]["content"]) // 4)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def answer(writer: asyncio.StreamWriter, tokens: int, tokens_in: int) -> None:
    """One response; it keeps to the pace whatever sleeping costs."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    begun = time.perf_counter()
    for number in range(tokens):
        await asyncio.sleep(begun + (number + 1) / TOKENS_PER_S - time.perf_counter())
        if writer.is_closing():
            raise ConnectionResetError
        event(writer, [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}])
    event(writer, [{"index": 0, "delta": {}, "finish_reason": "stop"}])
    event(writer, [], usage={"prompt_tokens": tokens_in, "completion_tokens": tokens})
    writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
    await writer.drain()


def event(writer: asyncio.StreamWriter, choices: list[dict[str, Any]], **more: Any) -> None:
    data = b"data: " + json.dumps({"choices": choices, **more}).encode() + b"\n\n"
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


async def serve_engine() -> None:
    server = await asyncio.start_server(engine, "127.0.0.1", 0, backlog=2000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


# A server in front of it --------------------------------------------------------------------------


@contextmanager
def scripted() -> Iterator[str]:
    """The URL of a scripted engine in a process of its own."""
    process = subprocess.Popen([sys.executable, __file__, "--engine"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.terminate()
        process.wait(15)


@contextmanager
def server(url: str, policy: str, *, slots: int, real: bool = False) -> Iterator[tuple[str, int, StateDirectory]]:
    """A server with the model `m` at `url`, and the small model with `real`; token, process id, state."""
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as directory:
        file, state = Path(directory, "llmagentos.yaml"), StateDirectory(Path(directory, ".llmagentos"))
        models: dict[str, Any] = {"m": {"engine": "openai", "url": url, "slots": slots, "queue": 2 * WAITING}}
        if real:
            models[REAL] = {"engine": "llama.cpp", "slots": STREAMS, "context": 512, "threads": 1}
        address = {"address": f"127.0.0.1:{PORT}", "limits": {"connections": 2 * WAITING}}
        file.write_text(json.dumps({"server": address, "scheduling": {"policy": policy}, "models": models}))
        env = {k: v for k, v in os.environ.items() if not k.startswith("LLMAGENTOS_")}
        env |= {"LLMAGENTOS_CONFIG": str(file), "LLMAGENTOS_STATE": str(state.root)}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": env}
        try:
            processes.append(subprocess.Popen([sys.executable, "-m", "llmagentos.server"], **quiet))  # type: ignore[call-overload]
            wait_for(state.credentials.exists, listens)
            for child in children(load(file, environ={}).config, state):
                processes.append(subprocess.Popen(child.argv, **quiet))  # type: ignore[call-overload]
                wait_for(child.ready.exists)
            yield read(state.credentials).token, processes[0].pid, state
        finally:
            for process in processes:
                process.terminate()
                process.wait(15)


def wait_for(*conditions: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not all(condition() for condition in conditions):
        assert time.monotonic() < deadline, "it does not start"
        time.sleep(0.02)


def listens() -> bool:
    try:
        with socket.create_connection(("127.0.0.1", PORT), timeout=1):
            return True
    except OSError:
        return False


class Caller:
    """Streams from one address with one token."""

    def __init__(self, base: str, token: str, http: HttpClient, model: str = "m") -> None:
        self._origin, prefix = split_base(base)
        self._path = f"{prefix}/chat/completions"
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        self._http = http
        self._model = model

    async def call(self, tokens: int, text: str = "Say so.") -> int:
        """Read an answer of so many tokens to its end; how many pieces came."""
        request = {
            "model": self._model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": tokens,
            "temperature": 0,
            "stream": True,
        }
        body, pieces = json.dumps(request).encode(), 0
        async with self._http.stream("POST", self._origin, self._path, headers=self._headers, body=body) as response:
            assert response.status == 200, await response.read()
            async for chunk in response.iter_bytes():
                pieces += chunk.count(b'"content":"') + chunk.count(b'"content": "')
        return pieces


# What is measured ---------------------------------------------------------------------------------


@asynccontextmanager
async def program(api: ApiClient, agent: str, http: HttpClient) -> AsyncIterator[Caller]:
    """A run whose calls the block makes."""
    made: Program = await begin(api, NewProgram(agent, [agent], "bench"))

    async def renew() -> None:
        while True:
            await asyncio.sleep(made.lease_s / 3)
            await lease(api, made.run, LeaseRequest(made.fence))

    renewing = asyncio.create_task(renew())
    try:
        yield Caller(f"http://127.0.0.1:{PORT}/v1", made.token, http)
    finally:
        renewing.cancel()


async def heavy(caller: Caller) -> None:
    """6 calls of a second at once."""
    await asyncio.gather(*(caller.call(TOKENS_PER_S) for _ in range(6)))


async def light(caller: Caller) -> None:
    """4 calls of a tenth of a second, one after the other."""
    for _ in range(4):
        await caller.call(TOKENS_PER_S // 10)


async def mixed(token: str) -> tuple[float, float, float]:
    """Mean completion of light and of heavy runs, and the makespan, in seconds."""
    http = HttpClient(max_idle=64)
    async with ApiClient(f"http://127.0.0.1:{PORT}", token) as api:
        kinds: list[tuple[str, Callable[[Caller], Awaitable[None]]]] = [("heavy", heavy)] * HEAVY
        kinds += [("light", light)] * LIGHT
        begun, took = 0.0, dict[str, list[float]](heavy=[], light=[])

        async def run(agent: str, work: Callable[[Caller], Awaitable[None]]) -> None:
            async with program(api, agent, http) as caller:
                await ready.wait()
                await go.wait()
                await work(caller)
                took[agent].append(time.perf_counter() - begun)

        ready, go = asyncio.Barrier(len(kinds) + 1), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for agent, work in kinds:
                group.create_task(run(agent, work))
            await ready.wait()
            begun = time.perf_counter()
            go.set()
    await http.aclose()
    return statistics.mean(took["light"]), statistics.mean(took["heavy"]), max(took["heavy"] + took["light"])


def fairness(url: str) -> None:
    """4 heavy runs beside 12 light ones."""
    print(f"\n{HEAVY} heavy runs (6 parallel calls of 1 s) and {LIGHT} light runs (4 calls of 0.1 s), {SLOTS} slots")
    found = {}
    for policy in ("fcfs", "fair"):
        with server(url, policy, slots=SLOTS) as (token, _, _):
            found[policy] = uvloop.run(mixed(token))
        mean_light, mean_heavy, makespan = found[policy]
        print(f"  {policy:5s} light {mean_light:5.2f} s  heavy {mean_heavy:5.2f} s  makespan {makespan:5.2f} s")
    ratios = [ours / base for ours, base in zip(found["fair"], found["fcfs"], strict=True)]
    print(f"  light {ratios[0]:.2f}x of fcfs (goal: at most 0.4), makespan {ratios[2]:.2f}x (goal: at most 1.1)")


async def queue_of(api: ApiClient) -> ModelQueue:
    return (await api.get("/api/v1/models/queue?limit=1", list[ModelQueue]))[0]


async def crowd(token: str, pid: int) -> None:
    """1,000 streams that wait."""
    http = HttpClient(max_idle=0)
    caller = Caller(f"http://127.0.0.1:{PORT}/v1", token, http)
    process = psutil.Process(pid)
    async with ApiClient(f"http://127.0.0.1:{PORT}", token) as api:
        before = process.memory_info().rss
        begun = time.perf_counter()
        tasks = [asyncio.create_task(caller.call(100_000, "word " * 200)) for _ in range(WAITING + 1)]
        queue = await queue_of(api)
        while queue.waiting_count < WAITING:
            await asyncio.sleep(0.05)
            queue = await queue_of(api)
        took, held = time.perf_counter() - begun, process.memory_info().rss
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    print(f"\n{queue.waiting_count} streams that wait (all there after {took:.1f} s)")
    print(
        f"  the server holds them in {held / 1e6:.0f} MB in all (goal: under 500), "
        f"{(held - before) / WAITING / 1e3:.0f} kB each"
    )


async def rate(caller: Caller, tokens: int) -> float:
    """Tokens a second of 8 streams together."""
    begun = time.perf_counter()
    pieces = await asyncio.gather(*(caller.call(tokens, f"Tell story {n}.") for n in range(STREAMS)))
    return sum(pieces) / (time.perf_counter() - begun)


async def throughput(name: str, direct: Caller, gate: Caller, tokens: int, rounds: int) -> None:
    """The engine directly and through the gate, in turns: the median of the ratios of neighbours."""
    found: list[tuple[float, float]] = []
    for number in range(rounds + 1):
        measured = await rate(direct, tokens), await rate(gate, tokens)
        if number:
            found.append(measured)
    directly, through = (statistics.median(rates) for rates in zip(*found, strict=True))
    ratios = [ours / theirs for theirs, ours in found]
    print(
        f"  {name}: directly {directly:.0f} tokens/s, through the gate {through:.0f}: "
        f"{statistics.median(ratios):.1%} of it, {min(ratios):.1%} to {max(ratios):.1%} (goal: at least 95%)"
    )


async def eight_streams(url: str, token: str, state: StateDirectory) -> None:
    """Throughput with the scripted engine and with the real small model."""
    print(f"\n{STREAMS} streams at once")
    http, once = HttpClient(max_idle=64), HttpClient(max_idle=0)
    gate = f"http://127.0.0.1:{PORT}/v1"
    await throughput("scripted engine", Caller(url, "", http), Caller(gate, token, http), 200, 2)
    there = f"unix:{place(state, REAL).socket}"
    await throughput("SmolLM2-135M", Caller(there, "", once, REAL), Caller(gate, token, http, REAL), 48, 5)


def main() -> None:
    """All of it, about a minute."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    with scripted() as url:
        fairness(url)
        with server(url, "fair", slots=1) as (token, pid, _):
            uvloop.run(crowd(token, pid))
        with server(url, "fair", slots=STREAMS, real=True) as (token, _, state):
            uvloop.run(eight_streams(url, token, state))


if __name__ == "__main__":
    if "--engine" in sys.argv:
        uvloop.run(serve_engine())
    else:
        main()
