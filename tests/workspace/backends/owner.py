"""A process that starts sandboxes and then only waits: what the tests kill."""

import asyncio
import json
import sys

from workspace.backends.bubblewrap import BubblewrapBackend
from workspace.models import Template


async def main(run_dir: str, disk_dir: str, runtime_dir: str, command: str, *ids: str) -> None:
    backend = BubblewrapBackend(run_dir, disk_dir, runtime_dir, command=json.loads(command))
    for workspace_id in ids:
        await backend.start(workspace_id, Template(name="test"))
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
