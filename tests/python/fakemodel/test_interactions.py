"""The SDK `google-genai` against the format `interactions`. See conftest.py for how to run."""

import pytest
from conftest import ARGUMENTS, CALL, RICH
from google import genai
from google.genai import types


@pytest.fixture
def client(model):
    # The client must outlive its parts.
    with genai.Client(api_key="k", http_options=types.HttpOptions(base_url=model.url)) as whole:
        yield whole.interactions


def text_of(events):
    deltas = [e.delta for e in events if e.event_type == "step.delta"]
    return "".join(delta.text for delta in deltas if delta.type == "text")


def test_a_text_comes_whole_and_streamed(client):
    whole = client.create(model="gemini-x", input="hello")
    assert (whole.status, whole.steps[0].content[0].text) == ("completed", "echo: hello")
    assert whole.usage.total_tokens > 0
    events = list(client.create(model="gemini-x", input="hello", stream=True))
    assert text_of(events) == "echo: hello"
    assert events[0].event_type == "interaction.created"
    assert events[-1].event_type == "interaction.completed"
    assert events[-1].interaction.status == "completed"
    assert [e.event_id for e in events] == [f"e-{n}" for n in range(1, len(events) + 1)]


def test_a_tool_is_called_and_the_interaction_goes_on(client):
    first = client.create(model="gemini-x", input=CALL)
    call = first.steps[0]
    assert (first.status, call.name, call.arguments) == ("requires_action", "shell", ARGUMENTS)
    result = {"type": "function_result", "call_id": call.id, "name": "shell", "result": "total 0"}
    second = client.create(
        model="gemini-x", input=[result], previous_interaction_id=first.id
    )
    assert second.steps[0].content[0].text == "The tool answered: total 0"
    events = list(client.create(model="gemini-x", input=CALL, stream=True))
    starts = [e.step for e in events if e.event_type == "step.start"]
    assert (starts[0].type, starts[0].name) == ("function_call", "shell")
    assert events[-1].interaction.status == "requires_action"


def test_thought_text_and_calls_come_in_one_answer(client, model):
    model.script(RICH)
    whole = client.create(model="gemini-x", input="x")
    kinds = [step.type for step in whole.steps]
    assert kinds == ["thought", "model_output", "function_call", "function_call"]
    assert whole.steps[0].summary[0].text == RICH["thought"]
    events = list(client.create(model="gemini-x", input="x", stream=True))
    kinds = [e.step.type for e in events if e.event_type == "step.start"]
    assert kinds == [step.type for step in whole.steps]
    assert text_of(events) == RICH["text"]


def test_a_cut_stream_is_resumed_after_the_last_event(client, model):
    text = "a text of several chunks, to be cut in the middle"
    model.script({"text": text, "fault": {"cut_after_chunks": 5}})
    seen = []
    with pytest.raises(Exception):
        for event in client.create(
            model="gemini-x", input="x", stream=True, background=True
        ):
            seen.append(event)
    assert seen[-1].event_id == "e-5"
    id = seen[0].interaction.id
    rest = list(client.get(id, stream=True, last_event_id="e-5"))
    assert rest[0].event_id == "e-6"
    assert text_of(seen + rest) == text
    assert rest[-1].interaction.status == "completed"
    totals = model.ledger()["totals"]
    assert (totals["paid_count"], totals["cut_count"]) == (1, 1)


def test_work_in_the_background_is_fetched_canceled_and_deleted(client, model):
    slow = {"when": {"text": "slow"}, "pace": {"chunk_delay_millis": 600_000}}
    model.script(slow, defaults={"chunk_delay_millis": 2})
    begun = client.create(agent="deep-research-preview-04-2026", input="go", background=True)
    done = client.get(begun.id)
    while done.status == "in_progress":
        done = client.get(begun.id)
    assert (done.status, done.steps[0].content[0].text) == ("completed", "echo: go")
    begun = client.create(model="gemini-x", input="slow", background=True)
    assert client.get(begun.id).status == "in_progress"
    assert client.cancel(begun.id).status == "cancelled"
    assert client.get(begun.id).status == "cancelled"
    client.delete(begun.id)
    with pytest.raises(Exception) as error:
        client.get(begun.id)
    assert getattr(error.value, "status_code", getattr(error.value, "code", None)) == 404
    assert model.ledger()["totals"]["paid_count"] == 2


@pytest.mark.parametrize("outcome", ["failed", "incomplete", "budget_exceeded", "requires_action"])
def test_work_in_the_background_can_end_otherwise(client, model, outcome):
    model.script({"text": "a plan", "outcome": outcome}, defaults={"chunk_delay_millis": 2})
    begun = client.create(agent="deep-research-preview-04-2026", input="go", background=True)
    done = client.get(begun.id)
    while done.status == "in_progress":
        done = client.get(begun.id)
    assert (done.status, done.steps[0].content[0].text) == (outcome, "a plan")
    events = list(client.get(begun.id, stream=True))
    assert events[-1].event_type == "interaction.completed"
    assert events[-1].interaction.status == outcome
    errors = [e.error.message for e in events if e.event_type == "error"]
    assert errors == (["failed on demand"] if outcome == "failed" else [])
    if outcome == "requires_action":
        after = client.create(model="gemini-x", input="yes", previous_interaction_id=begun.id)
        assert after.previous_interaction_id == begun.id
