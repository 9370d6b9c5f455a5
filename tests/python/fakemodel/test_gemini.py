"""The SDK `google-genai` against the format `gemini`. See conftest.py for how to run."""

import pytest
from conftest import ARGUMENTS, CALL, RICH
from google import genai
from google.genai import errors, types


@pytest.fixture
def client(model):
    return genai.Client(api_key="k", http_options=types.HttpOptions(base_url=model.url))


def streamed(client, contents):
    return list(client.models.generate_content_stream(model="gemini-x", contents=contents))


def test_a_text_comes_whole_and_streamed(client):
    whole = client.models.generate_content(model="gemini-x", contents="hello")
    assert whole.text == "echo: hello"
    assert whole.usage_metadata.total_token_count > 0
    chunks = streamed(client, "hello, a text that is longer than one chunk")
    assert len(chunks) > 1
    assert "".join(c.text for c in chunks) == "echo: hello, a text that is longer than one chunk"
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP


def test_a_tool_is_called_and_its_result_reported(client):
    whole = client.models.generate_content(model="gemini-x", contents=CALL)
    assert whole.function_calls[0].args == ARGUMENTS
    chunk = streamed(client, CALL)[0]
    call = chunk.function_calls[0]
    assert (call.name, call.args) == ("shell", ARGUMENTS)
    result = types.Part.from_function_response(name="shell", response={"result": "total 0"})
    contents = [
        types.Content(role="user", parts=[types.Part(text=CALL)]),
        chunk.candidates[0].content,
        types.Content(role="user", parts=[result]),
    ]
    reply = client.models.generate_content(model="gemini-x", contents=contents)
    assert reply.text == "The tool answered: total 0"


def test_thought_text_and_calls_come_in_one_answer(client, model):
    model.script(RICH)
    whole = client.models.generate_content(model="gemini-x", contents="x")
    parts = whole.candidates[0].content.parts
    assert (parts[0].thought, parts[0].text) == (True, RICH["thought"])
    assert [part.function_call.name for part in parts[2:]] == ["shell", "read"]
    assert parts[2].thought_signature
    assert whole.usage_metadata.cached_content_token_count == 20
    chunks = streamed(client, "x")
    parts = [part for chunk in chunks for part in chunk.candidates[0].content.parts]
    assert "".join(p.text for p in parts if p.text and not p.thought) == RICH["text"]
    assert [p.function_call.id for p in parts if p.function_call][1] == "call_second_002"


def test_tokens_are_counted_and_models_listed(client):
    assert client.models.count_tokens(model="gemini-x", contents="hello").total_tokens > 0
    assert [m.name for m in client.models.list()] == ["models/fake-model"]
    assert client.models.get(model="gemini-x").name == "models/gemini-x"


def test_a_refused_request_is_an_error_of_the_sdk(client, model):
    model.script({"fault": {"status": 429, "message": "slow down"}})
    with pytest.raises(errors.ClientError) as error:
        client.models.generate_content(model="gemini-x", contents="x")
    assert (error.value.code, error.value.status) == (429, "RESOURCE_EXHAUSTED")
    assert model.ledger()["totals"]["paid_count"] == 0


def test_a_cut_stream_is_an_error(client, model):
    model.script({"fault": {"cut_after_chunks": 1}})
    with pytest.raises(Exception):
        streamed(client, "hello, a text that is longer than one chunk")
    assert model.ledger()["entries"][0]["status"] == "cut"
