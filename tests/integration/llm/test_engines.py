"""The engines' own behaviour, seen through the server: limits of embeddings, metrics, metered calls."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import openai
import pytest

from llmagentos.api.llm import CallInfo
from support.server import ServerProcess

PROMTOOL = Path(sys.prefix) / "tools" / "promtool"


def test_embeddings_beyond_the_limit_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="one call takes 32768"):
        client.embeddings.create(model="e5-small", input="word " * 40_000)


def test_other_dimensions_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="384 dimensions, not 512"):
        client.embeddings.create(model="e5-small", input="x", dimensions=512)


@pytest.mark.parametrize("wrong", [[[1, 2, 3]], [], 7])
def test_inputs_that_are_no_texts_are_refused(client: openai.OpenAI, wrong: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="input"):
        client.embeddings.create(model="e5-small", input=wrong)


def test_many_texts_keep_their_order(client: openai.OpenAI) -> None:
    texts = [f"number {n}" for n in range(20)]
    together = client.embeddings.create(model="e5-small", input=texts).data
    alone = client.embeddings.create(model="e5-small", input=texts[13]).data[0]
    assert [vector.index for vector in together] == list(range(20))
    assert together[13].embedding == pytest.approx(alone.embedding, abs=1e-4)


@pytest.mark.anyio
async def test_calls_are_metered(server: ServerProcess, client: openai.OpenAI) -> None:
    begun = time.time()
    client.chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": "Say hi"}],
        max_tokens=3,
    )
    async with server.client() as api:
        calls: list[CallInfo] = []
        while not calls or calls[0].at < begun:
            calls = await api.get("/api/v1/models/calls", list[CallInfo], query={"limit": 1})
        assert await api.get("/api/v1/models/calls", list[CallInfo], query={"run": "none"}) == []
        metrics = await api.text("/metrics")
    (call,) = calls
    assert (call.model, call.engine, call.caller, call.status) == (
        "smollm2-135m",
        "llama.cpp",
        "admin:admin",
        "succeeded",
    )
    assert (call.tokens_out, call.tokens_in > 3) == (3, True)
    assert call.ttft_s is not None
    assert 0 < call.ttft_s <= call.duration_s
    labels = 'gen_ai_operation_name="chat",gen_ai_provider_name="llama.cpp",gen_ai_request_model="smollm2-135m"'
    assert f'gen_ai_server_request_duration_seconds_count{{error_type="",{labels}}}' in metrics
    assert f"gen_ai_server_time_per_output_token_seconds_count{{{labels}}}" in metrics
    assert 'llmagentos_llm_running_calls{model="smollm2-135m"} 0.0' in metrics
    promtool = PROMTOOL if PROMTOOL.exists() else shutil.which("promtool")
    if promtool:
        checked = subprocess.run([promtool, "check", "metrics"], input=metrics, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
