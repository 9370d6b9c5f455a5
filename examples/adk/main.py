"""Runs the shop assistant under Agent Executor."""

import agent_executor as ax
from agent_executor_adk.runner import run
from shop.agent import app


@ax.agent
async def main(ctx: ax.AsyncContext) -> str:
    """Answer one message of a customer."""
    effects = {"look_up_order": "read", "refund": "once", "ask_manager": "once"}
    return await run(ctx, app, effects=effects)


if __name__ == "__main__":
    main.run()
