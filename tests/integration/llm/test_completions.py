"""OpenAI's own client goes on with texts, and what it may ask of a chat reaches the engine."""

from __future__ import annotations

from typing import Any

import openai
import pytest

HI: Any = [{"role": "user", "content": "Name a colour."}]
ONCE: Any = {"model": "default", "prompt": "Once upon a time", "temperature": 0}


def test_a_text_goes_on(client: openai.OpenAI) -> None:
    found = client.completions.create(**ONCE, max_tokens=6, logprobs=2)
    choice = found.choices[0]
    assert (found.object, found.model, choice.finish_reason) == ("text_completion", "smollm2-135m", "length")
    assert choice.text
    assert found.usage is not None
    assert found.usage.completion_tokens == 6
    assert choice.logprobs is not None
    tokens, offsets, tops = choice.logprobs.tokens, choice.logprobs.text_offset, choice.logprobs.top_logprobs
    assert tokens is not None
    assert offsets is not None
    assert tops is not None
    assert "".join(tokens) == choice.text
    assert [choice.text[offset:].startswith(token) for offset, token in zip(offsets, tokens, strict=True)] == [True] * 6
    assert [len(top) for top in tops] == [2] * 6
    streamed = list(
        client.completions.create(**ONCE, max_tokens=6, stream=True, stream_options={"include_usage": True})
    )
    assert "".join(piece.choices[0].text for piece in streamed if piece.choices) == choice.text
    assert len({piece.id for piece in streamed}) == 1
    assert streamed[-1].usage == found.usage


def test_several_prompts_are_several_texts(client: openai.OpenAI) -> None:
    prompts = ["Once upon a time", "The capital of France is", "1, 2, 3,"]
    found = client.completions.create(**ONCE | {"prompt": prompts}, max_tokens=3)
    alone = [client.completions.create(**ONCE | {"prompt": prompt}, max_tokens=3) for prompt in prompts]
    assert [choice.index for choice in found.choices] == [0, 1, 2]
    assert [choice.text for choice in found.choices] == [one.choices[0].text for one in alone]
    assert found.usage is not None
    assert found.usage.completion_tokens == 9


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"echo": True}, "does not repeat the prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"best_of": 2}, "best_of"),
        ({"suffix": "x"}, "suffix"),
    ],
)
def test_bad_requests_say_what_is_wrong(client: openai.OpenAI, more: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said) as refused:
        client.completions.create(**ONCE | more)
    assert refused.value.type == "invalid_request_error"


def test_logprobs_of_a_chat(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(
        model="default", messages=HI, max_tokens=3, temperature=0, logprobs=True, top_logprobs=2
    )
    logprobs = found.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(entry.token for entry in logprobs.content) == found.choices[0].message.content
    assert [len(entry.top_logprobs) for entry in logprobs.content] == [2] * 3


def test_a_seed_draws_the_same_again(client: openai.OpenAI) -> None:
    given: Any = {"model": "default", "messages": HI, "max_tokens": 12, "temperature": 1.5}
    one, two, other = (
        client.chat.completions.create(**given, seed=seed).choices[0].message.content for seed in (7, 7, 8)
    )
    assert one == two != other


def test_several_answers_are_counted_together(client: openai.OpenAI) -> None:
    given: Any = {"model": "default", "messages": HI, "max_tokens": 4, "n": 2, "temperature": 1.0}
    found = client.chat.completions.create(**given)
    assert [choice.index for choice in found.choices] == [0, 1]
    assert found.usage is not None
    assert found.usage.completion_tokens == 8
    roles: dict[int, list[str | None]] = {0: [], 1: []}
    for chunk in client.chat.completions.create(**given, stream=True):
        for choice in chunk.choices:
            roles[choice.index].append(choice.delta.role)
    assert {index: found[0] for index, found in roles.items()} == {0: "assistant", 1: "assistant"}


def test_a_stop_and_a_bias_hold(client: openai.OpenAI) -> None:
    given: Any = {"model": "default", "messages": HI, "max_tokens": 12, "temperature": 0}
    plain = client.chat.completions.create(**given, logprobs=True)
    assert plain.choices[0].logprobs is not None
    first = (plain.choices[0].logprobs.content or [])[0]
    stopped = client.chat.completions.create(**given, stop=(plain.choices[0].message.content or "")[-4:])
    assert stopped.choices[0].finish_reason == "stop"
    token: Any = first.model_extra and first.model_extra["id"]  # llama.cpp tells it
    other = client.chat.completions.create(**given, logit_bias={str(token): -100})
    assert not (other.choices[0].message.content or "").startswith(first.token)
