"""The Python client of the cut test: it submits, follows, and writes down what it saw."""

import asyncio
import json
import sys
import threading
from pathlib import Path

from agent_executor.client import AsyncClient, Broken, Client, Event, Patience, Text

PATIENCE = Patience(outage=60.0, pause_min=0.005, pause_max=0.1, silence=20.0)


class Seen:
    """What a follower saw."""

    def __init__(self, task):
        self.task = task
        self.events = []
        self.text = Text()
        self.ends = 0
        self.broken = 0
        self.acknowledged = []

    def take(self, item):
        """Take in an item; return whether it was the last one."""
        if isinstance(item, Broken):
            self.broken += 1
        elif isinstance(item, Event):
            self.events.append(item.raw)
            self.text.add(item)
            self.ends += item.ends_execution
        return self.ends == self.task["ends"]

    def report(self):
        return {
            "session": self.task["session"],
            "events": self.events,
            "text": str(self.text),
            "broken": self.broken,
            "acknowledged": self.acknowledged,
        }


def wait(url, seen):
    """Do it with the client that waits."""
    client, task = Client(url, patience=PATIENCE), seen.task
    def submit():
        for program in task["inputs"]:
            done = client.submit(json.dumps(program), session=task["session"])
            seen.acknowledged.append(done.seq)
    submitting = threading.Thread(target=submit)
    submitting.start()
    for item in client.follow(task["session"]):
        if seen.take(item):
            break
    submitting.join()


async def wait_all(url, some):
    """Do it with the client that awaits."""
    async def one(seen):
        client, task = AsyncClient(url, patience=PATIENCE), seen.task
        async def submit():
            for program in task["inputs"]:
                done = await client.submit(json.dumps(program), session=task["session"])
                seen.acknowledged.append(done.seq)
        submitting = asyncio.ensure_future(submit())
        async for item in client.follow(task["session"]):
            if seen.take(item):
                break
        await submitting
    await asyncio.gather(*(one(seen) for seen in some))


def main():
    url, plan, out = sys.argv[1:]
    all_seen = [Seen(task) for task in json.loads(Path(plan).read_text())]
    waiting = [seen for number, seen in enumerate(all_seen) if number % 2 == 0]
    threads = [threading.Thread(target=wait, args=(url, seen)) for seen in waiting]
    for thread in threads:
        thread.start()
    asyncio.run(wait_all(url, [seen for seen in all_seen if seen not in waiting]))
    for thread in threads:
        thread.join()
    Path(out).write_text(json.dumps([seen.report() for seen in all_seen]))


main()
