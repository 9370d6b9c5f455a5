"""The SDK `anthropic` against the format `anthropic`. See conftest.py for how to run."""

import anthropic
import pytest
from conftest import ARGUMENTS, CALL, RICH

TOOLS = [{"name": "shell", "description": "runs", "input_schema": {"type": "object"}}]


@pytest.fixture
def client(model):
    return anthropic.Anthropic(api_key="k", base_url=model.url, max_retries=2)


def ask(messages, **more):
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    return {"model": "claude-x", "max_tokens": 1000, "messages": messages, **more}


def test_a_text_comes_whole_and_streamed(client):
    whole = client.messages.create(**ask("hello"))
    assert whole.content[0].text == "echo: hello"
    assert whole.stop_reason == "end_turn"
    with client.messages.stream(**ask("hello")) as stream:
        assert "".join(stream.text_stream) == "echo: hello"
        final = stream.get_final_message()
    assert final.content[0].text == "echo: hello"
    assert final.usage.output_tokens == whole.usage.output_tokens > 0


def test_a_tool_is_called_and_its_result_reported(client):
    whole = client.messages.create(**ask(CALL, tools=TOOLS))
    assert whole.stop_reason == "tool_use"
    assert whole.content[0].input == ARGUMENTS
    with client.messages.stream(**ask(CALL, tools=TOOLS)) as stream:
        final = stream.get_final_message()
    use = final.content[0]
    assert (use.type, use.name, use.input) == ("tool_use", "shell", ARGUMENTS)
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "total 0"}
    messages = [
        {"role": "user", "content": CALL},
        {"role": "assistant", "content": final.content},
        {"role": "user", "content": [result, {"type": "text", "text": "<reminder/>"}]},
    ]
    assert client.messages.create(**ask(messages)).content[0].text == "The tool answered: total 0"


def test_thought_text_and_calls_come_in_one_answer(client, model):
    model.script(RICH)
    whole = client.messages.create(**ask("x"))
    with client.messages.stream(**ask("x")) as stream:
        streamed = stream.get_final_message()
    for message in (whole, streamed):
        thought, text, first, second = message.content
        assert (thought.thinking, text.text) == (RICH["thought"], RICH["text"])
        assert (first.id, first.input, second.name) == ("call_first_0001", ARGUMENTS, "read")
        usage = message.usage
        assert (usage.input_tokens, usage.cache_read_input_tokens) == (100, 20)
        assert usage.output_tokens == 34


def test_tokens_are_counted_and_models_listed(client):
    counted = client.messages.count_tokens(
        model="claude-x", messages=[{"role": "user", "content": "hello"}]
    )
    assert counted.input_tokens > 0
    assert [m.id for m in client.models.list()] == ["fake-model"]


def test_the_client_tries_again_after_429_and_it_is_paid_once(client, model):
    model.script({"times": 1, "fault": {"status": 429, "retry_after_seconds": 0}})
    assert client.messages.create(**ask("hello")).content[0].text == "echo: hello"
    totals = model.ledger()["totals"]
    assert (totals["request_count"], totals["paid_count"]) == (2, 1)
    model.script({"fault": {"status": 529}})
    with pytest.raises(anthropic.APIStatusError) as error:
        client.with_options(max_retries=0).messages.create(**ask("hello"))
    assert error.value.status_code == 529
    assert error.value.body["error"]["type"] == "overloaded_error"


def test_a_cut_stream_is_an_error_and_is_paid(client, model):
    model.script({"fault": {"cut_after_chunks": 4}})
    with pytest.raises(Exception) as error:
        with client.messages.stream(**ask("hello, this is a longer text")) as stream:
            stream.get_final_message()
    assert "peer closed" in str(error.value) or "incomplete" in str(error.value)
    assert [e["status"] for e in model.ledger()["entries"]] == ["cut"]


def test_an_async_client_streams(model):
    import asyncio

    async def run():
        async with anthropic.AsyncAnthropic(api_key="k", base_url=model.url) as client:
            async with client.messages.stream(**ask("hello")) as stream:
                return [text async for text in stream.text_stream]

    assert "".join(asyncio.run(run())) == "echo: hello"
