"""The engine of Hugging Face Transformers: real models of a few kilobytes, called by the official client."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from llmagentos.api.http import HttpClient
from llmagentos.core.state import StateDirectory
from llmagentos.llm.engines.local import place
from support import tiny_models
from support.engines import Engines
from support.server import ServerProcess

HI: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a causal model and a sequence-to-sequence one, both loaded."""
    tiny_models.need_torch()
    root = tmp_path_factory.mktemp("transformers")
    llama, bart = tiny_models.llama(root / "llama"), tiny_models.bart(root / "bart")
    config = f"""
models:
  llama: {{engine: transformers, path: {llama}, device: cpu, threads: 1, aliases: [default]}}
  bart: {{engine: transformers, path: {bart}, device: cpu, threads: 1, slots: 4}}
"""
    (root / "server").mkdir()
    server = ServerProcess(root / "server", config).start()
    engines = Engines(server)
    try:
        engines.start()
        engines.wait()
        yield server
    finally:
        engines.stop()
        server.stop()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.token, max_retries=0) as made:
        yield made


@pytest.mark.parametrize("model", ["llama", "bart"])
def test_the_answer_is_the_one_of_the_model_alone(server: ServerProcess, client: openai.OpenAI, model: str) -> None:
    """Greedy, in one piece and as a stream, alone and beside others: what `generate` of transformers says."""
    questions = ["hi", "a longer question about databases", "数据库很慢", "z" * 60]
    expected = _generated(server, model, questions)

    def ask(question: str) -> Any:
        return client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], max_tokens=24, temperature=0
        )

    for question, text in zip(questions, expected, strict=True):
        assert ask(question).choices[0].message.content == text
        stream = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            max_tokens=24,
            temperature=0,
            stream=True,
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == text

    async def together() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.token, max_retries=0) as many:
            given: Any = {"model": model, "max_tokens": 24, "temperature": 0}
            calls = [
                many.chat.completions.create(messages=[{"role": "user", "content": question}], **given)
                for question in questions * 3
            ]
            return [answer.choices[0].message.content for answer in await asyncio.gather(*calls)]

    assert asyncio.run(together()) == expected * 3


def _generated(server: ServerProcess, model: str, questions: list[str]) -> list[str]:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    path = Path(server.directory).parent / model
    kind = AutoModelForSeq2SeqLM if model == "bart" else AutoModelForCausalLM
    alone, words = kind.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    texts = []
    for question in questions:
        if words.chat_template:
            message = [{"role": "user", "content": question}]
            question = words.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        tokens = words(question, return_tensors="pt", add_special_tokens=not words.chat_template)
        found = alone.generate(
            tokens.input_ids, attention_mask=torch.ones_like(tokens.input_ids), max_new_tokens=24, do_sample=False
        )[0]
        answer = found[1:] if model == "bart" else found[tokens.input_ids.shape[1] :]
        texts.append(words.decode(answer, skip_special_tokens=True))
    return texts


def test_a_seed_makes_chance_the_same(client: openai.OpenAI) -> None:
    def say(seed: int) -> str | None:
        answer = client.chat.completions.create(
            model="llama", messages=HI, max_tokens=24, temperature=1.0, top_p=0.95, seed=seed
        )
        return answer.choices[0].message.content

    assert say(1) == say(1)
    assert len({say(seed) for seed in range(1, 6)}) > 1


def test_logprobs(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="llama", messages=HI, max_tokens=5, temperature=0, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == 5
    for entry in logprobs.content:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == 3
        assert entry.top_logprobs[0].logprob == entry.logprob  # greedy: the most likely one
        assert entry.bytes == list(entry.token.encode())


def test_a_text_goes_on(client: openai.OpenAI) -> None:
    given: Any = {"model": "llama", "prompt": "once upon", "max_tokens": 6, "temperature": 0}
    answer = client.completions.create(**given, logprobs=2)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len("once upon"), 6)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert len(logprobs.tokens or []) == 6
    assert "".join(piece.choices[0].text for piece in client.completions.create(**given, stream=True)) == (
        answer.choices[0].text
    )


def test_usage_limits_and_stops(client: openai.OpenAI) -> None:
    given: Any = {"model": "llama", "messages": HI, "temperature": 0}
    whole = client.chat.completions.create(**given, max_tokens=24)
    text, usage = whole.choices[0].message.content or "", whole.usage
    assert usage is not None
    assert (whole.choices[0].finish_reason, usage.completion_tokens) == ("length", 24)
    stop = next(c for c in text[3:] if c not in text[:3])
    stopped = client.chat.completions.create(**given, max_tokens=24, stop=[stop, "never said"])
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.choices[0].message.content == text[: text.index(stop)]
    assert stopped.usage is not None
    assert stopped.usage.completion_tokens < 24
    # Without a limit it ends with the context of 256 tokens.
    free = client.chat.completions.create(**given)
    assert free.usage is not None
    assert free.usage.total_tokens <= 256


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"messages": [{"role": "user", "content": "z" * 300}]}, "more than the 256"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "does not know tools"),
        ({"response_format": {"type": "json_object"}}, "does not know response_format"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "text only"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
    ],
)
def test_what_it_cannot_do_is_said(client: openai.OpenAI, more: dict[str, Any], said: str) -> None:
    given: Any = {"model": "llama", "messages": HI, "max_tokens": 4} | more
    with pytest.raises(openai.BadRequestError, match=said):
        client.chat.completions.create(**given)


def test_a_caller_that_hangs_up_leaves_the_batch(server: ServerProcess, client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="llama", messages=HI, temperature=0, stream=True)
    next(iter(stream))
    stream.close()
    deadline = time.monotonic() + 60
    while (found := _running(server, "llama")) != 0:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def _running(server: ServerProcess, model: str) -> int:
    async def read() -> int:
        http = HttpClient()
        base = f"unix:{place(StateDirectory(server.state), model).socket}"
        answer = await http.request("GET", base, "/metrics", timeout=60)
        await http.aclose()
        lines = dict(line.rsplit(" ", 1) for line in answer.body.decode().splitlines())
        return int(lines["transformers:requests_running"]) + int(lines["transformers:requests_waiting"])

    return asyncio.run(read())


def test_only_the_owner_reaches_the_socket(server: ServerProcess) -> None:
    socket = place(StateDirectory(server.state), "llama").socket
    assert socket.parent.stat().st_mode & 0o077 == 0


def test_it_is_listed(server: ServerProcess) -> None:
    listed = json.loads(server.llmctl("models", "--json").stdout)
    assert [(m["name"], m["engine"], m["state"]) for m in listed] == [
        ("llama", "transformers", "ready"),
        ("bart", "transformers", "ready"),
    ]
