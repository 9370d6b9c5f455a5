"""The client's state machines, without a socket."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from agent_executor.client.errors import Disconnected, ServerError
from agent_executor.client.events import Event
from agent_executor.client.items import Broken, CaughtUp, End
from agent_executor.client.machine import (
    Alive,
    Came,
    Due,
    Ended,
    Failed,
    Follower,
    Input,
    Nothing,
    Open,
    Opened,
    Outage,
    Patience,
    Read,
    Repeat,
    Request,
    State,
    Wait,
)

PATIENCE = Patience(outage=1.0, pause_min=0.01, pause_max=0.01)


def event(seq: int) -> Event:
    return Event.of_json({"seq": str(seq), "note": {"name": "n"}})


INPUTS: dict[str, Input] = {
    "due": Due(),
    "opened": Opened(),
    "old event": Came(event(2)),
    "next event": Came(event(3)),
    "later event": Came(event(5)),
    "caught up": CaughtUp(2),
    "alive": Alive(9),
    "end": Ended(End("reached", 2)),
    "deleted": Ended(End("deleted", 2)),
    "shutdown": Ended(End("shutdown", 2)),
    "cut": Failed(Disconnected("gone")),
    "refused": Failed(ServerError("AX1002", "no")),
}

# What is not in the table changes nothing.
TABLE: dict[tuple[State, str], tuple[State, str]] = {
    (State.APART, "opened"): (State.STREAMING, ""),
    (State.APART, "cut"): (State.PAUSING, "broken gone"),
    (State.APART, "refused"): (State.OVER, "error no"),
    (State.PAUSING, "due"): (State.APART, ""),
    (State.STREAMING, "next event"): (State.STREAMING, "event 3"),
    (State.STREAMING, "later event"): (
        State.PAUSING,
        "broken the server sent event 5 after 2",
    ),
    (State.STREAMING, "caught up"): (State.STREAMING, "caught up 2"),
    (State.STREAMING, "end"): (State.OVER, "end reached"),
    (State.STREAMING, "deleted"): (State.OVER, "end deleted"),
    (State.STREAMING, "shutdown"): (State.PAUSING, "broken the server is stopping"),
    (State.STREAMING, "cut"): (State.PAUSING, "broken gone"),
    (State.STREAMING, "refused"): (State.OVER, "error no"),
}


def machine(state: State = State.APART, *, holes: bool = False) -> Follower:
    follower = Follower(2, PATIENCE, lambda: 0.5, holes=holes)
    follower.state = state
    return follower


def said(follower: Follower, given: Input, now: float = 100.0) -> str:
    try:
        item = follower.handle(now, given)
    except ServerError as error:
        return f"error {error.message}"
    if item is None:
        return ""
    if isinstance(item, Event):
        return f"event {item.seq}"
    if isinstance(item, CaughtUp):
        return f"caught up {item.last}"
    if isinstance(item, Broken):
        return f"broken {item.error.message}"
    return f"end {item.reason}"


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("name", list(INPUTS))
def test_every_input_in_every_state_does_what_the_table_says(state: State, name: str) -> None:
    follower = machine(state)
    then, say = TABLE.get((state, name), (state, ""))
    assert said(follower, INPUTS[name]) == say
    assert follower.state is then
    assert follower.last == (3 if say == "event 3" else 2)


def test_each_state_wants_one_thing() -> None:
    assert machine(State.APART).want() == Open(2)
    assert machine(State.STREAMING).want() == Read()
    assert machine(State.OVER).want() == Nothing()
    follower = machine()
    follower.handle(100.0, Failed(Disconnected("gone")))
    want = follower.want()
    assert isinstance(want, Wait)
    assert 100.005 <= want.until <= 100.01


def test_it_resumes_after_the_last_event_that_was_handed_out() -> None:
    follower = machine(State.STREAMING)
    follower.handle(0, Came(event(3)))
    follower.handle(0, Failed(Disconnected("gone")))
    follower.handle(1, Due())
    assert follower.want() == Open(3)
    follower.handle(1, Opened())
    assert follower.handle(1, Came(event(3))) is None
    assert follower.handle(1, Came(event(4))) == event(4)


def test_an_outage_is_told_of_once_and_ends_with_what_comes() -> None:
    follower = machine()
    gone = Failed(Disconnected("gone"))
    assert isinstance(follower.handle(0, gone), Broken)
    follower.handle(0.1, Due())
    assert follower.handle(0.1, gone) is None
    follower.handle(0.2, Due())
    follower.handle(0.2, Opened())
    follower.handle(0.2, Came(event(3)))
    assert isinstance(follower.handle(0.3, gone), Broken)


def test_an_outage_that_lasts_too_long_is_given_up() -> None:
    follower = machine()
    follower.handle(0, Failed(Disconnected("gone")))
    follower.handle(0.1, Due())
    with pytest.raises(ServerError, match="for 1 s"):
        follower.handle(1.0, Failed(Disconnected("gone")))
    assert follower.want() == Nothing()


def test_a_limit_that_passes_is_waited_for_as_long_as_the_server_says() -> None:
    follower = machine()
    limit = ServerError("AX1301", "too many", retryable=True, retry_after=3.0)
    assert isinstance(follower.handle(10, Failed(limit)), Broken)
    assert follower.want() == Wait(13.0)


def test_without_deltas_there_are_holes() -> None:
    follower = machine(State.STREAMING, holes=True)
    assert follower.handle(0, Came(event(7))) == event(7)
    assert follower.handle(0, Came(event(7))) is None


def test_what_is_left_out_is_not_asked_for_again() -> None:
    for holes, after in [(True, 9), (False, 2)]:
        follower = machine(State.STREAMING, holes=holes)
        assert follower.handle(0, Alive(9)) is None
        assert follower.handle(0, Alive(1)) is None
        follower.handle(0, Failed(Disconnected("gone")))
        follower.handle(1, Due())
        assert follower.want() == Open(after)


def test_pauses_double_are_drawn_and_have_an_end() -> None:
    patience = Patience(outage=1000.0, pause_min=1.0, pause_max=8.0)
    chance = random.Random(7)
    outage = Outage(patience, chance.random)
    for whole in [1, 2, 4, 8, 8] + [8] * 2000:
        pause = outage.fail(5.0, Disconnected("gone"))
        assert pause is not None
        assert whole / 2 <= pause <= whole
    assert outage.fail(1005.0, Disconnected("gone")) is None
    outage.end()
    assert not outage.is_on


def test_what_must_not_be_done_twice_is_sent_again_only_if_it_was_refused() -> None:
    stopping = ServerError("AX3002", "stopping", retryable=True)
    gone = Disconnected("gone")
    limit = ServerError("AX1301", "much", retryable=True, retry_after=0.0)
    no = ServerError("AX1002", "no")
    for repeat, again in [
        (Repeat.UNANSWERED, {"stopping", "gone", "much"}),
        (Repeat.REFUSED, {"stopping", "much"}),
    ]:
        for error in [stopping, gone, limit, no]:
            request = Request(repeat, PATIENCE, lambda: 0.5)
            if error.message in again:
                assert request.fail(0.0, error) >= 0
            else:
                with pytest.raises(ServerError):
                    request.fail(0.0, error)


def test_patience_with_a_request_ends() -> None:
    request = Request(Repeat.UNANSWERED, replace(PATIENCE, outage=0.5), lambda: 0.5)
    request.fail(0.0, Disconnected("gone"))
    with pytest.raises(ServerError, match="gone"):
        request.fail(0.5, Disconnected("gone"))
