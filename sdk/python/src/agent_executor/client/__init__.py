"""A client of an Agent Executor server, over HTTP and server-sent events.

    from agent_executor.client import Client, Event, Text

    client = Client("http://127.0.0.1:7700")
    sent = client.submit("Book a table for 3", agent="table-booker")
    text = Text()
    for item in client.follow(sent.session, until_input=sent.seq):
        if isinstance(item, Event):
            text.add(item)
    print(text)

A connection that breaks is a non-event: requests are sent again under the same key, followers go on
after the last event that they handed out, and what comes twice is dropped. It needs nothing but the
standard library. The state machines are in ``machine.py``; they do no I/O.
"""

from .address import Address, Credentials
from .calls import (
    Agent,
    BlobId,
    Branched,
    EventPage,
    Plan,
    Recorded,
    RecordPage,
    RecordWritten,
    Session,
    SessionPage,
    Submitted,
    text_part,
)
from .client import APPROVE, AsyncClient, Client, choose, deny
from .errors import Disconnected, ServerError
from .events import Event, Text
from .items import Broken, CaughtUp, End, Item
from .machine import Patience

__all__ = [
    "APPROVE",
    "Address",
    "Agent",
    "AsyncClient",
    "BlobId",
    "Branched",
    "Broken",
    "CaughtUp",
    "Client",
    "Credentials",
    "Disconnected",
    "End",
    "Event",
    "EventPage",
    "Item",
    "Patience",
    "Plan",
    "RecordPage",
    "RecordWritten",
    "Recorded",
    "ServerError",
    "Session",
    "SessionPage",
    "Submitted",
    "Text",
    "choose",
    "deny",
    "text_part",
]
