"""An ADK app whose effects are not repeated: kill it at any line, and it goes on.

Replace the functions by your own, and say what a second time of each would mean.
"""

import agent_executor as ax
from agent_executor_adk.runner import run
from google.adk.agents.llm_agent import LlmAgent
from google.adk.apps.app import App
from google.adk.tools.function_tool import FunctionTool


def look_up_order(order: str) -> dict:
    """Look up what an order was about and what it cost."""
    return {"order": order, "what": "a blue kettle", "euros": 40}


def refund(order: str, euros: int) -> dict:
    """Refund an order. A person has to confirm it, and it cannot be taken back."""
    with open("refunds.txt", "a", encoding="utf-8") as file:
        file.write(f"{order} {euros}\n")
    return {"refunded": euros}


app = App(
    name="shop",
    root_agent=LlmAgent(
        name="shop",
        model="gemini-2.5-flash",
        instruction="You help the customers of a shop. Do one thing at a time.",
        tools=[look_up_order, FunctionTool(refund, require_confirmation=True)],
    ),
)


@ax.agent
async def main(ctx: ax.AsyncContext) -> str:
    """Answer one message of a customer."""
    return await run(ctx, app, effects={"look_up_order": "read", "refund": "once"})


if __name__ == "__main__":
    main.run()
