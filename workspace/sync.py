"""The synchronous face of the SDK, for scripts and notebooks.

``with SyncCarrel() as carrel, carrel.claim("desktop") as desktop: desktop.click(10, 20)``. Every
method here *is* the asynchronous one of :mod:`workspace.client` and :mod:`workspace.desktop`, run
in an event loop on a thread of its own, so it works where a loop already runs (Jupyter) and there
is no second copy to keep. An interrupt (Ctrl-C) cancels the call it interrupts, with the clean-up
that a cancelled call does; leaving the ``with`` block releases what was claimed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager, suppress
from functools import update_wrapper
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal

from workspace.client import Carrel, ClaimedDesktop
from workspace.desktop import Desktop
from workspace.models import Event, Workspace

# Any, below: what passes between a coroutine and its event loop is asyncio's own.
P = ParamSpec("P")
R = TypeVar("R")


def _run(portal: BlockingPortal, call: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """The call's result; whatever interrupts the wait cancels the call."""
    future: Future[R] = portal.start_task_soon(call)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


@contextmanager
def _chunks(
    portal: BlockingPortal, source: AbstractAsyncContextManager[AsyncIterator[bytes]]
) -> Iterator[Iterator[bytes]]:
    with portal.wrap_async_context_manager(source) as chunks:

        async def following() -> bytes | None:
            return await anext(chunks, None)

        yield iter(lambda: _run(portal, following), None)


def _desktop(
    method: Callable[Concatenate[Desktop, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[SyncDesktop, P], R]:
    def call(self: SyncDesktop, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return _run(self._portal, lambda: method(self._desktop, *args, **kwargs))

    update_wrapper(call, method)  # its name, documentation and signature
    return call


def _carrel(
    method: Callable[Concatenate[Carrel, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[SyncCarrel, P], R]:
    def call(self: SyncCarrel, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return _run(self._portal, lambda: method(self._carrel, *args, **kwargs))

    update_wrapper(call, method)  # its name, documentation and signature
    return call


def _claiming(
    method: Callable[Concatenate[Carrel, P], Coroutine[Any, Any, ClaimedDesktop]],
) -> Callable[Concatenate[SyncCarrel, P], SyncClaimedDesktop]:
    def call(self: SyncCarrel, /, *args: P.args, **kwargs: P.kwargs) -> SyncClaimedDesktop:
        desktop = _run(self._portal, lambda: method(self._carrel, *args, **kwargs))
        return SyncClaimedDesktop(self._portal, desktop)

    update_wrapper(call, method)  # its name, documentation and signature
    return call


class SyncDesktop:
    """A :class:`~workspace.desktop.Desktop` whose methods block."""

    def __init__(self, portal: BlockingPortal, desktop: Desktop) -> None:
        self._portal = portal
        self._desktop = desktop

    health = _desktop(Desktop.health)
    act = _desktop(Desktop.act)
    screenshot = _desktop(Desktop.screenshot)
    screenshot_since = _desktop(Desktop.screenshot_since)
    changes_since = _desktop(Desktop.changes_since)
    set_screen = _desktop(Desktop.set_screen)
    zoom = _desktop(Desktop.zoom)
    cursor_position = _desktop(Desktop.cursor_position)
    move = _desktop(Desktop.move)
    click = _desktop(Desktop.click)
    double_click = _desktop(Desktop.double_click)
    right_click = _desktop(Desktop.right_click)
    mouse_down = _desktop(Desktop.mouse_down)
    mouse_up = _desktop(Desktop.mouse_up)
    drag = _desktop(Desktop.drag)
    scroll = _desktop(Desktop.scroll)
    type = _desktop(Desktop.type)
    key = _desktop(Desktop.key)
    key_down = _desktop(Desktop.key_down)
    key_up = _desktop(Desktop.key_up)
    hold_key = _desktop(Desktop.hold_key)
    wait = _desktop(Desktop.wait)
    focus_element = _desktop(Desktop.focus_element)
    set_value = _desktop(Desktop.set_value)
    invoke = _desktop(Desktop.invoke)
    elements = _desktop(Desktop.elements)
    find_elements = _desktop(Desktop.find_elements)
    marks = _desktop(Desktop.marks)
    navigate = _desktop(Desktop.navigate)
    read_page = _desktop(Desktop.read_page)
    act_on_page = _desktop(Desktop.act_on_page)
    click_ref = _desktop(Desktop.click_ref)
    fill_ref = _desktop(Desktop.fill_ref)
    select_ref = _desktop(Desktop.select_ref)
    upload_ref = _desktop(Desktop.upload_ref)
    answer_dialog = _desktop(Desktop.answer_dialog)
    tabs = _desktop(Desktop.tabs)
    new_tab = _desktop(Desktop.new_tab)
    switch_tab = _desktop(Desktop.switch_tab)
    close_tab = _desktop(Desktop.close_tab)
    evaluate = _desktop(Desktop.evaluate)
    wait_for_page = _desktop(Desktop.wait_for_page)
    page_log = _desktop(Desktop.page_log)
    page_picture = _desktop(Desktop.page_picture)
    page_pdf = _desktop(Desktop.page_pdf)
    downloads = _desktop(Desktop.downloads)
    cancel_download = _desktop(Desktop.cancel_download)
    browser_state = _desktop(Desktop.browser_state)
    set_browser_state = _desktop(Desktop.set_browser_state)
    trace_pages = _desktop(Desktop.trace_pages)
    ide_health = _desktop(Desktop.ide_health)
    ide = _desktop(Desktop.ide)
    wait_for_ide = _desktop(Desktop.wait_for_ide)
    ide_open = _desktop(Desktop.ide_open)
    ide_open_folder = _desktop(Desktop.ide_open_folder)
    ide_state = _desktop(Desktop.ide_state)
    ide_diagnostics = _desktop(Desktop.ide_diagnostics)
    ide_symbols = _desktop(Desktop.ide_symbols)
    ide_definition = _desktop(Desktop.ide_definition)
    ide_references = _desktop(Desktop.ide_references)
    ide_hover = _desktop(Desktop.ide_hover)
    ide_rename = _desktop(Desktop.ide_rename)
    ide_edit = _desktop(Desktop.ide_edit)
    ide_replace = _desktop(Desktop.ide_replace)
    ide_format = _desktop(Desktop.ide_format)
    ide_fixes = _desktop(Desktop.ide_fixes)
    ide_fix = _desktop(Desktop.ide_fix)
    ide_task = _desktop(Desktop.ide_task)
    ide_tests = _desktop(Desktop.ide_tests)
    ide_breakpoints = _desktop(Desktop.ide_breakpoints)
    ide_debug = _desktop(Desktop.ide_debug)
    ide_step = _desktop(Desktop.ide_step)
    ide_stack = _desktop(Desktop.ide_stack)
    ide_variables = _desktop(Desktop.ide_variables)
    ide_evaluate = _desktop(Desktop.ide_evaluate)
    ide_stop = _desktop(Desktop.ide_stop)
    ide_terminal = _desktop(Desktop.ide_terminal)
    ide_install = _desktop(Desktop.ide_install)
    ide_command = _desktop(Desktop.ide_command)
    run = _desktop(Desktop.run)
    start = _desktop(Desktop.start)
    jobs = _desktop(Desktop.jobs)
    poll = _desktop(Desktop.poll)
    send_stdin = _desktop(Desktop.send_stdin)
    signal = _desktop(Desktop.signal)
    forget = _desktop(Desktop.forget)
    set_environment = _desktop(Desktop.set_environment)
    read_file = _desktop(Desktop.read_file)
    write_file = _desktop(Desktop.write_file)
    list_files = _desktop(Desktop.list_files)
    stat = _desktop(Desktop.stat)
    make_directory = _desktop(Desktop.make_directory)
    move_file = _desktop(Desktop.move_file)
    remove = _desktop(Desktop.remove)
    clipboard = _desktop(Desktop.clipboard)
    clipboard_contents = _desktop(Desktop.clipboard_contents)
    set_clipboard = _desktop(Desktop.set_clipboard)
    windows = _desktop(Desktop.windows)
    ports = _desktop(Desktop.ports)
    open_port = _desktop(Desktop.open_port)
    open_cdp = _desktop(Desktop.open_cdp)
    focus_window = _desktop(Desktop.focus_window)
    close_window = _desktop(Desktop.close_window)
    wait_for_window = _desktop(Desktop.wait_for_window)
    move_window = _desktop(Desktop.move_window)
    resize_window = _desktop(Desktop.resize_window)
    set_window_state = _desktop(Desktop.set_window_state)
    wait_for = _desktop(Desktop.wait_for)
    wait_for_text = _desktop(Desktop.wait_for_text)
    wait_for_text_gone = _desktop(Desktop.wait_for_text_gone)
    wait_for_change = _desktop(Desktop.wait_for_change)
    wait_for_rest = _desktop(Desktop.wait_for_rest)
    wait_for_window_closed = _desktop(Desktop.wait_for_window_closed)
    wait_for_file = _desktop(Desktop.wait_for_file)
    wait_for_port = _desktop(Desktop.wait_for_port)
    wait_for_exit = _desktop(Desktop.wait_for_exit)
    applications = _desktop(Desktop.applications)
    launch = _desktop(Desktop.launch)
    start_recording = _desktop(Desktop.start_recording)
    recording = _desktop(Desktop.recording)
    stop_recording = _desktop(Desktop.stop_recording)
    save_recording = _desktop(Desktop.save_recording)
    remove_recording = _desktop(Desktop.remove_recording)
    control = _desktop(Desktop.control)
    take_control = _desktop(Desktop.take_control)
    hand_back = _desktop(Desktop.hand_back)
    request_human = _desktop(Desktop.request_human)
    human_request = _desktop(Desktop.human_request)
    answer_human = _desktop(Desktop.answer_human)

    @contextmanager
    def open_file(self, path: str) -> Iterator[Iterator[bytes]]:
        """A file's bytes as they come: ``with desktop.open_file(p) as chunks``."""
        with _chunks(self._portal, self._desktop.open_file(path)) as chunks:
            yield chunks

    @contextmanager
    def open_recording(self) -> Iterator[Iterator[bytes]]:
        """The recording's bytes as they come: ``with desktop.open_recording() as chunks``."""
        with _chunks(self._portal, self._desktop.open_recording()) as chunks:
            yield chunks


class SyncClaimedDesktop(SyncDesktop):
    """A :class:`~workspace.client.ClaimedDesktop`: leaving its ``with`` block releases it."""

    def __init__(self, portal: BlockingPortal, desktop: ClaimedDesktop) -> None:
        super().__init__(portal, desktop)
        self._claimed = desktop

    @property
    def workspace(self) -> Workspace:
        return self._claimed.workspace

    @property
    def id(self) -> str:
        return self._claimed.id

    @property
    def watch_url(self) -> str:
        """Where a person watches it in a browser."""
        return self._claimed.watch_url

    def extend(self, seconds: float) -> Workspace:
        """Let it live ``seconds`` from now."""
        return _run(self._portal, lambda: self._claimed.extend(seconds))

    def close(self) -> None:
        """Release it."""
        _run(self._portal, self._claimed.aclose)

    def __enter__(self) -> SyncClaimedDesktop:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _run(self._portal, lambda: self._claimed.__aexit__(kind, error, trace))


class SyncCarrel:
    """A :class:`~workspace.client.Carrel` whose methods block."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._carrel = Carrel(url, key, transport=transport)
        self._stack = ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal(name="carrel"))
        self._stack.callback(lambda: _run(self._portal, self._carrel.aclose))

    claim = _claiming(Carrel.claim)
    create = _carrel(Carrel.create)
    wait_ready = _carrel(Carrel.wait_ready)
    list = _carrel(Carrel.list)
    get = _carrel(Carrel.get)
    release = _carrel(Carrel.release)
    extend = _carrel(Carrel.extend)
    pause = _carrel(Carrel.pause)
    resume = _carrel(Carrel.resume)
    stats = _carrel(Carrel.stats)
    egress = _carrel(Carrel.egress)
    set_egress = _carrel(Carrel.set_egress)
    templates = _carrel(Carrel.templates)
    add_template = _carrel(Carrel.add_template)
    nodes = _carrel(Carrel.nodes)
    drain = _carrel(Carrel.drain)
    status = _carrel(Carrel.status)
    pools = _carrel(Carrel.pools)
    scale = _carrel(Carrel.scale)
    volumes = _carrel(Carrel.volumes)
    volume = _carrel(Carrel.volume)
    save_volume = _carrel(Carrel.save_volume)
    remove_volume = _carrel(Carrel.remove_volume)
    new_key = _carrel(Carrel.new_key)
    keys = _carrel(Carrel.keys)
    revoke_key = _carrel(Carrel.revoke_key)
    tenants = _carrel(Carrel.tenants)
    set_quotas = _carrel(Carrel.set_quotas)
    share = _carrel(Carrel.share)
    shares = _carrel(Carrel.shares)
    revoke_share = _carrel(Carrel.revoke_share)
    tools = _carrel(Carrel.tools)
    tool_server = _carrel(Carrel.tool_server)
    add_tools = _carrel(Carrel.add_tools)
    remove_tools = _carrel(Carrel.remove_tools)
    tools_of = _carrel(Carrel.tools_of)
    start_tools = _carrel(Carrel.start_tools)
    call_tool = _carrel(Carrel.call_tool)
    artifacts = _carrel(Carrel.artifacts)
    artifact = _carrel(Carrel.artifact)
    keep_file = _carrel(Carrel.keep_file)
    save_artifact = _carrel(Carrel.save_artifact)
    remove_artifact = _carrel(Carrel.remove_artifact)
    events = _carrel(Carrel.events)
    human_requests = _carrel(Carrel.human_requests)
    whoami = _carrel(Carrel.whoami)

    @contextmanager
    def open_volume(self, name: str) -> Iterator[Iterator[bytes]]:
        """A volume's tar as it comes: ``with carrel.open_volume(name) as chunks``."""
        with _chunks(self._portal, self._carrel.open_volume(name)) as chunks:
            yield chunks

    @contextmanager
    def open_artifact(self, artifact_id: str) -> Iterator[Iterator[bytes]]:
        """An artifact's bytes as they come: ``with carrel.open_artifact(id) as chunks``."""
        with _chunks(self._portal, self._carrel.open_artifact(artifact_id)) as chunks:
            yield chunks

    def follow(
        self, workspace_id: str | None = None, *, after: int | None = None
    ) -> Iterator[Event]:
        """The events of a workspace, or of all, as they come: each once, until you stop."""
        events = self._carrel.follow(workspace_id, after=after)

        async def next_one() -> Event | None:
            return await anext(events, None)

        try:
            while (event := _run(self._portal, next_one)) is not None:
                yield event
        finally:
            with suppress(RuntimeError):  # this client was closed before, and they with it
                _run(self._portal, events.aclose)

    @property
    def url(self) -> str:
        return self._carrel.url

    def desktop(self, workspace_id: str) -> SyncDesktop:
        """The desktop of a workspace; it closes with this client."""
        return SyncDesktop(self._portal, self._carrel.desktop(workspace_id))

    def close(self) -> None:
        """Close the connections and end the thread; calling it again does nothing."""
        self._stack.close()

    def __enter__(self) -> SyncCarrel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
