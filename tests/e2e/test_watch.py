"""A person watches a real desktop in a real browser, takes control, and hands it back."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser import chromium
from tests.e2e.conftest import Service
from tests.waiting import until

LIVE = "#link[data-state=live]"


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        page.set_default_timeout(15_000)
        yield page


@pytest.fixture
def desktop(service: Service) -> Iterator[str]:
    made = service.carrel("new", "--name", "Watched")
    assert made.returncode == 0, made.stderr
    yield made.stdout.strip()
    assert service.carrel("rm", made.stdout.strip()).returncode == 0


def pixels(page: Page) -> str:
    return str(page.evaluate("document.querySelector('#screen canvas').toDataURL()"))


def test_watch_take_control_and_hand_back(service: Service, desktop: str, page: Page) -> None:
    opened = service.carrel(
        "exec", "-d", desktop, "--", "xterm -maximized -e 'cat > /home/user/typed'"
    )
    assert opened.returncode == 0, opened.stderr

    def typed() -> str:
        return service.carrel("exec", desktop, "--", "cat /home/user/typed").stdout

    page.goto(service.url)
    page.get_by_label("Key", exact=True).fill(service.key)
    page.get_by_role("button", name="Continue").click()
    card = page.locator(".card", has_text="Watched")
    expect(card.locator("img")).to_be_visible()
    card.get_by_role("link", name="Watch Watched").last.click()
    expect(page.locator(LIVE)).to_be_visible()
    expect(page.locator("#badge")).to_have_text("View only")

    until(lambda: service.carrel("exec", desktop, "--", "test -e typed").returncode == 0)
    before = pixels(page)
    clicked = service.carrel("click", desktop, "640", "400")
    assert clicked.returncode == 0, clicked.stderr
    assert service.carrel("type", desktop, "from the agent\n").returncode == 0
    until(lambda: pixels(page) != before)
    until(lambda: typed() == "from the agent\n")

    page.locator("#screen canvas").click()
    page.keyboard.type("while viewing\n")
    page.get_by_role("button", name="Take control").click()
    expect(page.locator("#badge")).to_have_text("You have control")
    page.locator("#screen canvas").click()
    page.keyboard.type("in control\n")
    until(lambda: typed() == "from the agent\nin control\n")

    refused = service.carrel("type", desktop, "at the same time\n", "--json")
    assert json.loads(refused.stdout)["code"] == "human_in_control"

    page.get_by_role("button", name="Hand back").click()
    expect(page.locator("#badge")).to_have_text("View only")
    page.locator("#screen canvas").click()
    page.keyboard.type("after handing back\n")
    assert service.carrel("type", desktop, "the agent again\n").returncode == 0
    until(lambda: typed() == "from the agent\nin control\nthe agent again\n")
    log = service.carrel("logs", desktop).stdout
    assert "control_taken" in log
    assert "control_returned" in log


def test_a_link_shows_one_desktop_and_the_end_of_it(
    service: Service, desktop: str, page: Page
) -> None:
    told = json.loads(service.carrel("watch", desktop, "--json").stdout)
    page.goto(told["watch_url"])
    expect(page.locator(LIVE)).to_be_visible()
    assert "#" not in page.url
    page.get_by_role("button", name="Take control").click()
    expect(page.get_by_text("Taking control needs a key.")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    refused = page.evaluate(
        f"fetch('/v1/workspaces/{desktop}/files?path=.bashrc').then(r => r.status)"
    )
    assert refused == 403
    assert service.carrel("rm", desktop).returncode == 0
    expect(page.get_by_role("heading", name="This desktop has ended")).to_be_visible()
