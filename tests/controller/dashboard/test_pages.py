"""The dashboard's pages in a real headless Chromium, over a real X server's screen."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from tests.browser import chromium
from tests.controller.dashboard.standin import (
    KEY,
    TOKEN,
    StandIn,
    serve,
    workspace,
)
from tests.waiting import until

ID = "abcd1234ef"
LIVE = "#link[data-state=live]"


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    with serve(tmp_path_factory.mktemp("standin")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def context(browser: Browser, standin: StandIn) -> Iterator[BrowserContext]:
    standin.workspaces = {ID: workspace(ID, name="Travel form")}
    standin.created.clear()
    standin.roles.clear()
    standin.control, standin.returned = {}, None
    standin.requests.clear()
    standin.answered.clear()
    standin.is_broken = False
    context = browser.new_context(base_url=standin.url, viewport={"width": 1000, "height": 700})
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def refused_by_policy(page: Page) -> list[str]:
    """What the content security policy kept from loading."""
    found: list[str] = []
    page.on(
        "console",
        lambda message: (
            found.append(message.text) if "Content Security Policy" in message.text else None
        ),
    )
    return found


def enter_key(page: Page, key: str = KEY) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Continue").click()


def test_the_key_is_entered_once_and_no_script_can_read_it(page: Page) -> None:
    page.goto("/")
    enter_key(page, "not the key")
    expect(page.get_by_role("alert").filter(has_text="not known")).to_be_visible()
    enter_key(page)
    expect(page.locator(".card")).to_have_count(1)
    assert KEY not in page.evaluate("document.cookie")
    page.reload()
    expect(page.locator(".card")).to_have_count(1)
    expect(page.get_by_label("Key", exact=True)).to_be_hidden()


def test_cards_show_live_desktops_and_their_screens(
    page: Page, standin: StandIn, refused_by_policy: list[str]
) -> None:
    standin.workspaces |= {
        "starting12": workspace("starting12", state="starting"),
        "deadbeef00": workspace("deadbeef00"),
        "gone567890": workspace("gone567890", state="released"),
    }
    page.goto("/")
    enter_key(page)
    expect(page.locator(".card")).to_have_count(3)
    card = page.locator(".card", has_text="Travel form")
    expect(card).to_contain_text(ID)
    expect(card).to_contain_text("ready")
    expect(card.locator(".left")).to_have_text(re.compile(r"2[78] min left"))
    picture = card.locator("img")
    expect(picture).to_be_visible()
    first = picture.get_attribute("src")
    expect(picture).not_to_have_attribute("src", first or "")  # it is renewed
    expect(page.locator(".card", has_text="starting12")).to_contain_text("Starting…")
    expect(page.locator(".card", has_text="deadbeef00")).to_contain_text("No picture")
    assert refused_by_policy == []


def test_of_five_hundred_only_those_in_sight_are_pictured(page: Page, standin: StandIn) -> None:
    standin.workspaces = {each: workspace(each) for each in (f"many{n:06}" for n in range(500))}
    asked: set[str] = set()
    page.on(
        "request",
        lambda request: (
            asked.add(request.url.split("/")[5]) if "/screenshot" in request.url else None
        ),
    )
    page.goto("/")
    enter_key(page)
    expect(page.locator(".card")).to_have_count(500)
    expect(page.locator(".card img").first).to_be_visible()
    is_in_sight = "each => each.getBoundingClientRect().top < innerHeight"
    in_sight = page.evaluate(
        f"[...document.querySelectorAll('.card')].filter({is_in_sight}).length"
    )
    assert 0 < len(asked) <= in_sight < 50
    page.locator(".card").last.scroll_into_view_if_needed()
    expect(page.locator(".card").last.locator("img")).to_be_visible(timeout=15_000)


def test_a_paused_one_says_so_and_its_picture_is_no_use_of_it(page: Page, standin: StandIn) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/")
    enter_key(page)
    card = page.locator(".card", has_text="Travel form")
    expect(card.locator("img")).to_be_visible()
    assert all("passive=true" in url for url in asked if "/screenshot" in url)
    standin.workspaces[ID]["state"] = "paused"
    page.route("**/screenshot?*", lambda route: route.fulfill(status=409))  # one may be on its way
    expect(card.locator(".wait")).to_have_text("Paused")
    expect(card.locator("img")).to_be_visible()  # as it was
    expect(card.locator("a.watch")).not_to_have_class(re.compile("off"))


def test_a_pause_while_it_is_watched_is_told_and_ended(page: Page, standin: StandIn) -> None:
    page.goto("/")
    enter_key(page)
    page.get_by_role("link", name="Watch Travel form").last.click()
    expect(page.locator(LIVE)).to_be_visible()
    standin.workspaces[ID]["state"] = "paused"
    resume = page.get_by_role("button", name="Resume")
    expect(resume).to_be_visible(timeout=15_000)
    expect(page.locator("#link")).to_have_text("Paused")
    standin.workspaces[ID]["state"] = "ready"  # by somebody else
    expect(page.locator(LIVE)).to_be_visible(timeout=15_000)
    expect(resume).to_be_hidden()
    standin.workspaces[ID]["state"] = "paused"
    expect(resume).to_be_visible(timeout=15_000)
    before = len(standin.roles)
    standin.workspaces[ID]["state"] = "ready"
    resume.click()
    expect(resume).to_be_hidden(timeout=15_000)
    until(lambda: len(standin.roles) == before + 1)


def test_no_picture_is_asked_for_while_one_is_on_its_way(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    held: list[Route] = []
    page.route("**/screenshot?*", lambda route: held.append(route))
    page.goto("/")
    enter_key(page)
    expect(page.locator(".card")).to_have_count(1)
    for _ in range(3):
        with page.expect_response("**/v1/workspaces?*"):
            pass
    assert sum("/screenshot" in url for url in asked) == 1
    for route in held:
        route.abort()


def test_a_desktop_is_made_and_released_with_a_question(page: Page, standin: StandIn) -> None:
    standin.workspaces.clear()
    page.goto("/")
    enter_key(page)
    expect(page.get_by_role("heading", name="No desktops yet")).to_be_visible()
    page.get_by_role("banner").get_by_role("button", name="New desktop").click()
    page.get_by_label("Name").fill("Invoices")
    page.get_by_label("Lives for").select_option("2 hours")
    page.get_by_role("button", name="Create").click()
    expect(page.locator(".card", has_text="Invoices")).to_be_visible()
    (asked,) = standin.created
    assert asked == {"template": "desktop", "name": "Invoices", "ttl_seconds": 7200, "wait": False}

    page.get_by_role("button", name="Release Invoices").click()
    page.get_by_role("button", name="Keep it").click()
    assert len(standin.workspaces) == 1
    page.get_by_role("button", name="Release Invoices").click()
    page.get_by_role("dialog").get_by_role("button", name="Release", exact=True).click()
    expect(page.locator(".card")).to_have_count(0)
    assert not standin.workspaces


def test_errors_are_shown_in_words(page: Page, standin: StandIn) -> None:
    page.goto("/")
    enter_key(page)
    expect(page.locator(".card")).to_have_count(1)
    for number in range(4):
        standin.workspaces[f"more00000{number}"] = workspace(f"more00000{number}")
    page.get_by_role("banner").get_by_role("button", name="New desktop").click()
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_have_text(
        "No node has room for a desktop. Release one."
    )
    page.get_by_role("button", name="Cancel").click()
    standin.is_broken = True
    expect(page.locator("#problem")).to_have_text("The controller is restarting. Wait a moment.")
    standin.is_broken = False
    expect(page.locator("#problem")).to_be_hidden()


def dark_of(page: Page) -> int:
    """How much of the desktop's picture is not white: what was drawn on its terminal."""
    return int(
        page.evaluate(
            """() => {
              const canvas = document.querySelector("#screen canvas");
              const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, 200).data;
              let dark = 0;
              for (let i = 0; i < pixels.length; i += 4) dark += pixels[i] < 128;
              return dark;
            }"""
        )
    )


def test_a_link_lets_watch_but_not_type_and_a_key_takes_control_and_hands_back(
    page: Page, standin: StandIn, refused_by_policy: list[str]
) -> None:
    page.goto(f"/watch/{ID}#{TOKEN}")
    expect(page.locator(LIVE)).to_be_visible()
    assert page.url.endswith(f"/watch/{ID}")  # the token left the address bar
    assert TOKEN not in page.evaluate("document.cookie")
    expect(page.locator("#badge")).to_have_text("View only")
    until(lambda: dark_of(page) > 100)  # the terminal's greeting
    before = standin.typed.read_text()

    page.locator("#screen canvas").click()
    page.keyboard.type("not allowed\n")
    page.wait_for_timeout(300)
    assert standin.typed.read_text() == before

    page.get_by_role("button", name="Take control").click()
    expect(page.get_by_text("Taking control needs a key.")).to_be_visible()
    enter_key(page)
    expect(page.locator("#badge")).to_have_text("You have control")
    drawn = dark_of(page)
    page.keyboard.type("allowed\n")
    until(lambda: standin.typed.read_text() == before + "allowed\n")
    until(lambda: dark_of(page) != drawn)

    page.get_by_role("button", name="Hand back").click()
    expect(page.locator("#badge")).to_have_text("View only")
    expect(page.locator(LIVE)).to_be_visible()
    page.locator("#screen canvas").click()
    page.keyboard.type("not any more\n")
    page.wait_for_timeout(300)
    assert standin.typed.read_text() == before + "allowed\n"
    assert standin.roles == ["view", "control"]
    assert refused_by_policy == []


def test_another_person_has_control_until_it_is_taken_from_them(
    page: Page, standin: StandIn
) -> None:
    standin.take("ada", "Ada L.")
    page.goto("/")
    enter_key(page)
    page.goto(f"/watch/{ID}")
    expect(page.locator(LIVE)).to_be_visible()
    expect(page.locator("#holder")).to_contain_text("Ada L. has control since")
    page.get_by_role("button", name="Take control").click()
    dialog = page.get_by_role("dialog", name="Another person has control")
    expect(dialog).to_contain_text("Ada L.")
    dialog.get_by_role("button", name="Leave it to them").click()
    expect(page.locator("#badge")).to_have_text("View only")
    assert standin.roles == ["view"]
    page.get_by_role("button", name="Take control").click()
    dialog.get_by_role("button", name="Take it anyway").click()
    expect(page.locator("#badge")).to_have_text("You have control")
    expect(page.locator("#holder")).to_be_hidden()
    expect(page.locator("#control-left")).to_contain_text(re.compile(r"in [45]:\d\d without"))


@pytest.mark.parametrize(
    ("why", "told"),
    [("timed_out", "Nothing was moved or typed"), ("taken_over", "Control was taken from you")],
)
def test_control_that_goes_by_itself_is_told_and_the_picture_stays(
    page: Page, standin: StandIn, why: str, told: str
) -> None:
    page.goto("/")
    enter_key(page)
    page.goto(f"/watch/{ID}")
    page.get_by_role("button", name="Take control").click()
    expect(page.locator("#badge")).to_have_text("You have control")
    if why == "taken_over":
        standin.take("ada", "Ada L.")
    else:
        standin.end(why)
    expect(page.locator("#said")).to_contain_text(told)
    expect(page.locator("#badge")).to_have_text("View only")
    expect(page.locator(LIVE)).to_be_visible()
    before = standin.typed.read_text()
    page.locator("#screen canvas").click()
    page.keyboard.type("too late\n")
    page.wait_for_timeout(300)
    assert standin.typed.read_text() == before
    page.get_by_role("button", name="Close").click()
    expect(page.locator("#said")).to_be_hidden()


@pytest.mark.parametrize(("button", "outcome"), [("Done", "done"), ("Decline", "declined")])
def test_a_person_is_asked_for_comes_and_answers(
    page: Page, standin: StandIn, button: str, outcome: str
) -> None:
    page.goto("/")
    enter_key(page)
    standin.ask("Solve the <b>captcha</b>.")
    banner = page.get_by_role("region", name="A person is asked for")
    expect(banner).to_contain_text("Travel form: Solve the <b>captcha</b>.")
    banner.get_by_role("link", name="Travel form").click()
    expect(page.locator(LIVE)).to_be_visible()
    form = page.get_by_role("form", name="The agent asks for a person.")
    expect(form).to_contain_text("Solve the <b>captcha</b>.")
    page.get_by_role("button", name="Take control").click()
    expect(page.locator("#badge")).to_have_text("You have control")
    form.get_by_label("Note for the agent").fill("I tried.")
    form.get_by_role("button", name=button).click()
    expect(form).to_be_hidden()
    expect(page.locator("#badge")).to_have_text("View only")
    expect(page.locator("#said")).to_contain_text("the agent goes on")
    assert standin.answered == [{"ticket": "ticket01", "outcome": outcome, "note": "I tried."}]


def test_a_dropped_connection_comes_back_by_itself(page: Page, standin: StandIn) -> None:
    page.goto(f"/watch/{ID}#{TOKEN}")
    expect(page.locator(LIVE)).to_be_visible()
    standin.is_broken = True
    standin.break_connections()
    expect(page.get_by_role("button", name="Try now")).to_be_visible()
    standin.is_broken = False
    expect(page.locator(LIVE)).to_be_visible()
    expect(page.locator("#waiting")).to_be_hidden()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"state": "released"}, "It was released."),
        ({"state": "released", "expires_at": "2020-01-01T00:00:00Z"}, "Its time ran out."),
        (
            {"state": "failed", "error": {"code": "x", "message": "The X server died."}},
            "The X server died.",
        ),
        (None, f"There is no desktop {ID}."),
    ],
)
def test_the_end_says_why(
    page: Page, standin: StandIn, change: dict[str, object] | None, why: str
) -> None:
    page.goto(f"/watch/{ID}#{TOKEN}")
    expect(page.locator(LIVE)).to_be_visible()
    if change is None:
        del standin.workspaces[ID]
    else:
        standin.workspaces[ID] |= {"state": "releasing"}
    standin.break_connections()
    if change is not None:
        expect(page.get_by_text("This desktop is ending…")).to_be_visible()
        standin.workspaces[ID] |= change
    expect(page.locator("#end")).to_contain_text(why)
    expect(page.get_by_role("button", name="Take control")).to_be_hidden()


def test_without_a_key_or_a_valid_link_a_key_is_asked_for(page: Page) -> None:
    page.goto(f"/watch/{ID}")
    expect(page.get_by_text("Enter a key to watch this desktop.")).to_be_visible()
    page.goto(f"/watch/{ID}#an-old-token")
    dialog = page.get_by_role("dialog", name="Enter your key")
    expect(dialog).to_contain_text("This link has expired or was revoked")
    enter_key(page)
    expect(page.locator(LIVE)).to_be_visible()


def test_it_fits_a_phone(context: BrowserContext, page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    page.goto("/")
    enter_key(page)
    expect(page.locator(".card")).to_be_visible()
    for path in ("/", f"/watch/{ID}"):
        page.goto(path)
        expect(page.locator(f".card, {LIVE}").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        for button in page.get_by_role("button").all():
            box = button.bounding_box()
            assert box is None or (box["x"] >= 0 and box["x"] + box["width"] <= 360)
