"""Durable steps, sleeps, questions and signals for agents run by Agent Executor.

    import agent_executor as ax

    @ax.agent
    def main(ctx: ax.Context) -> dict:
        receipt = ctx.step("charge", charge_card, 1250, effect="once")
        if not ctx.ask_approval(f"Send {receipt}?"):
            return {"sent": False}
        ctx.sleep(minutes=5)
        ctx.step("send", send_mail, receipt)
        return {"sent": True}

    if __name__ == "__main__":
        main.run()

The process may be killed at any line and started again: what was recorded is not done again.
An agent only speaks to the runtime; it stores nothing and calls no network itself. Programs that
talk with agents use :mod:`agent_executor.client`, which is not imported here.
"""

from .agent import Agent, agent, run
from .aio import AsyncContext
from .content import AgentInfo, Answer, Blob, Input, Message, Part, Parts
from .context import Context
from .current import idempotency_key, model, report_usage, step, tool
from .errors import (
    Canceled,
    Denied,
    Divergence,
    Error,
    Expired,
    Fail,
    Finished,
    FrameTooLarge,
    KeyRequired,
    KeyReused,
    NestedStep,
    NotSerializable,
    ProtocolError,
    Refused,
    StepFailed,
)
from .steps import Retry, StepOptions, Usage
from .stream import Stream
from .version import VERSION as __version__  # noqa: N811
from .wire import guard_stdio

__all__ = [
    "Agent",
    "AgentInfo",
    "Answer",
    "AsyncContext",
    "Blob",
    "Canceled",
    "Context",
    "Denied",
    "Divergence",
    "Error",
    "Expired",
    "Fail",
    "Finished",
    "FrameTooLarge",
    "Input",
    "KeyRequired",
    "KeyReused",
    "Message",
    "NestedStep",
    "NotSerializable",
    "Part",
    "Parts",
    "ProtocolError",
    "Refused",
    "Retry",
    "StepFailed",
    "StepOptions",
    "Stream",
    "Usage",
    "__version__",
    "agent",
    "guard_stdio",
    "idempotency_key",
    "model",
    "report_usage",
    "run",
    "step",
    "tool",
]
