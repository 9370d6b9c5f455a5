"""The same order, run by the runtime: its interrupt is a question of the session."""

from agent_executor_langgraph import run
from order import build

run(
    lambda: build(None),
    read=lambda _ctx: {"log": []},
    write=lambda order: ", ".join(order["log"]),
)
