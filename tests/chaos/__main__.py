"""``make chaos``: a thousand cycles of claim and release among random kills, and the books."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys

from tests.chaos.fleet import fleet
from tests.chaos.storm import SLOTS, Storm


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=7200, help="at most")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    with fleet(desktops=SLOTS) as running:
        running.start("a", "b")
        storm = Storm(running, seed=given.seed)
        books = asyncio.run(storm.run(given.cycles, given.seconds))
    print(books.told(), flush=True)
    return 0 if books.is_balanced and len(books.claimed) >= given.cycles else 1


if __name__ == "__main__":
    sys.exit(main())
