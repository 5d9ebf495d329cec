"""What the gate adds to a call, and what it leaves of an engine's tokens: directly and through the server, in turns.

One call: a scripted engine that answers 8 tokens at once (so that only the gate's own work shows), and the
real small model with 8 tokens on one thread, so that a core is left for the server on two. Figures are
medians; the goal is less than 3 ms added. The engine is measured twice: that difference is the machine's noise.

Eight streams at once: the tokens per second of all, as a share of what the engine gives directly. Each pair
is made of neighbours in time with the same prompts, in turns which of them is first; the median of pairs counts,
and beside it stand direct measurements against each other, which show the noise. The scripted engine says a
token every 10 ms on each stream, as a GPU would, and as fast as it can; SmolLM2 computes on this machine's cores, so
whatever the gate, the server and the client compute is taken from it as well.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from llmagentos.api.http import HttpClient
from llmagentos.core.config import load
from llmagentos.core.discovery import read
from llmagentos.core.state import StateDirectory
from llmagentos.llm.engines import children
from llmagentos.llm.engines.local import place
from llmagentos.llm.engines.openai import split_base

FAST_ROUNDS, REAL_ROUNDS = 400, 25
TOKENS = 8
STREAMS = 8
PACED_TOKENS, FAST_TOKENS, REAL_TOKENS = 200, 2000, 48
PACED_PAIRS, FAST_ROUNDS_OF_8, REAL_PAIRS = 4, 3, 6
PACE_S = 0.01
GOAL_SHARE = 0.95
PORT = 7096
GOAL_MS = 3.0


def event(choices: list[dict[str, object]], **more: object) -> bytes:
    return b"data: " + json.dumps({"id": "x", "object": "chat.completion.chunk", "choices": choices} | more).encode()


def scripted_answer() -> bytes:
    """A whole streamed response of 8 tokens."""
    deltas: list[dict[str, str]] = [{"role": "assistant"}, *({"content": f"token{n} "} for n in range(TOKENS)), {}]
    chunks: list[dict[str, object]] = [
        {"id": "x", "choices": [{"index": 0, "delta": d, "finish_reason": None if d else "stop"}]} for d in deltas
    ]
    chunks.append({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": TOKENS, "total_tokens": 13}})
    events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {len(events)}\r\n\r\n"
    return (head + events).encode()


class Scripted(asyncio.Protocol):
    """Answers every request with the same bytes."""

    answer = scripted_answer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.seen = b""

    def data_received(self, data: bytes) -> None:
        self.seen += data
        head, end, body = self.seen.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
            self.seen = b""
            asked = json.loads(body)
            if asked["max_tokens"] == TOKENS:
                self.transport.write(self.answer)  # type: ignore[attr-defined]
            else:
                self.telling = asyncio.get_running_loop().create_task(self.tell(asked))

    async def tell(self, asked: dict[str, int]) -> None:
        """`max_tokens` tokens, with a `seed` one every `PACE_S` seconds, else as fast as they are taken."""
        write = self.transport.write  # type: ignore[attr-defined]
        write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        begun = time.perf_counter()
        for number in range(asked["max_tokens"]):
            piece = event([{"index": 0, "delta": {"content": f"token{number} "}, "finish_reason": None}]) + b"\n\n"
            write(b"%x\r\n%b\r\n" % (len(piece), piece))
            left = begun + (number + 1) * PACE_S - time.perf_counter()
            if "seed" in asked:
                await asyncio.sleep(max(0.0, left))
            elif number % 20 == 19:
                await asyncio.sleep(0)
        usage = {"prompt_tokens": 5, "completion_tokens": asked["max_tokens"], "total_tokens": 0}
        end = event([{"index": 0, "delta": {}, "finish_reason": "stop"}]) + b"\n\n" + event([], usage=usage)
        end += b"\n\ndata: [DONE]\n\n"
        write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(end), end))


async def serve_scripted() -> None:
    server = await asyncio.get_running_loop().create_server(Scripted, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def running() -> Iterator[tuple[str, str, str, str]]:
    """Server, scripted engine and real engine; gives the server's URL, a token, and where the engines answer."""
    processes: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryDirectory() as directory:
        try:
            fast = subprocess.Popen([sys.executable, __file__, "--engine"], stdout=subprocess.PIPE, text=True)
            processes.append(fast)
            assert fast.stdout is not None
            fast_url = f"http://127.0.0.1:{int(fast.stdout.readline())}/v1"
            file, state = Path(directory, "llmagentos.yaml"), StateDirectory(Path(directory, ".llmagentos"))
            file.write_text(
                f"server: {{address: '127.0.0.1:{PORT}'}}\nmodels:\n  fast: {{engine: openai, url: '{fast_url}'}}\n"
                f"  smollm2-135m: {{engine: llama.cpp, slots: {STREAMS}, context: 512, threads: 1}}\n"
            )
            env = {k: v for k, v in os.environ.items() if not k.startswith("LLMAGENTOS_")}
            env |= {"LLMAGENTOS_CONFIG": str(file), "LLMAGENTOS_STATE": str(state.root)}
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "text": True, "env": env}
            processes.append(subprocess.Popen([sys.executable, "-m", "llmagentos.server"], **quiet))  # type: ignore[call-overload]
            wait_for(state.credentials)
            (engine,) = children(load(file, environ={}).config, state)
            processes.append(subprocess.Popen(engine.argv, **quiet))  # type: ignore[call-overload]
            wait_for(engine.ready)
            token = read(state.credentials).token
            yield f"http://127.0.0.1:{PORT}/v1", token, fast_url, f"unix:{place(state, 'smollm2-135m').socket}"
        finally:
            for process in processes:
                process.terminate()
                process.wait(15)


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} does not appear"
        time.sleep(0.02)


class Calls:
    """The same chat at one address."""

    def __init__(self, base: str, model: str, token: str = "") -> None:
        self._origin, prefix = split_base(base)
        self._path = f"{prefix}/chat/completions"
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        self._http = HttpClient(max_idle=0 if base.startswith("unix:") else STREAMS)  # llama.cpp keeps none
        self._request = {
            "model": model,
            "messages": [{"role": "user", "content": "Say hi"}],
            "max_tokens": TOKENS,
            "temperature": 0,
        }

    async def time(self, *, stream: bool) -> tuple[float, float]:
        """Milliseconds to the first piece of the answer and to its end."""
        body = json.dumps(self._request | {"stream": stream}).encode()
        begun, first = time.perf_counter(), 0.0
        async with self._http.stream("POST", self._origin, self._path, headers=self._headers, body=body) as response:
            assert response.status == 200, await response.read()
            async for _ in response.iter_bytes():
                first = first or time.perf_counter()
        return (first - begun) * 1000, (time.perf_counter() - begun) * 1000

    async def tokens_per_second(self, tokens: int, *, paced: bool) -> float:
        """Of `STREAMS` streams together, each with a prompt of its own."""
        begun = time.perf_counter()
        counts = await asyncio.gather(*(self._stream(number, tokens, paced=paced) for number in range(STREAMS)))
        return sum(counts) / (time.perf_counter() - begun)

    async def _stream(self, number: int, tokens: int, *, paced: bool) -> int:
        text = f"Tell me a long story about the number {number}."
        more = {"seed": number} if paced else {}
        request = self._request | {"messages": [{"role": "user", "content": text}], "max_tokens": tokens} | more
        body, count = json.dumps(request | {"stream": True}).encode(), 0
        async with self._http.stream("POST", self._origin, self._path, headers=self._headers, body=body) as response:
            assert response.status == 200, await response.read()
            async for piece in response.iter_bytes():
                count += piece.count(b'"content":"') + piece.count(b'"content": "')
        return count


async def share(name: str, direct: Calls, gate: Calls, *, tokens: int, pairs: int, paced: bool = False) -> None:
    """Print what is left of the engine's tokens per second, by pairs of neighbours."""
    for calls in (direct, gate):
        await calls.tokens_per_second(tokens // 4, paced=paced)
    kept, noise, speeds = [], [], []
    before: float | None = None
    for number in range(pairs):
        arms = [("direct", direct), ("gate", gate)][:: 1 if number % 2 else -1]
        found = {arm: await calls.tokens_per_second(tokens, paced=paced) for arm, calls in arms}
        kept.append(found["gate"] / found["direct"])
        if before is not None:
            noise.append(found["direct"] / before)
        before = found["direct"]
        speeds.append(found["direct"])
    spread = f"{min(noise):.0%}-{max(noise):.0%}"
    print(
        f"{name}: {STREAMS} streams, engine directly {statistics.median(speeds):.0f} tokens/s; through the gate "
        f"{statistics.median(kept):.1%} of it (median of {pairs} pairs, {min(kept):.0%}-{max(kept):.0%}; "
        f"direct against direct {spread}; goal: {GOAL_SHARE:.0%})"
    )


async def compare(name: str, direct: Calls, gate: Calls, rounds: int) -> None:
    """Print the medians of calls in turns, so that the machine's other work falls on all alike."""
    times: dict[str, list[tuple[float, float]]] = {"direct": [], "stream": [], "whole": [], "again": []}
    for round_ in range(rounds + 5):
        arms = (("direct", direct, True), ("stream", gate, True), ("whole", gate, False), ("again", direct, True))
        for key, calls, stream in arms:
            measured = await calls.time(stream=stream)
            if round_ >= 5:
                times[key].append(measured)
    first = {key: statistics.median(t[0] for t in found) for key, found in times.items()}
    end = {key: statistics.median(t[1] for t in found) for key, found in times.items()}
    noise = abs(end["again"] - end["direct"])
    print(
        f"{name}: engine directly {end['direct']:.2f} ms (first piece {first['direct']:.2f}), twice differs {noise:.2f}"
    )
    added = {
        "first piece of a stream": first["stream"] - first["direct"],
        "whole stream": end["stream"] - end["direct"],
        "answer in one piece": end["whole"] - end["direct"],
    }
    for what, more in added.items():
        print(f"  the gate adds {more:6.2f} ms p50 to the {what} (goal: under {GOAL_MS:g})")


async def main() -> None:
    """Both engines, one after the other."""
    with running() as (server, token, fast, real):
        await compare("scripted engine, 8 tokens", Calls(fast, "fast"), Calls(server, "fast", token), FAST_ROUNDS)
        model = "smollm2-135m"
        await compare("SmolLM2-135M, 8 tokens", Calls(real, model), Calls(server, model, token), REAL_ROUNDS)
        engine, gate = Calls(fast, "fast"), Calls(server, "fast", token)
        await share("scripted, paced", engine, gate, tokens=PACED_TOKENS, pairs=PACED_PAIRS, paced=True)
        most = [await gate.tokens_per_second(FAST_TOKENS, paced=False) for _ in range(FAST_ROUNDS_OF_8)]
        print(
            f"scripted, as fast as it goes: the gate passes {statistics.median(most):.0f} tokens/s on {STREAMS} streams"
        )
        engine, gate = Calls(real, model), Calls(server, model, token)
        await share("SmolLM2-135M on one thread", engine, gate, tokens=REAL_TOKENS, pairs=REAL_PAIRS)


if __name__ == "__main__":
    uvloop.run(serve_scripted() if "--engine" in sys.argv else main())
