"""Login by a real OpenID provider, clicked through in a real Chromium."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from anyio.from_thread import start_blocking_portal
from playwright.sync_api import Browser, Page, expect
from pydantic import SecretStr

from controller import oidc
from controller.app import create_app
from controller.settings import Settings
from tests.browser import chromium
from tests.controller.conftest import KEY, LocalCluster
from tests.controller.test_oidc import Provider, own_provider, with_oidc
from tests.serving import listening


class Site(NamedTuple):
    """A controller that logs people in by a provider of its own."""

    url: str
    provider: Provider


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("login")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    settings = Settings(
        home=home / "home",
        run_dir=home / "run",
        api_key=SecretStr(KEY),
        port=port,
        database_url=f"sqlite+aiosqlite:///{home / 'carrel.db'}",
    )
    with own_provider(settings.url) as provider, start_blocking_portal() as portal:
        app = create_app(with_oidc(settings, provider), LocalCluster(home / "fake"))
        with (
            portal.wrap_async_context_manager(app.router.lifespan_context(app)),
            portal.wrap_async_context_manager(listening(app, port)),
        ):
            yield Site(settings.url, provider)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    context = browser.new_context(base_url=site.url)
    context.set_default_timeout(20_000)
    yield context.new_page()
    context.close()


def log_in(page: Page, name: str) -> None:
    page.goto("/")
    page.get_by_role("link", name="log in by your organisation").click()
    page.get_by_placeholder("Enter any login").fill(name)
    page.get_by_placeholder("and password").fill("any")
    page.get_by_role("button", name="Sign-in").click()
    page.get_by_role("button", name="Continue").click()


@pytest.mark.parametrize("role", ["viewer", "admin"])
def test_a_login_ends_at_the_dashboard_with_the_role_that_the_provider_says(
    page: Page, site: Site, role: str
) -> None:
    log_in(page, f"ann.{role}.billing")
    expect(page.get_by_role("heading", name="No desktops yet")).to_be_visible()
    assert page.url == f"{site.url}/"
    me = {"name": f"oidc:ann.{role}.billing", "role": role, "tenant": "billing"}
    assert page.evaluate("fetch('/v1/whoami').then((it) => it.json())") == me
    assert page.evaluate("document.cookie") == ""
    page.reload()
    expect(page.get_by_role("heading", name="No desktops yet")).to_be_visible()


def test_who_has_no_role_there_is_told_so_and_not_let_in(page: Page, site: Site) -> None:
    log_in(page, "eve")
    alert = page.get_by_role("alert").filter(has_text="gives you no role here")
    expect(alert).to_be_visible()
    assert page.url == f"{site.url}/"
    expect(page.get_by_label("Key", exact=True)).to_be_visible()


def test_who_says_no_at_the_provider_is_told_so(page: Page) -> None:
    page.goto("/")
    page.get_by_role("link", name="log in by your organisation").click()
    page.get_by_role("link", name="[ Cancel ]").click()
    expect(page.get_by_role("alert").filter(has_text="not completed")).to_be_visible()


def test_a_provider_that_is_gone_is_told_of_in_words(
    page: Page, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "FRESH_SECONDS", 0.0)  # what it said before is asked for again
    monkeypatch.setattr(oidc, "AGAIN_SECONDS", 0.0)
    site.provider.stop()
    page.goto("/v1/login/oidc")
    expect(page.get_by_role("alert").filter(has_text="does not answer")).to_be_visible()
    expect(page.get_by_label("Key", exact=True)).to_be_visible()
