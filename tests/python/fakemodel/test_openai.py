"""The SDK `openai` against the formats `chat` and `responses`. See conftest.py for how to run."""

import json

import openai
import pytest
from conftest import ARGUMENTS, CALL, RICH


@pytest.fixture
def client(model):
    return openai.OpenAI(api_key="k", base_url=model.url + "/v1", max_retries=2)


def chat(messages, **more):
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    return {"model": "gpt-x", "messages": messages, **more}


def test_chat_answers_whole_and_streamed(client):
    whole = client.chat.completions.create(**chat("hello"))
    assert whole.choices[0].message.content == "echo: hello"
    assert whole.usage.total_tokens > 0
    chunks = list(
        client.chat.completions.create(
            **chat("hello"), stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "echo: hello"
    assert chunks[-1].usage.total_tokens > 0
    assert chunks[-2].choices[0].finish_reason == "stop"


def test_chat_calls_a_tool_and_reports_its_result(client):
    whole = client.chat.completions.create(**chat(CALL))
    call = whole.choices[0].message.tool_calls[0]
    assert json.loads(call.function.arguments) == ARGUMENTS
    assert whole.choices[0].finish_reason == "tool_calls"
    with client.chat.completions.stream(**chat(CALL)) as stream:
        final = stream.get_final_completion()
    call = final.choices[0].message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("shell", ARGUMENTS)
    messages = [
        {"role": "user", "content": CALL},
        whole.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": "total 0"},
    ]
    reply = client.chat.completions.create(**chat(messages))
    assert reply.choices[0].message.content == "The tool answered: total 0"


def test_chat_calls_several_tools_at_once(client, model):
    model.script(RICH)
    with client.chat.completions.stream(**chat("x")) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.content == RICH["text"]
    assert [call.id for call in message.tool_calls] == ["call_first_0001", "call_second_002"]
    assert json.loads(message.tool_calls[0].function.arguments) == ARGUMENTS


def test_responses_answers_whole_and_streamed(client):
    whole = client.responses.create(model="gpt-x", input="hello")
    assert whole.output_text == "echo: hello"
    assert whole.status == "completed"
    with client.responses.stream(model="gpt-x", input="hello") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.output_text == "echo: hello"
    assert final.usage.total_tokens > 0
    numbers = [event.sequence_number for event in events if hasattr(event, "sequence_number")]
    assert numbers == sorted(set(numbers))


def test_responses_calls_a_tool_and_goes_on_from_the_stored_answer(client):
    with client.responses.stream(model="gpt-x", input=CALL) as stream:
        first = stream.get_final_response()
    call = first.output[0]
    assert (call.type, call.name, json.loads(call.arguments)) == (
        "function_call",
        "shell",
        ARGUMENTS,
    )
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "total 0"}
    second = client.responses.create(
        model="gpt-x", input=[output], previous_response_id=first.id
    )
    assert second.output_text == "The tool answered: total 0"
    assert client.responses.retrieve(second.id).output_text == second.output_text


def test_responses_thinks_speaks_and_calls(client, model):
    model.script(RICH)
    whole = client.responses.create(model="gpt-x", input="x")
    with client.responses.stream(model="gpt-x", input="x") as stream:
        streamed = stream.get_final_response()
    for response in (whole, streamed):
        kinds = [item.type for item in response.output]
        assert kinds == ["reasoning", "message", "function_call", "function_call"]
        assert response.output[0].summary[0].text == RICH["thought"]
        assert response.output_text == RICH["text"]
        assert response.output[3].call_id == "call_second_002"
        assert response.usage.input_tokens_details.cached_tokens == 20


def test_a_background_response_is_resumed_after_a_cut(client, model):
    model.script({"text": "a text of several chunks, to be cut"})
    stream = client.responses.create(
        model="gpt-x",
        input="x",
        background=True,
        stream=True,
        extra_headers={"x-fake-fault": '{"cut_after_chunks": 6}'},
    )
    seen = []
    with pytest.raises(Exception):
        for event in stream:
            seen.append(event)
    assert len(seen) == 6
    rest = client.responses.retrieve(
        seen[0].response.id, stream=True, starting_after=seen[-1].sequence_number
    )
    events = seen + list(rest)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
    assert "".join(deltas) == "a text of several chunks, to be cut"
    assert model.ledger()["totals"]["paid_count"] == 1


def test_the_client_tries_again_after_503_and_lists_models(client, model):
    model.script({"times": 1, "fault": {"status": 503}})
    assert client.responses.create(model="gpt-x", input="hello").output_text == "echo: hello"
    statuses = [entry["status"] for entry in model.ledger()["entries"]]
    assert statuses == ["refused", "answered"]
    assert [m.id for m in client.models.list()] == ["fake-model"]
    model.script({"fault": {"status": 429, "message": "slow down"}})
    with pytest.raises(openai.RateLimitError, match="slow down"):
        client.with_options(max_retries=0).chat.completions.create(**chat("x"))
