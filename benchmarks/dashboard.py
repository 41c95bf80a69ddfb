"""The dashboard with very many desktops, in a real Chromium. ``python -m benchmarks.dashboard``

The controller is whole and the browser real; the desktops are simulated: one fake one, behind five
hundred workspaces. ``--pictures FOLDER`` keeps what the page looks like, wide and narrow, light and
dark.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
from anyio.from_thread import start_blocking_portal
from playwright.sync_api import Browser, Page, Request, sync_playwright
from pydantic import SecretStr

from benchmarks.claims import Simulated
from benchmarks.report import tell
from benchmarks.rows import Measured
from controller.app import create_app
from controller.live import Located
from controller.settings import Settings
from workspace.backends.base import Endpoint, Mount
from workspace.backends.footprint import Footprint
from workspace.models import Node, Template
from workspace.testing import FakeDesktop, serving

DESKTOPS = 500
LOADS = 10
CLAIMS_AT_ONCE = 16
KEY, TOKEN = "the-key-of-the-benchmark", "the-token-of-the-fake"
SIZES = {"wide": (1280, 900), "narrow": (390, 844)}
WHO = "Chromium"
Note = Callable[[str], None]
# When the last card was drawn, and when the first of their pictures was, in ms of the page's clock.
_WATCH = f"""() => {{
  const look = () => {{
    const cards = document.querySelectorAll(".card");
    if (!window.drawn && cards.length === {DESKTOPS}) window.drawn = performance.now();
    const shown = document.querySelector(".card img[src]");
    if (!window.pictured && shown?.complete) window.pictured = performance.now();
    if (!window.drawn || !window.pictured) setTimeout(look, 5);
  }};
  look();
}}"""
_PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
_IN_SIGHT = """[...document.querySelectorAll('.card')]
  .filter((card) => card.getBoundingClientRect().top < innerHeight).length"""


class _There:
    """One more workspace of the one desktop."""

    def __init__(self, sandbox: str, endpoint: Endpoint) -> None:
        self.workspace_id = sandbox
        self.endpoint = endpoint
        self.node = self.node_name = "simulated"
        self.remaining_seconds = 3600.0


class _OneDesktop(Simulated):
    """A cluster that says of every workspace that its desktop is this one."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self._endpoint = endpoint

    async def start(
        self,
        workspace_id: str,
        template: Template,
        *,
        ttl_seconds: float,
        timeout_seconds: float,
        background: bool = False,
        node: str | None = None,
        volume: Mount | None = None,
        avoid: Collection[str] = (),
        placed: Callable[[], None] | None = None,
        whose: Mapping[str, str] | None = None,
    ) -> Located:
        self.sandboxes.add(workspace_id)
        if placed is not None:
            placed()
        return _There(workspace_id, self._endpoint)

    async def locate(self, workspace_id: str) -> Located | None:
        return _There(workspace_id, self._endpoint)

    async def nodes(self) -> list[Node]:
        return [Node(id="n1", name="simulated", desktops=DESKTOPS, slots=2 * DESKTOPS)]

    def takes(self, template: Template) -> Footprint:
        return Footprint(template.memory_mib, 0)


@asynccontextmanager
async def _controller(home: Path) -> AsyncIterator[str]:
    """Serves so many workspaces; its address."""
    path = home / "desktop.sock"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as there,
        socket.create_server(("127.0.0.1", 0)) as here,
    ):
        there.bind(str(path))
        there.listen(512)
        port = int(here.getsockname()[1])
        here.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = Settings(
            home=home,
            run_dir=home / "run",
            api_key=SecretStr(KEY),
            port=port,
            database_url=f"sqlite+aiosqlite:///{home / 'carrel.db'}",
            artifacts="none",
        )
        app = create_app(settings, _OneDesktop(Endpoint(url=f"unix://{path}", token=TOKEN)))
        desktop = FakeDesktop(TOKEN)
        async with (
            serving(desktop.app, there),
            app.router.lifespan_context(app),
            serving(app, here),
        ):
            await _fill(settings.url)
            yield settings.url
        desktop.hands.close()


async def _fill(url: str) -> None:
    limits = httpx.Limits(max_connections=CLAIMS_AT_ONCE)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=120) as http:

        async def claim(number: int) -> None:
            name = f"Invoice run {number}" if number % 3 else ""
            answer = await http.post("/v1/workspaces", json={"name": name, "ttl_seconds": 3600})
            answer.raise_for_status()

        await asyncio.gather(*(claim(number) for number in range(DESKTOPS)))
        quotas = {"workspaces": 600, "memory_mib": 4 << 20, "desktop_hours": 10_000}
        (await http.put("/v1/tenants/default", json=quotas)).raise_for_status()


@contextmanager
def _served() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="c-") as home, start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(_controller(Path(home))) as url:
            yield url


def _log_in(page: Page) -> None:
    page.goto("/")
    page.get_by_label("Key", exact=True).fill(KEY)
    page.get_by_role("button", name="Continue").click()
    page.wait_for_function(f"document.querySelectorAll('.card').length === {DESKTOPS}")


def _loads(browser: Browser, url: str, size: str) -> list[Measured]:
    width, height = SIZES[size]
    context = browser.new_context(
        base_url=url,
        viewport={"width": width, "height": height},
        bypass_csp=True,  # what looks on is no script of the page
    )
    page = context.new_page()
    _log_in(page)
    context.add_init_script(f"({_WATCH})()")
    asked: set[str] = set()

    def note_asked(request: Request) -> None:
        if "/screenshot" in request.url:
            asked.add(request.url.split("/")[5])

    page.on("request", note_asked)
    painted, drawn, pictured, pictures = [], [], [], []
    for _ in range(LOADS):
        asked.clear()
        page.goto("/")
        page.wait_for_function("window.drawn && window.pictured")
        page.wait_for_timeout(500)  # for pictures of what is not in sight, if any were asked for
        painted.append(float(page.evaluate(_PAINTED)))
        drawn.append(float(page.evaluate("window.drawn")))
        pictured.append(float(page.evaluate("window.pictured")))
        pictures.append(float(len(asked)))
    in_sight = int(page.evaluate(_IN_SIGHT))
    context.close()
    of = f"{DESKTOPS} desktops, {size}"
    return [
        Measured(f"first contentful paint, {of}", WHO, "ms", tuple(painted)),
        Measured(f"all cards are there, {of}", WHO, "ms", tuple(drawn)),
        Measured(f"the first picture is there, {of}", WHO, "ms", tuple(pictured)),
        Measured(f"pictures asked for, {of}", WHO, "", tuple(pictures), f"{in_sight} in sight"),
    ]


def keep_pictures(browser: Browser, url: str, folder: Path) -> None:
    """What the pages look like, of each size and colour scheme."""
    for size, (width, height) in SIZES.items():
        for scheme in ("light", "dark"):
            context = browser.new_context(
                base_url=url,
                viewport={"width": width, "height": height},
                color_scheme="dark" if scheme == "dark" else "light",
                bypass_csp=True,
            )
            page = context.new_page()
            _log_in(page)
            page.wait_for_timeout(1500)
            page.screenshot(path=folder / f"desktops-{size}-{scheme}.png")
            page.goto("/fleet")
            page.wait_for_selector("#pools tr")
            page.screenshot(path=folder / f"fleet-{size}-{scheme}.png")
            context.close()


def measure(note: Note, pictures: Path | None = None) -> list[Measured]:
    """All of it; ``note`` is told what is going on."""
    note(f"claiming {DESKTOPS} simulated desktops")
    found: list[Measured] = []
    with _served() as url, sync_playwright() as playwright:
        # Root cannot use Chromium's own sandbox; the pages are this repository's.
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        for size in SIZES:
            note(f"{LOADS} loads of the {size} dashboard")
            found += _loads(browser, url, size)
        if pictures is not None:
            keep_pictures(browser, url, pictures)
        browser.close()
    return found


def main() -> None:
    pictures = None
    if "--pictures" in sys.argv[1:]:
        pictures = Path(sys.argv[sys.argv.index("--pictures") + 1])
    found = measure(lambda text: print(text, file=sys.stderr), pictures)
    tell(found, as_json="--json" in sys.argv[1:])


if __name__ == "__main__":
    main()
