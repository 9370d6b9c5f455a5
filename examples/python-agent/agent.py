"""Books a table: a step that must not happen twice, a question, a sleep."""

import random

import agent_executor as ax


def book(place: str, persons: int) -> str:
    """Book a table. In earnest this would call a service."""
    return f"{place}-{persons}-{random.randint(1000, 9999)}"


@ax.agent
def main(ctx: ax.Context) -> dict:
    """Book a table for as many as the input says."""
    persons = int(ctx.input.text or 2)
    if not ctx.ask_approval(f"Book a table for {persons}?"):
        return {"booked": False}
    number = ctx.step("book", book, "Luigi's", persons, effect="once")
    ctx.output(f"Booked: {number}. I will remind you.")
    ctx.sleep(seconds=5)
    ctx.output("It is time to go.")
    return {"booked": True, "number": number}


if __name__ == "__main__":
    main.run()
