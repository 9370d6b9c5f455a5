"""An agent with durable steps: kill it at any line, and it goes on where it was."""

import agent_executor as ax


def count_words(text: str) -> int:
    """What takes time or money, or must not happen twice, is a step."""
    return len(text.split())


@ax.agent
def main(ctx: ax.Context) -> dict[str, int]:
    """Count the words of the input, and say so."""
    words = ctx.step("count", count_words, ctx.input.text, effect="read")
    ctx.output(f"{words} words")
    return {"words": words}


if __name__ == "__main__":
    main.run()
