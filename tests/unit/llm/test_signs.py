"""What servers say of themselves, read from a scripted endpoint that serves what the real ones serve."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.api.http import HttpClient
from llmagentos.api.llm import ModelInfo
from llmagentos.core.clock import ManualClock
from llmagentos.core.config.schema import OpenAI
from llmagentos.llm.engines.signs import NAMES, Reader, Signs, measured, running, samples
from support.gate import gate
from support.scripted import Refuse, ScriptedEngine, scripted_engine

pytestmark = pytest.mark.anyio

# As these servers print them, shortened.
VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="qwen"} 3.0
vllm:num_requests_running{engine="1",model_name="qwen"} 2.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="qwen"} 7.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="qwen"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="qwen"} 0.625
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="qwen"} %s
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="qwen"} 6.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="qwen"} 2.5
vllm:time_to_first_token_seconds_count{engine="0",model_name="qwen"} 10.0
"""
SGLANG = """\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="meta-llama/Llama-3.1-8B-Instruct"} 162.0
sglang:num_queue_reqs{model_name="meta-llama/Llama-3.1-8B-Instruct"} 2826.0
sglang:token_usage{model_name="meta-llama/Llama-3.1-8B-Instruct"} 0.28
sglang:gen_throughput{model_name="meta-llama/Llama-3.1-8B-Instruct"} 86.50814177726902
sglang:time_to_first_token_seconds_sum{model_name="m"} 2.351891e+06
sglang:time_to_first_token_seconds_count{model_name="m"} 11008.0
"""
LLAMA_CPP = """\
# HELP llamacpp:tokens_predicted_total Number of generation tokens processed.
# TYPE llamacpp:tokens_predicted_total counter
llamacpp:tokens_predicted_total %s
llamacpp:predicted_tokens_seconds 42.1
llamacpp:requests_processing 2
llamacpp:requests_deferred 1
"""
PS = {
    "models": [
        {
            "name": "qwen3:8b",
            "model": "qwen3:8b",
            "size": 6_654_289_920,
            "digest": "5005",
            "details": {"family": "qwen3", "quantization_level": "Q4_K_M"},
            "expires_at": "2026-11-21T10:31:44.827653311Z",
            "size_vram": 5_000_000_000,
            "context_length": 4096,
        }
    ]
}
HEALTHY = Refuse(200, "")


def reader(engine: ScriptedEngine, clock: ManualClock, model: str = "m") -> Reader:
    return Reader(HttpClient(), engine.url.removesuffix("/v1"), "", model, clock)


async def test_vllm() -> None:
    clock = ManualClock()
    async with scripted_engine(lambda _: []) as engine:
        engine.pages |= {"/metrics": VLLM % "1000.0", "/health": HEALTHY}
        one = reader(engine, clock)
        first = await one.read()
        assert (first.server, first.running, first.waiting) == ("vllm", 5, 7)
        assert (first.cache_usage, first.ttft_s, first.tokens_per_s, first.ill) == (0.625, 0.25, None, None)
        engine.pages["/metrics"] = VLLM % "1500.0"
        clock.advance(10.0)
        assert (await one.read()).tokens_per_s == 50.0
        engine.pages["/metrics"] = VLLM % "3.0"  # it was started again
        clock.advance(10.0)
        assert (await one.read()).tokens_per_s is None
        engine.pages["/health"] = Refuse(503, "")
        assert (await one.read()).ill == "its /health answers HTTP 503"


async def test_sglang() -> None:
    async with scripted_engine(lambda _: []) as engine:
        engine.pages |= {"/metrics": SGLANG, "/health": HEALTHY}
        found = await reader(engine, ManualClock()).read()
        assert (found.server, found.running, found.waiting, found.cache_usage) == ("sglang", 162, 2826, 0.28)
        assert found.tokens_per_s == 86.50814177726902
        assert found.ttft_s == pytest.approx(213.65, abs=0.01)


@pytest.mark.parametrize("quoted", [False, True])
async def test_llama_cpp(quoted: bool) -> None:
    clock = ManualClock()
    async with scripted_engine(lambda _: []) as engine:
        engine.pages |= {"/health": HEALTHY}
        one = reader(engine, clock)
        for tokens in (10, 30):
            text = LLAMA_CPP % tokens
            engine.pages["/metrics"] = json.dumps(text) if quoted else text
            found = await one.read()
            clock.advance(4.0)
        assert (found.server, found.running, found.waiting, found.tokens_per_s) == ("llama.cpp", 2, 1, 5.0)


async def test_ollama() -> None:
    async with scripted_engine(lambda _: []) as engine:
        engine.pages |= {"/api/ps": json.dumps(PS), "/api/version": '{"version": "0.12.3"}'}
        found = await reader(engine, ManualClock(), "qwen3:8b").read()
        assert (found.server, found.version, found.loaded) == ("ollama", "0.12.3", True)
        assert (found.memory_bytes, found.device_memory_bytes) == (1_654_289_920, 5_000_000_000)
        assert found.unloads_at == pytest.approx(1_795_257_104.827, abs=1)
        assert (await reader(engine, ManualClock(), "other").read()).loaded is False


async def test_a_server_that_says_nothing_is_left_alone_for_long() -> None:
    clock = ManualClock()
    async with scripted_engine(lambda _: []) as engine:
        one = reader(engine, clock)
        for _ in range(3):
            assert await one.read() == Signs()
        assert engine.asked == ["/metrics", "/api/ps"]
        engine.pages |= {"/metrics": SGLANG}
        clock.advance(601.0)
        assert (await one.read()).server == "sglang"
    assert await one.read() == Signs("sglang")  # it went away


async def test_models_show_it(tmp_path: Path) -> None:
    async def shown(engine: ScriptedEngine) -> ModelInfo:
        async with gate(tmp_path, {"m": OpenAI(url=engine.url, model="qwen3:8b")}) as here:
            (found,) = await here.gateway.models()
        return found

    async with scripted_engine(lambda _: []) as engine:
        engine.pages |= {"/metrics": VLLM % "1", "/health": HEALTHY}
        found = await shown(engine)
        assert (found.state, found.replicas[0].server, found.replicas[0].requests_waiting) == ("ready", "vllm", 7)
        engine.pages["/health"] = Refuse(503, "")
        ill = await shown(engine)
        assert (ill.state, ill.note) == ("unreachable", "its /health answers HTTP 503")
    async with scripted_engine(lambda _: []) as engine:
        engine.pages["/api/ps"] = json.dumps(PS)
        found = await shown(engine)
        assert (found.state, found.memory_bytes, found.device_memory_bytes) == ("ready", 1_654_289_920, 5_000_000_000)
        assert found.unloads_at is not None
        engine.pages["/api/ps"] = '{"models": []}'
        assert (await shown(engine)).state == "unloaded"


@given(st.text() | st.text(alphabet='vlm:_"{}= 1.eE+-NaInf\n#\\'), st.sampled_from(sorted(NAMES)))
def test_anything_may_come(text: str, server: str) -> None:
    assert all(abs(value) < float("inf") for _, value in samples(text))
    measured(server, text)
    running(text)


@given(st.dictionaries(st.sampled_from(["vllm:a", "b_total", "c:d"]), st.floats(allow_nan=False, allow_infinity=False)))
def test_what_is_printed_is_read(values: dict[str, float]) -> None:
    lines = [f'{name}{{x="y z",le="+Inf"}} {value}' for name, value in values.items()]
    assert dict(samples("\n".join(lines))) == values
    assert dict(samples(json.dumps("\n".join(lines)))) == values
