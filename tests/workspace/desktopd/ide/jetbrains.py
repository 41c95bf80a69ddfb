"""An IDE of JetBrains for tests: the stub, or a real one where that is asked for.

``CARREL_TEST_JETBRAINS=1`` (``make test-jetbrains``) asks for a real one: the program that
``CARREL_JETBRAINS`` names, else the first that is found. There being none is a failure then.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.workspace.desktopd.ide import jetbrains_stub_launcher as stub
from workspace import ide as i
from workspace.desktopd.children import Children
from workspace.desktopd.ide.adapter import Launched
from workspace.desktopd.ide.ides import end_children
from workspace.desktopd.ide.jetbrains.launching import find, launch
from workspace.desktopd.programs import Programs

IS_REAL = os.environ.get("CARREL_TEST_JETBRAINS") == "1"
_children: dict[asyncio.AbstractEventLoop, tuple[Children, int]] = {}
READY_SECONDS = 300.0 if IS_REAL else 30.0
FILES = {
    "prices.py": """\
\"\"\"What things cost.\"\"\"

RATE = 20


def with_tax(price):
    return price + price * RATE // 100


def total(prices):
    return sum(with_tax(price) for price in prices)
""",
    "orders.py": """\
from prices import total


def bill(prices):
    amount = total(prices)
    return f"{amount} EUR"
""",
    "others.py": """\
def total(words):
    return " ".join(words)


WORDS = total(["a", "b"])
""",
    "main.py": """\
from orders import bill


def main():
    prices = [100, 200]
    text = bill(prices)
    print(text)
    return text


if __name__ == "__main__":
    main()
""",
    "test_orders.py": """\
import unittest

from orders import bill


class Bills(unittest.TestCase):
    def test_bill(self):
        self.assertEqual(bill([100]), "120 EUR")

    def test_wrong(self):
        self.assertEqual(bill([100]), "121 EUR")
""",
    ".run/Main.run.xml": """\
<component name="ProjectRunConfigurationManager">
  <configuration name="Main" type="PythonConfigurationType" factoryName="Python">
    <option name="SCRIPT_NAME" value="$PROJECT_DIR$/main.py" />
    <option name="PARAMETERS" value="" />
    <option name="WORKING_DIRECTORY" value="$PROJECT_DIR$" />
    <option name="SDK_HOME" value="/usr/bin/python3" />
    <method v="2" />
  </configuration>
</component>
""",
    ".run/Forever.run.xml": """\
<component name="ProjectRunConfigurationManager">
  <configuration name="Forever" type="ShConfigurationType">
    <option name="SCRIPT_TEXT" value="echo begun; sleep 600" />
    <option name="EXECUTE_SCRIPT_FILE" value="false" />
    <option name="SCRIPT_WORKING_DIRECTORY" value="$PROJECT_DIR$" />
    <option name="INTERPRETER_PATH" value="/bin/bash" />
    <method v="2" />
  </configuration>
</component>
""",
}


def write_project(folder: Path) -> None:
    """The files of the project as they are at first."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


class Ide:
    """One that runs, with its project in ``folder``; ``turn`` changes the stub's switches."""

    def __init__(self, launched: Launched, folder: Path, switches: Path) -> None:
        self.launched, self.folder, self.switches = launched, folder, switches
        self.adapter = launched.adapter

    async def do(self, **action: object) -> i.IdeAnswer:
        return await self.adapter.do(i.IDE_ACTION.validate_python(action))

    def turn(self, **told: object) -> None:
        stub.turn(self.switches, **told)

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    async def until_ready(self) -> None:
        await asyncio.wait_for(self.adapter.until_ready(), READY_SECONDS)


@asynccontextmanager
async def running(
    folder: Path, *options: str, settings: i.IdeSettings | None = None, **environment: str
) -> AsyncIterator[Ide]:
    """The stub, started as an IDE is, its project and home below ``folder``."""
    project, switches = folder / "project", folder / "switches.json"
    write_project(project)
    program = stub.install(folder / "pycharm", switches, *options)
    base = settings or i.IdeSettings(kind="jetbrains")
    chosen = base.model_copy(update={"program": str(program), "folder": str(project)})
    async with _started(folder, chosen, {"PATH": os.environ["PATH"], **environment}) as launched:
        yield Ide(launched, project, switches)


@asynccontextmanager
async def running_really(folder: Path, **environment: str) -> AsyncIterator[Ide]:
    """The real one that is asked for, on the screen of the environment.

    Raises:
        Unavailable: there is none.
    """
    program = find(os.environ.get("CARREL_JETBRAINS"), os.environ["PATH"])
    write_project(folder / "project")
    settings = i.IdeSettings(kind="jetbrains", program=program, folder=str(folder / "project"))
    async with _started(folder, settings, {**os.environ, **environment}) as launched:
        yield Ide(launched, folder / "project", folder / "switches.json")


@asynccontextmanager
async def programs_of(folder: Path, environment: dict[str, str]) -> AsyncIterator[Programs]:
    """What starts programs, their home below ``folder``; those of one loop share their children,
    for a loop has one handler of SIGCHLD."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    loop = asyncio.get_running_loop()
    children, users = _children.get(loop) or (Children(adopts=False), 0)
    _children[loop] = children, users + 1
    try:
        yield Programs(children, environment | {"HOME": str(home)}, oom_score_adj=500)
    finally:
        children, users = _children.pop(loop)
        if users > 1:
            _children[loop] = children, users - 1
        else:
            await children.end_all()


@asynccontextmanager
async def _started(
    folder: Path, settings: i.IdeSettings, environment: dict[str, str]
) -> AsyncIterator[Launched]:
    private = folder / "ide"
    private.mkdir(mode=0o700, exist_ok=True)

    async def shown() -> None:
        pass

    async with programs_of(folder, environment) as programs:
        launched = await launch(programs, settings, str(private), shown)
        try:
            yield launched
        finally:
            await launched.adapter.aclose()
            await end_children(launched.children)
