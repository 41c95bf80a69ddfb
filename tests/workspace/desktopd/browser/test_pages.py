"""The browser in a real sandboxed desktop: reading, acting, and pages that are hard on it."""

from __future__ import annotations

import asyncio
import io
import json
import re
import zipfile
from contextlib import suppress

import pytest
from PIL import Image

from tests.waiting import eventually
from tests.workspace.desktopd.browser.conftest import BASE
from workspace import browsing as b
from workspace import errors
from workspace.desktop import Desktop

pytestmark = pytest.mark.anyio


async def ref(desktop: Desktop, name: str, role: str | None = None) -> str:
    """The ref of the first element with that name."""
    found = await desktop.read_page(find=name, role=role)
    match = re.search(r"\[((?:f\d+)?r\d+)\]", found.text)
    assert match is not None, f"{name} is not there: {found.text}"
    return match[1]


async def title(desktop: Desktop) -> str:
    return str(await desktop.evaluate("document.title"))


# Before any is open.


async def test_nothing_but_navigating_starts_a_browser(desktop: Desktop) -> None:
    for asking in (
        desktop.read_page(),
        desktop.tabs(),
        desktop.click_ref("r1"),
        desktop.evaluate("1"),
        desktop.page_pdf(),
        desktop.browser_state(),
    ):
        with pytest.raises(errors.NoBrowser):
            await asking
    assert await desktop.downloads() == []
    assert "chrom" not in (await desktop.run("cat /proc/[0-9]*/comm")).stdout


async def test_a_browser_that_a_person_opened_is_attached_to(desktop: Desktop) -> None:
    await desktop.launch("chromium", [f"{BASE}/form"], wait_seconds=30)
    await eventually(lambda: _has_tab(desktop, "/form"))
    (tab,) = (await desktop.tabs()).tabs
    assert tab.is_shown
    assert "Name" in (await desktop.read_page()).text
    # As people's, and as the template has it.
    told = await desktop.evaluate(
        "[navigator.webdriver, Intl.DateTimeFormat().resolvedOptions().timeZone]"
    )
    assert told == [False, "Asia/Tokyo"]
    running = (await desktop.run("pgrep -fc 'chromium --remote-debug'")).stdout
    await desktop.navigate(f"{BASE}/")
    assert (await desktop.run("pgrep -fc 'chromium --remote-debug'")).stdout == running


async def _has_tab(desktop: Desktop, path: str) -> bool:
    try:
        return any(tab.url.endswith(path) for tab in (await desktop.tabs()).tabs)
    except errors.NoBrowser:
        return False


# Reading and acting.


async def test_a_page_is_read_and_acted_on(desktop: Desktop) -> None:
    page = await desktop.navigate(f"{BASE}/")
    assert (page.status, page.title) == (200, "Start")
    tree = await desktop.read_page()
    assert 'heading "Hello" (level 1)' in tree.text
    assert "Ignore" not in tree.text
    button = await ref(desktop, "Click me")
    acted = await desktop.act_on_page(b.ClickRef(ref=button))
    assert acted.observation.effect == "changed"
    assert acted.observation.screenshot is not None
    assert "Clicked" in (await desktop.read_page(ref=button)).text
    assert (await desktop.read_page(format="text")).text.startswith("Hello\n")
    assert "# Hello\n\nSome **text**." in (await desktop.read_page(format="markdown")).text
    with pytest.raises(errors.NotActionable, match="not enabled"):
        await desktop.act_on_page(b.ClickRef(ref=await ref(desktop, "Never")), seconds=0.5)


async def test_a_form_is_filled_in(desktop: Desktop) -> None:
    await desktop.navigate(f"{BASE}/form")
    await desktop.write_file("up.txt", b"up")
    actions: list[b.BrowserAction] = [
        b.FillRef(ref=await ref(desktop, "Name"), text="Ada"),
        b.FillRef(ref=await ref(desktop, "Secret"), text="hunter2"),
        b.SelectRef(ref=await ref(desktop, "Colour"), values=["green"]),
        b.ClickRef(ref=await ref(desktop, "Agree")),
        b.UploadRef(ref=await ref(desktop, "File"), paths=["up.txt"]),
    ]
    await desktop.act_on_page(*actions)
    assert await title(desktop) == "up.txt"
    read = (await desktop.read_page()).text
    assert 'textbox "Name" value="Ada"' in read
    assert 'combobox "Colour" value="green" options="red", "green"' in read
    assert 'file "File" value="up.txt"' in read
    assert 'checkbox "Agree" (checked' in read
    assert "(password, filled)" in read
    assert "hunter2" not in read
    await desktop.fill_ref(await ref(desktop, "Name"), "Eve", submit=True)
    assert await title(desktop) == "sent Eve"
    with pytest.raises(errors.FileMissing):
        await desktop.upload_ref(await ref(desktop, "File"), "nothing.txt")
    with pytest.raises(errors.NotActionable):
        await desktop.act_on_page(
            b.SelectRef(ref=await ref(desktop, "Colour"), values=["blue"]), seconds=0.3
        )


async def test_places_are_those_of_the_screen(desktop: Desktop) -> None:
    """By ref and by pixel it is the same button; the accessibility tree agrees."""
    for state in ("maximised", "normal"):
        (window,) = [w for w in await desktop.windows() if "chrom" in w.window_class.lower()]
        await desktop.set_window_state(window.id, state)
        if state == "normal":
            await desktop.resize_window(window.id, 900, 600)
            await desktop.move_window(window.id, 150, 120)
        await desktop.navigate(f"{BASE}/")
        line = (await desktop.read_page(find="Click me")).text.splitlines()[0]
        x, y = map(int, line.rpartition(" at ")[2].split(","))
        found = await desktop.find_elements(role="button", name="Click me")
        centre = found.elements[0].centre
        assert centre is not None
        assert abs(centre[0] - x) <= 2
        assert abs(centre[1] - y) <= 2
        await desktop.click(x, y)
        await desktop.wait_for_page(text="Clicked", seconds=5)
    await desktop.set_window_state(window.id, "maximised")


async def test_a_ref_of_before_says_that_it_is_stale(desktop: Desktop) -> None:
    await desktop.navigate(f"{BASE}/")
    vanishing = await ref(desktop, "Vanish")
    await desktop.click_ref(vanishing)
    await desktop.wait_for_page(ref_gone=vanishing)
    with pytest.raises(errors.StaleRef, match="not in the page") as caught:
        await desktop.act_on_page(
            b.ClickRef(ref=await ref(desktop, "Click me")), b.ClickRef(ref=vanishing)
        )
    assert "Read the page again" in caught.value.hint
    assert caught.value.details["completed"] == 1
    await desktop.navigate(f"{BASE}/form")
    for gone in ("r999999", "f7r1"):
        with pytest.raises(errors.StaleRef):
            await desktop.click_ref(gone)


async def test_frames_are_read_and_acted_in(desktop: Desktop) -> None:
    await desktop.navigate(f"{BASE}/frames")
    read = (await desktop.read_page()).text
    inner = re.search(r'  \[(f\d+r\d+)\] textbox "Name".* at \d+,\d+', read)
    assert inner is not None, read
    await desktop.fill_ref(inner[1], "inside")
    assert 'value="inside"' in (await desktop.read_page(find="inside")).text


async def test_a_page_cannot_pass_for_the_tree(desktop: Desktop) -> None:
    await desktop.navigate(f"{BASE}/liar")
    for line in (await desktop.read_page()).text.splitlines():
        assert re.match(r'\s*(\[r\d\] )?(text|button) "', line), line
        assert not re.match(r"\s*\[r9\d\]", line)


async def test_tabs(desktop: Desktop) -> None:
    await desktop.navigate(f"{BASE}/")
    (first,) = (await desktop.tabs()).tabs
    acted = await desktop.act_on_page(b.ClickRef(ref=await ref(desktop, "In a new tab")))
    assert any("was opened" in note for note in acted.page.notes)
    await eventually(lambda: _has_tab(desktop, "/form"))
    tabs = (await desktop.tabs()).tabs
    (second,) = [tab for tab in tabs if tab.id != first.id]
    assert second.is_shown  # the person sees it, and so it is meant without a tab
    assert (await desktop.read_page()).tab == second.id
    assert "Hello" in (await desktop.read_page(tab=first.id)).text
    shown = await desktop.switch_tab(first.id)
    assert [tab.id for tab in shown.tabs if tab.is_shown] == [first.id]
    assert len((await desktop.close_tab(second.id)).tabs) == 1
    with pytest.raises(errors.TabNotFound, match="There are: t"):
        await desktop.switch_tab(second.id)
    await desktop.navigate(history="reload")
    await desktop.navigate(f"{BASE}/form")
    assert (await desktop.navigate(history="back")).title == "Start"
    assert (await desktop.navigate(history="forward")).title == "Form"


async def test_addresses_that_cannot_be_opened(desktop: Desktop) -> None:
    with pytest.raises(errors.PageFailed, match="ERR_CONNECTION_REFUSED"):
        await desktop.navigate("http://localhost:8001/")
    with pytest.raises(errors.InvalidRequest):
        await desktop.navigate("javascript:alert(1)")
    with pytest.raises(errors.PageFailed):
        await desktop.navigate("http://")
    assert (await desktop.navigate(f"{BASE}/nowhere")).status == 404
    with pytest.raises(errors.TimedOut, match="not over after"):
        await desktop.navigate(f"{BASE}/slow", seconds=0.3)


# What it wrote, asked for and saved.


async def test_the_console_and_the_network(desktop: Desktop) -> None:
    await desktop.navigate(f"{BASE}/log", until="idle")
    console = (await desktop.page_log("console")).lines
    assert {"hello log", "bad thing"} <= {line.text for line in console}
    wrong = await desktop.page_log("console", failed=True)
    assert any("thrown" in line.text for line in wrong.lines)
    assert not any(line.text == "hello log" for line in wrong.lines)
    failed = (await desktop.page_log("network", failed=True)).lines
    assert {(line.status, "x=1" in line.text) for line in failed} >= {(404, True)}
    assert any("ERR_" in line.where for line in failed)
    (page,) = (await desktop.page_log("network", contains="/log")).lines[-1:]
    assert (page.level, page.status, page.type) == ("GET", 200, "document")
    assert (await desktop.page_log("console", after=console[-1].id)).lines == []


async def test_downloads_and_one_that_does_not_fit(desktop: Desktop) -> None:
    await desktop.navigate(f"{BASE}/files")
    await desktop.click_ref(await ref(desktop, "Small"))
    await eventually(lambda: _state_of(desktop, "small.bin", "completed"))
    small = next(each for each in await desktop.downloads() if each.name == "small.bin")
    assert small.path == "/home/user/Downloads/small.bin"
    assert await desktop.read_file(small.path) == b"small" * 100
    notes = (await desktop.click_ref(await ref(desktop, "Huge"))).page.notes
    await eventually(lambda: _state_of(desktop, "huge.bin", "cancelled"))
    huge = next(each for each in await desktop.downloads() if each.name == "huge.bin")
    assert "do not fit" in huge.why
    notes += (await desktop.tabs()).notes
    assert any("do not fit" in note for note in notes)
    assert "huge" not in (await desktop.run("ls Downloads")).stdout
    with pytest.raises(errors.FileMissing):
        await desktop.cancel_download("d99")


async def _state_of(desktop: Desktop, name: str, state: str) -> bool:
    return any(each.name == name and each.state == state for each in await desktop.downloads())


async def test_pictures_a_pdf_and_a_trace(desktop: Desktop) -> None:
    await desktop.navigate(f"{BASE}/form")
    await desktop.trace_pages("start")
    with pytest.raises(errors.Conflict):
        await desktop.trace_pages("start")
    with Image.open(io.BytesIO(await desktop.page_picture())) as whole:
        assert whole.width > 1000
    of_one = await desktop.page_picture(ref=await ref(desktop, "Send"), format="png")
    with Image.open(io.BytesIO(of_one)) as button:
        assert button.width < 200
    assert (await desktop.page_picture(full_page=True))[:3] == b"\xff\xd8\xff"
    assert (await desktop.page_pdf()).startswith(b"%PDF-")
    trace = await desktop.trace_pages("stop")
    assert trace.path is not None
    with zipfile.ZipFile(io.BytesIO(await desktop.read_file(trace.path))) as file:
        assert any(name.endswith("trace.trace") for name in file.namelist())


async def test_cookies_and_storage_are_saved_and_loaded(desktop: Desktop) -> None:
    await desktop.navigate(f"{BASE}/")
    await desktop.evaluate("document.cookie = 'who=ada; max-age=999'; localStorage.here = 'yes'")
    state = await desktop.browser_state()
    assert [(each.name, each.value) for each in state.cookies] == [("who", "ada")]
    assert "ada" not in repr(state)
    await desktop.set_browser_state(b.BrowserState())
    await desktop.navigate(f"{BASE}/")
    assert await desktop.evaluate("document.cookie + localStorage.length") == "0"
    await desktop.set_browser_state(state)
    await desktop.navigate(f"{BASE}/")
    assert await desktop.evaluate("document.cookie + localStorage.here") == "who=adayes"


async def test_javascript(desktop: Desktop) -> None:
    await desktop.navigate(f"{BASE}/")
    assert await desktop.evaluate("() => ({a: [1, 'b', null]})") == {"a": [1, "b", None]}
    button = await ref(desktop, "Click me")
    assert await desktop.evaluate("e => e.tagName", ref=button) == "BUTTON"
    with pytest.raises(errors.ScriptFailed, match="not defined"):
        await desktop.evaluate("nothing.there")
    assert await desktop.evaluate("[1n, undefined, document.body, NaN].map(String).length") == 4
    json.dumps(await desktop.evaluate("({u: undefined, n: NaN, d: new Date(0), b: 1n})"))
    with pytest.raises(errors.TooLarge):
        await desktop.evaluate("'x'.repeat(5 << 20)")


# Pages that are hard on it.


async def test_dialogs_wait_for_an_answer(desktop: Desktop) -> None:
    await desktop.navigate(f"{BASE}/dialogs")
    acted = await desktop.click_ref(await ref(desktop, "Ask"))
    assert acted.page.dialog is not None
    assert (acted.page.dialog.kind, acted.page.dialog.message) == ("confirm", "Sure?")
    read = await desktop.read_page()
    assert read.dialog is not None
    assert read.text == ""
    with pytest.raises(errors.DialogOpen, match="Sure"):
        await desktop.evaluate("1")
    await desktop.answer_dialog(False)
    assert await title(desktop) == "no"
    await desktop.click_ref(await ref(desktop, "Prompt"))
    await desktop.answer_dialog(text="Ada")
    assert await title(desktop) == "got Ada"
    with pytest.raises(errors.NotActionable, match="No dialog"):
        await desktop.answer_dialog()
    # A person answers it in the window.
    await desktop.click_ref(await ref(desktop, "Ask"))
    await desktop.key("Return")
    await eventually(lambda: _is_titled(desktop, "yes"))


async def _is_titled(desktop: Desktop, wanted: str) -> bool:
    try:
        return await title(desktop) == wanted
    except errors.DialogOpen:
        return False


async def test_a_loop_of_dialogs_ends(desktop: Desktop) -> None:
    await desktop.navigate(f"{BASE}/dialogs")
    await desktop.click_ref(await ref(desktop, "Loop"))
    again = await desktop.answer_dialog()
    assert again.page.dialog is not None
    await desktop.act_on_page(b.AnswerDialog(accept=False, all=True), observe="none", settle_ms=0)
    await eventually(lambda: _is_titled(desktop, "through"))


async def test_a_script_that_never_returns_is_stopped(desktop: Desktop) -> None:
    await desktop.navigate(f"{BASE}/endless")
    with pytest.raises(errors.TimedOut, match="stopped"):
        await desktop.evaluate("while (true) {}", seconds=0.5)
    assert await title(desktop) == "Endless"
    await desktop.click_ref(await ref(desktop, "Hang"))
    await asyncio.sleep(0.2)  # until it hangs
    with pytest.raises(errors.TimedOut, match="held up the page and was stopped"):
        await desktop.evaluate("1", seconds=0.5)
    assert await title(desktop) == "Endless"


async def test_a_storm_of_popups_is_bounded(desktop: Desktop) -> None:
    await desktop.navigate(f"{BASE}/popups")
    (first,) = (await desktop.tabs()).tabs
    await desktop.click_ref(await ref(desktop, "Storm"))
    await asyncio.sleep(0.5)
    tabs = await desktop.tabs()
    assert len(tabs.tabs) <= 30
    await desktop.new_tab(f"{BASE}/")
    await desktop.close_tab(first.id)
    for tab in (await desktop.tabs()).tabs[:-1]:
        await desktop.close_tab(tab.id)
    assert "Hello" in (await desktop.read_page()).text


async def test_a_crashed_page_is_told_of_and_comes_again(desktop: Desktop) -> None:
    await desktop.navigate(f"{BASE}/form")
    (tab,) = (await desktop.tabs()).tabs
    with suppress(errors.PageFailed):
        await desktop.navigate("chrome://crash", seconds=3)
    await eventually(lambda: _is_crashed(desktop, tab.id))
    with pytest.raises(errors.PageFailed, match="crashed"):
        await desktop.read_page(tab=tab.id)
    page = await desktop.navigate(f"{BASE}/", tab=tab.id)
    assert any("in its place" in note for note in page.notes)
    assert "Hello" in (await desktop.read_page()).text


async def _is_crashed(desktop: Desktop, tab: str) -> bool:
    return any(each.is_crashed for each in (await desktop.tabs()).tabs if each.id == tab)


async def test_who_has_control_acts_and_the_agent_reads(desktop: Desktop) -> None:
    await desktop.navigate(f"{BASE}/")
    button = await ref(desktop, "Click me")
    body = {"holder": "ada", "seconds": 30}
    await desktop._wire.call("POST", "/control", json=body)
    try:
        for acting in (
            desktop.click_ref(button),
            desktop.navigate(f"{BASE}/form"),
            desktop.new_tab(),
            desktop.evaluate("1"),
            desktop.set_browser_state(b.BrowserState()),
        ):
            with pytest.raises(errors.HumanInControl):
                await acting
        assert "Click me" in (await desktop.read_page()).text
        assert (await desktop.tabs()).tabs
    finally:
        await desktop._wire.call("DELETE", "/control", params={"holder": "ada"})
    await desktop.click_ref(button)


async def test_a_browser_that_dies_is_started_once_again(desktop: Desktop) -> None:
    await desktop.navigate(f"{BASE}/form")
    await desktop.run("pkill -KILL -o -x chromium")
    await eventually(lambda: _is_told(desktop, "started again"), 30)
    assert (await desktop.read_page()).url == f"{BASE}/form"
    await desktop.run("pkill -KILL -o -x chromium")
    await eventually(lambda: _says(desktop, "stays ended"), 30)
    assert (await desktop.navigate(f"{BASE}/")).title == "Start"


async def _is_told(desktop: Desktop, words: str) -> bool:
    try:
        return any(words in note for note in (await desktop.tabs()).notes)
    except errors.CarrelError:
        return False


async def _says(desktop: Desktop, words: str) -> bool:
    try:
        await desktop.tabs()
    except errors.NoBrowser as error:
        return words in error.message
    return False


async def test_a_very_large_page_is_read_in_bounds(desktop: Desktop) -> None:
    await desktop.navigate(f"{BASE}/large", seconds=40)
    read = await desktop.read_page()
    assert len(read.text) <= b.DEFAULT_CHARS
    assert read.next is not None
    more = await desktop.read_page(after=read.next, limit=500)
    assert f'"line {read.next}"' in more.text.splitlines()[0]
    assert len((await desktop.read_page(format="text")).text) <= b.DEFAULT_CHARS
    assert (await desktop.read_page(find="line 99999")).is_cut
