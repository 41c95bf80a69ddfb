"""Agents mend failing projects by the IDE's tools alone, in a real desktop, over MCP; and what the
editor shows of that is looked at on the screen."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence

import httpx2
import pytest
from mcp import Client
from mcp.types import CallToolResult
from PIL import Image as Pillow
from PIL import ImageChops

from tests.agent_bridge.conftest import pictures_of, text_of
from tests.e2e.conftest import Service
from tests.e2e.test_browser import connected
from tests.waiting import eventually
from workspace import SyncCarrel

pytestmark = pytest.mark.anyio
FOLDER = "/home/user/project"
# Where a file's first lines stand in the editor on a screen of 1280x800, without their numbers and
# the caret at their beginning, which blinks.
LINES = (455, 116, 1200, 285)
OPEN_SECONDS = 120  # on a machine that has much else to do
CARET = 3  # pixels that it is wide, at most: no character is as narrow
CHANGED = 200  # so many pixels at least differ by what is to be edited
EDITOR = {"x": 455, "y": 116, "width": 745, "height": 169}

PYTHON = {
    "cart.py": """\
def total(prices: list[int]) -> int:
    result = 0
    for price in prices:
        result -= price
    return result


def label(count: int) -> str:
    return "items: " + count
""",
    "main.py": """\
from cart import total

print("total", total([2, 3]))
""",
    "test_cart.py": """\
from cart import label, total


def test_total():
    assert total([1, 2]) == 3


def test_label():
    assert label(3) == "items: 3"
""",
}
PYTHON_EDITS = [
    ("result -= price", "result += price"),
    ('"items: " + count', 'f"items: {count}"'),
]
TYPESCRIPT_EDITS = [
    ("result -= price", "result += price"),
    ("string => count", "string => `items: ${count}`"),
]
TYPESCRIPT = {
    "package.json": '{"type": "module", "private": true}\n',
    "tsconfig.json": """\
{"compilerOptions": {"target": "esnext", "module": "nodenext", "strict": true, "noEmit": true,
  "allowImportingTsExtensions": true, "types": []}}
""",
    "cart.ts": """\
export function total(prices: number[]): number {
  let result = 0;
  for (const price of prices) {
    result -= price;
  }
  return result;
}

export const label = (count: number): string => count;
""",
    "main.ts": """\
import { label, total } from "./cart.ts";

console.log(label(total([2, 3])));
""",
    "cart.test.js": """\
import assert from "node:assert";
import test from "node:test";
import { label, total } from "./cart.ts";

test("adds prices", () => assert.equal(total([1, 2]), 3));
test("tells how many", () => assert.equal(label(3), "items: 3"));
""",
}


class Agent:
    """What a model does with the IDE: it calls tools, and reads what they say."""

    def __init__(self, client: Client, desktop_id: str) -> None:
        self._client = client
        self._desktop = {"desktop_id": desktop_id}

    async def ask(self, tool: str, **arguments: object) -> CallToolResult:
        result = await self._client.call_tool(tool, self._desktop | arguments)
        assert not result.is_error, text_of(result)
        return result

    async def call(self, tool: str, **arguments: object) -> str:
        return text_of(await self.ask(tool, **arguments))

    async def has_open(self, folder: str) -> bool:
        """Have it opened, again if the IDE is not ready in the time of a call."""
        result = await self._client.call_tool("ide_open", self._desktop | {"path": folder})
        said = text_of(result)
        assert said.startswith("ide_not_ready: ") or not result.is_error, said
        return said == f"The folder {folder} is open, and the IDE is ready."

    async def lines(self) -> Pillow.Image:
        """The first lines in the editor, as the screen shows them now."""
        (picture,) = pictures_of(await self.ask("screenshot", format="png"))
        image = Pillow.open(io.BytesIO(base64.b64decode(picture.data)))
        return image.convert("L").crop(LINES)

    async def shown(self, path: str, line: int) -> Pillow.Image:
        """Those lines of a file, once its colours are all there: they come with what the
        language's tools say of it."""
        await self.call("ide_open", path=path, line=line, column=1)
        await self.call("ide_read", what="diagnostics", path=path)
        await self.call("wait_for", until="region_stable", stable_ms=700, region=EDITOR)
        return await self.lines()

    async def given(self, folder: str, files: Mapping[str, str]) -> None:
        """A project lies there, as whoever gave the task left it."""
        for name, text in files.items():
            await self.call("file_write", path=f"{folder}/{name}", content=text)


def differ(one: Pillow.Image, other: Pillow.Image) -> int:
    """How many pixels look different."""
    return sum(ImageChops.difference(one, other).histogram()[33:])


@pytest.fixture(scope="module")
def desktop_id(service: Service) -> Iterator[str]:
    """A desktop of the template ``code``, whose IDE is ready."""
    with SyncCarrel(service.url, service.key) as carrel, carrel.claim("code") as desktop:
        desktop.wait_for_ide(OPEN_SECONDS)
        yield desktop.id


async def test_a_python_project_is_mended_by_the_ide_alone(
    service: Service, desktop_id: str
) -> None:
    async with connected(service, "?toolsets=desktop,ide,files,computer") as client:
        agent = Agent(client, desktop_id)
        await agent.given(FOLDER, PYTHON)
        await agent.given(FOLDER, {"fixed.py": fixed(PYTHON["cart.py"], PYTHON_EDITS)})
        meant = await agent.shown("fixed.py", 4)
        failed = await agent.call("ide_run", action="tests")
        assert failed.startswith("2 failed, 0 passed")
        assert f"FAILED test_cart.py::test_total {FOLDER}/test_cart.py:5" in failed
        before = await agent.shown("cart.py", 4)
        assert differ(before, meant) > CHANGED
        problems = await agent.call("ide_read", what="diagnostics", path="cart.py")
        assert f"{FOLDER}/cart.py:9:12 error" in problems
        assert "basedpyright" in problems
        found = await agent.call(
            "ide_read", what="definition", path="test_cart.py", line=5, symbol="total"
        )
        assert f"{FOLDER}/cart.py:1:5 def total" in found
        await agent.call("ide_run", action="breakpoints", path="cart.py", lines=[4])
        stopped = await agent.call("ide_run", action="debug", path="main.py")
        assert stopped.startswith(f"Stopped (breakpoint) at {FOLDER}/cart.py:4.")
        assert ">     4         result -= price" in stopped
        value = await agent.call("ide_run", action="evaluate", expression="result - price")
        assert "value: -2 (int)" in value
        await agent.call("ide_run", action="breakpoints", path="cart.py", lines=[])
        ended = await agent.call("ide_run", action="continue")
        assert ended.startswith("The program has ended with exit code 0.")
        assert "total -5" in ended
        edits = [{"path": "cart.py", "old": old, "new": new} for old, new in PYTHON_EDITS]
        assert " in 1 file, saved" in await agent.call("ide_edit", action="edit", edits=edits)
        await eventually(lambda: looks(agent, meant))
        assert "cart.py - project" in await agent.call("windows")
        passed = await agent.call("ide_run", action="tests")
        assert passed.startswith("0 failed, 2 passed (exit 0")
        assert await agent.call("file_read", path=f"{FOLDER}/cart.py") == fixed(
            PYTHON["cart.py"], PYTHON_EDITS
        )

    events = httpx2.get(
        f"{service.url}/v1/workspaces/{desktop_id}/events?limit=1000",
        headers={"Authorization": f"Bearer {service.key}"},
    ).json()["events"]
    told = [event["data"] for event in events if event["kind"] == "ide"]
    assert {"apply_edit", "run_tests", "debug", "open"} <= {each["type"] for each in told}
    assert "price" not in str(told)


async def looks(agent: Agent, meant: Pillow.Image) -> bool:
    """Whether the screen shows that, but for the caret."""
    difference = ImageChops.difference(await agent.lines(), meant).point(lambda it: it > 32 and 255)
    box = difference.getbbox()
    return box is None or box[2] - box[0] <= CARET


def fixed(text: str, edits: Sequence[tuple[str, str]]) -> str:
    for old, new in edits:
        text = text.replace(old, new)
    return text


async def test_a_typescript_project_is_mended_by_the_ide_alone(
    service: Service, desktop_id: str
) -> None:
    shop = "/home/user/shop"
    async with connected(service, "?toolsets=desktop,ide,files,computer") as client:
        agent = Agent(client, desktop_id)
        await agent.given(shop, TYPESCRIPT)
        await agent.given(shop, {"fixed.ts": fixed(TYPESCRIPT["cart.ts"], TYPESCRIPT_EDITS)})
        await eventually(lambda: agent.has_open(shop), OPEN_SECONDS)
        meant = await agent.shown("fixed.ts", 4)
        failed = await agent.call("ide_run", action="tests")
        assert failed.startswith("2 failed, 0 passed")
        assert "FAILED adds prices" in failed
        before = await agent.shown("cart.ts", 4)
        assert differ(before, meant) > CHANGED
        problems = await agent.call("ide_read", what="diagnostics", path="cart.ts")
        assert f"{shop}/cart.ts:9:49 error Type 'number' is not assignable" in problems
        found = await agent.call(
            "ide_read", what="definition", path="main.ts", line=3, symbol="total"
        )
        assert f"{shop}/cart.ts:1:17 export function total" in found
        await agent.call("ide_run", action="breakpoints", path="cart.ts", lines=[4])
        stopped = await agent.call("ide_run", action="debug", path="main.ts")
        assert stopped.startswith(f"Stopped (breakpoint) at {shop}/cart.ts:4.")
        assert ">     4     result -= price;" in stopped
        value = await agent.call("ide_run", action="evaluate", expression="result - price")
        assert "value: -2 (number)" in value
        await agent.call("ide_run", action="breakpoints", path="cart.ts", lines=[])
        ended = await agent.call("ide_run", action="continue")
        assert ended.startswith("The program has ended")
        edits = [{"path": "cart.ts", "old": old, "new": new} for old, new in TYPESCRIPT_EDITS]
        assert " in 1 file, saved" in await agent.call("ide_edit", action="edit", edits=edits)
        await eventually(lambda: looks(agent, meant))
        assert "cart.ts - shop" in await agent.call("windows")
        passed = await agent.call("ide_run", action="tests")
        assert passed.startswith("0 failed, 2 passed (exit 0")
        assert await agent.call("file_read", path=f"{shop}/cart.ts") == fixed(
            TYPESCRIPT["cart.ts"], TYPESCRIPT_EDITS
        )
