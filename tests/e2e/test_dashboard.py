"""What stands beside a desktop's screen, and the fleet, in a real browser over a real service."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import chromium
from tests.e2e.conftest import Service
from tests.waiting import until

LIVE = "#link[data-state=live]"
MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(service: Service, browser: Browser) -> Iterator[Page]:
    """A browser that has shown the key; a script's error or a refused part fails the test."""
    wrong: list[str] = []
    context = browser.new_context(base_url=service.url, viewport={"width": 1300, "height": 900})
    context.set_default_timeout(20_000)
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.goto("/")
    page.get_by_label("Key", exact=True).fill(service.key)
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#login")).to_be_hidden()
    yield page
    context.close()
    assert wrong == []


@pytest.fixture
def desktop(service: Service) -> Iterator[str]:
    made = service.carrel("new", "light", "--name", "Looked into", "--keep-frames", "all")
    assert made.returncode == 0, made.stderr
    yield made.stdout.strip()
    assert service.carrel("rm", made.stdout.strip()).returncode == 0


def test_beside_the_screen_stands_what_was_done(service: Service, desktop: str, page: Page) -> None:
    assert service.carrel("click", desktop, "320", "200").returncode == 0
    assert service.carrel("exec", desktop, "--", f"echo '{MARKUP}' > seen").returncode == 0
    assert service.carrel("exec", "-d", desktop, "--", "echo from a job").returncode == 0
    page.goto(f"/watch/{desktop}")
    expect(page.locator(LIVE)).to_be_visible()
    page.get_by_role("button", name="Details").click()

    timeline = page.get_by_role("tabpanel", name="Timeline")
    expect(timeline.get_by_text(MARKUP)).to_be_visible()  # as it was written, and no picture
    expect(timeline.locator("img")).to_have_count(0)
    timeline.get_by_text("click at 320, 200").hover()
    ring, canvas = (
        page.locator("#marks .ring").bounding_box(),
        page.locator("canvas").bounding_box(),
    )
    assert ring is not None
    assert canvas is not None
    assert abs(ring["x"] + ring["width"] / 2 - (canvas["x"] + canvas["width"] * 320 / 1280)) < 2
    assert abs(ring["y"] + ring["height"] / 2 - (canvas["y"] + canvas["height"] * 200 / 800)) < 2
    assert service.carrel("click", desktop, "5", "6").returncode == 0
    expect(timeline.get_by_text("click at 5, 6")).to_be_visible()  # as it happens

    timeline.locator("li", has_text="click at 320, 200").get_by_role("button").click()
    frames = page.get_by_role("dialog", name="click at 320, 200")
    expect(frames.get_by_role("img")).to_have_count(2)
    for which in ("before", "after"):
        picture = frames.get_by_role("img", name=f"The screen {which}")
        until(lambda shown=picture: shown.evaluate("it => it.naturalWidth") == 1280)
    expect(frames.locator(".ring")).to_have_count(1)
    frames.get_by_role("button", name="Close").click()

    page.get_by_role("tab", name="Timeline").press("ArrowRight")
    expect(page.get_by_role("tab", name="Files")).to_be_focused()
    with page.expect_download() as saving:
        page.get_by_role("tabpanel", name="Files").get_by_role("link", name="seen").click()
    assert saving.value.path().read_text() == f"{MARKUP}\n"

    page.get_by_role("tab", name="Output").click()
    expect(page.get_by_role("tabpanel", name="Output").locator("pre")).to_have_text("from a job\n")

    page.get_by_role("tab", name="Recording").click()
    film = page.get_by_role("tabpanel", name="Recording")
    film.get_by_role("button", name="Record").click()
    expect(film.get_by_role("status")).to_contain_text("Recording")
    film.get_by_role("button", name="Stop").click()
    with page.expect_download() as saving:
        film.get_by_role("link", name="Save the film").click()
    assert saving.value.path().read_bytes()[4:8] == b"ftyp"


def test_a_person_pauses_prolongs_and_releases(service: Service, desktop: str, page: Page) -> None:
    page.goto(f"/watch/{desktop}")
    expect(page.locator(LIVE)).to_be_visible()
    page.get_by_role("button", name="Details").click()
    page.get_by_role("button", name="30 min from now").click()
    expect(page.locator("#left")).to_have_text("30 min left")
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.locator("#link")).to_have_text("Paused")
    page.locator("#side").get_by_role("button", name="Resume").click()
    expect(page.locator(LIVE)).to_be_visible()
    page.get_by_role("button", name="Release").click()
    page.get_by_role("button", name="Keep it").click()
    assert json.loads(service.carrel("ls", "--json").stdout)
    page.get_by_role("button", name="Release").click()
    page.locator("#confirm").get_by_role("button", name="Release").click()
    expect(page.get_by_role("heading", name="This desktop has ended")).to_be_visible()
    expect(page.locator("#side")).to_be_hidden()


def test_an_admin_sees_what_tenants_have_of_what_they_may(
    service: Service, desktop: str, page: Page
) -> None:
    told = page.get_by_role("region", name="Tenants")
    expect(told).to_be_hidden()
    service.carrel("tenants", "set", "default", "--desktops", "4")
    service.carrel("tenants", "set", "billing", "--hours", "10")
    try:
        row = told.get_by_role("row", name="default")
        expect(row).to_contain_text("1 of 4", timeout=15_000)  # looked at every few seconds
        expect(row.get_by_label("Desktops of default")).to_have_attribute("value", "1")
        expect(told.get_by_role("row", name="billing")).to_contain_text("0 of 10")
    finally:
        for name in ("default", "billing"):
            service.carrel("tenants", "set", name)


def pool_of(service: Service, template: str) -> dict[str, Any]:  # Any: JSON values
    """What is set of its pool."""
    pools = json.loads(service.carrel("scale", "--json").stdout)
    found = next(each["pool"] for each in pools if each["template"] == template)
    assert isinstance(found, dict)
    return found


def test_the_fleet_is_seen_and_scaled(service: Service, page: Page) -> None:
    page.get_by_role("link", name="Fleet").click()
    row = page.locator("#pools tr", has_text="light")
    row.get_by_label("Keep warm of light").fill("1")
    row.get_by_label("At most of light").fill("3")
    row.get_by_role("button", name="Set the pool of light").click()
    expect(row).to_contain_text("1 of 1", timeout=60_000)
    told = pool_of(service, "light")
    assert (told["warm"], told["max"]) == (1, 3)
    row.get_by_label("Keep warm of light").fill("0")
    row.get_by_label("At most of light").fill("")
    row.get_by_role("button", name="Set the pool of light").click()
    expect(row).to_contain_text("0 of 0")
    told = pool_of(service, "light")
    assert (told["warm"], told["max"]) == (0, None)

    node = page.locator("#nodes tr")
    node.get_by_role("button", name="Drain").click()
    expect(node).to_contain_text("draining")
    assert json.loads(service.carrel("nodes", "--json").stdout)[0]["draining"]
    node.get_by_role("button", name="Back into service").click()
    expect(node).to_contain_text("in service")
    expect(page.locator("#figures .bad")).to_have_count(0)


def typed(service: Service, desktop: str) -> str:
    """What was typed into the terminal that waits for a line."""
    return service.carrel("exec", desktop, "--", "cat typed").stdout


def test_a_person_watches_takes_over_types_hands_back_and_replays(
    service: Service, desktop: str, page: Page
) -> None:
    waits = 'xterm -maximized -e bash -c "head -n 1 > typed; sleep 60"'
    assert service.carrel("exec", "-d", desktop, "--", waits).returncode == 0
    page.get_by_role("link", name="Watch Looked into").last.click()
    expect(page.locator(LIVE)).to_be_visible()
    expect(page.locator("#badge")).to_have_text("View only")
    until(lambda: "xterm" in service.carrel("exec", desktop, "--", "pgrep -l xterm").stdout)

    page.get_by_role("button", name="Take control").click()
    expect(page.locator("#badge")).to_have_text("You have control")
    refused = service.carrel("click", desktop, "7", "8", "--json")
    assert json.loads(refused.stdout)["code"] == "human_in_control"
    page.locator("canvas").click()  # which gives the terminal the keyboard
    page.keyboard.type("by a person\n", delay=20)
    until(lambda: typed(service, desktop) == "by a person\n")

    page.get_by_role("button", name="Hand back").click()
    expect(page.locator("#badge")).to_have_text("View only")
    assert service.carrel("click", desktop, "321", "201").returncode == 0
    page.get_by_role("button", name="Details").click()
    timeline = page.get_by_role("tabpanel", name="Timeline")
    expect(timeline.get_by_text("took control")).to_be_visible()
    expect(timeline.get_by_text(re.compile(r"handed back: \d things done"))).to_be_visible()
    expect(timeline).not_to_contain_text("by a person")
    timeline.locator("li", has_text="click at 321, 201").get_by_role("button").click()
    frames = page.get_by_role("dialog", name="click at 321, 201")
    for which in ("before", "after"):
        picture = frames.get_by_role("img", name=f"The screen {which}")
        until(lambda shown=picture: shown.evaluate("it => it.naturalWidth") == 1280)


def test_a_link_to_control_does_that_and_no_more_once_it_is_revoked(
    service: Service, desktop: str, browser: Browser
) -> None:
    made = service.carrel("share", desktop, "--control", "--expires", "10m", "--json")
    assert made.returncode == 0, made.stderr
    share = json.loads(made.stdout)
    listed = service.carrel("shares", "ls", desktop).stdout.split()
    assert listed[:2] == [share["id"], "control"]
    context = browser.new_context(viewport={"width": 1300, "height": 900})
    page = context.new_page()
    page.goto(share["url"])
    expect(page.locator(LIVE)).to_be_visible()
    page.get_by_role("button", name="Take control").click()
    expect(page.locator("#badge")).to_have_text("You have control")
    page.locator("canvas").click()
    page.get_by_role("button", name="Hand back").click()
    expect(page.locator("#badge")).to_have_text("View only")
    lines = service.carrel("logs", desktop, "--json").stdout
    (returned,) = [each for each in json.loads(lines) if each["kind"] == "control_returned"]
    assert [deed["type"] for deed in returned["data"]["did"]] == ["click"]

    assert service.carrel("shares", "rm", desktop, share["id"]).stdout.split() == [share["id"]]
    for look in (page, context.new_page()):
        if look is not page:
            look.goto(share["url"])
        told = look.get_by_role("dialog", name="Enter your key")
        expect(told).to_contain_text("has expired or was revoked", timeout=15_000)
    assert service.carrel("shares", "ls", desktop).stdout == ""
    for given in (["--expires", "soon"], ["--expires", "0s"]):
        assert service.carrel("share", desktop, *given).returncode != 0
    context.close()
