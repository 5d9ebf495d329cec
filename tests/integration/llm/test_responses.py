"""OpenAI's own client speaks the Responses API to the server, with the real small model behind it."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai
import pydantic
import pytest

from llmagentos.api.tokens import NewToken
from support.server import ServerProcess

pytestmark = pytest.mark.anyio


class Mood(pydantic.BaseModel):
    mood: Literal["good", "bad"]


def test_a_response_in_one_piece(client: openai.OpenAI) -> None:
    made = client.responses.create(
        model="default", instructions="Be brief.", input="Say hi", max_output_tokens=5, temperature=0
    )
    assert (made.status, made.model, made.object) == ("incomplete", "smollm2-135m", "response")
    assert made.incomplete_details is not None
    assert made.incomplete_details.reason == "max_output_tokens"
    assert made.output_text
    assert made.usage is not None
    assert made.usage.output_tokens == 5
    assert made.usage.total_tokens == made.usage.input_tokens + 5
    assert (made.temperature, made.instructions, made.tools) == (0, "Be brief.", [])


def test_a_stream_says_the_same(client: openai.OpenAI) -> None:
    given: Any = {"model": "default", "input": "Say hi", "max_output_tokens": 5, "temperature": 0}
    whole = client.responses.create(**given)
    with client.responses.stream(**given) as stream:
        events = list(stream)
    kinds = [event.type for event in events]
    last: Any = events[-1]
    assert last.response.output_text == whole.output_text
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[4:-4] == ["response.output_text.delta"] * len(kinds[4:-4])
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]


def test_a_type_as_the_form_of_the_answer(client: openai.OpenAI) -> None:
    parsed = client.responses.parse(
        model="default", input="Tell me a story.", text_format=Mood, max_output_tokens=20, temperature=0
    )
    assert parsed.output_parsed is not None
    assert parsed.output_parsed.mood in ("good", "bad")
    assert json.loads(parsed.output_text) == {"mood": parsed.output_parsed.mood}


def test_a_conversation_goes_on(client: openai.OpenAI) -> None:
    first = client.responses.create(model="default", input="My name is Ada.", max_output_tokens=4)
    second = client.responses.create(
        model="default", input="And now?", max_output_tokens=4, previous_response_id=first.id
    )
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens + 4
    assert client.responses.retrieve(second.id).output_text == second.output_text
    assert client.responses.retrieve(second.id).previous_response_id == first.id
    items = client.responses.input_items.list(second.id).data
    assert [item.type for item in items] == ["message"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError, match="no response"):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.NotFoundError) as gone:
        client.responses.create(model="default", input="x", previous_response_id=second.id)
    assert (gone.value.code, gone.value.param) == ("response_not_found", "previous_response_id")


async def test_only_who_asked_reads_it(server: ServerProcess, client: openai.OpenAI) -> None:
    made = client.responses.create(model="default", input="A secret.", max_output_tokens=1)
    async with server.client() as admin:
        other = await admin.post("/api/v1/tokens", {"name": "other", "kind": "operator"}, NewToken)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=other.token, max_retries=0) as stranger:
        for call in (
            lambda: stranger.responses.retrieve(made.id),
            lambda: stranger.responses.delete(made.id),
            lambda: stranger.responses.create(model="default", input="x", previous_response_id=made.id),
        ):
            with pytest.raises(openai.NotFoundError):
                call()
    unkept = client.responses.create(model="default", input="x", max_output_tokens=1, store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(unkept.id)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"input": [{"type": "item_reference", "id": "x"}]}, "item_reference"),
        ({"input": [{"role": "robot", "content": "x"}]}, "robot"),
        ({"input": []}, "no item"),
        ({"tools": [{"type": "web_search"}]}, "only functions"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "names no function"),
        ({"text": {"format": {"type": "xml"}}}, "text.format"),
        ({"include": ["file_search_call.results"]}, "include"),
        ({"background": True}, "background"),
        ({"conversation": "c1"}, "conversation"),
        ({"temperature": -1}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_bad_requests_say_what_is_wrong(client: openai.OpenAI, more: dict[str, Any], said: str) -> None:
    given: Any = {"model": "default", "input": "x"} | more
    with pytest.raises(openai.BadRequestError, match=said) as refused:
        client.responses.create(**given)
    assert refused.value.type == "invalid_request_error"


def test_an_unknown_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there are default"):
        client.responses.create(model="gpt-5", input="x")
