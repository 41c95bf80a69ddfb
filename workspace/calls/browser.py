"""The browser as an interface: pages read as text with refs, and acted on by ref."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue, TypeAdapter

from workspace import actions as a
from workspace import browsing as b
from workspace.calls.wire import Wire, parse, segment
from workspace.transport import asked

_DOWNLOADS = TypeAdapter(list[b.Download])
_JSON = {"Content-Type": "application/json"}
_START_SECONDS = 30.0  # for the browser and its driver to start
_Params = dict[str, str | int | float]


class BrowserCalls:
    """The pages of a desktop's browser; what they say was written by whoever made them.

    Without a ``tab`` it is the one that is shown. Each may raise
    :class:`~workspace.errors.NoBrowser` (nothing is open: navigate first),
    :class:`~workspace.errors.TabNotFound`, :class:`~workspace.errors.StaleRef` (read again),
    :class:`~workspace.errors.DialogOpen` (answer it first) and
    :class:`~workspace.errors.PageFailed`.
    """

    _wire: Wire

    async def navigate(
        self,
        url: str | None = None,
        *,
        history: Literal["back", "forward", "reload"] | None = None,
        tab: str | None = None,
        new_tab: bool = False,
        until: b.LoadState = "load",
        seconds: float = 20,
    ) -> b.PageState:
        """Go to an address, starting the browser if there is none; or in the history."""
        wanted = asked(
            b.Navigate,
            url=url,
            history=history,
            tab=tab,
            new_tab=new_tab,
            until=until,
            seconds=seconds,
        )
        body = await self._wire.call(
            "POST",
            "/browser/navigate",
            json=wanted.model_dump(exclude_none=True),
            seconds=seconds + _START_SECONDS,
        )
        return parse(b.PageState.model_validate_json, body)

    async def read_page(
        self,
        *,
        tab: str | None = None,
        format: b.ReadFormat = "tree",
        limit: int = b.DEFAULT_CHARS,
        after: int = 0,
        ref: str | None = None,
        find: str | None = None,
        role: str | None = None,
        everything: bool = False,
    ) -> b.PageText:
        """What a page says: its elements with their refs, its text, or Markdown of its main part.

        ``ref`` is the part to read, ``find`` words of name, text or value, ``role`` the whole
        role. Read on from ``next`` by ``after``.
        """
        given = {"tab": tab, "ref": ref, "find": find, "role": role}
        params: _Params = {key: value for key, value in given.items() if value is not None}
        params |= {"format": format, "limit": limit, "after": after}
        if everything:
            params["all"] = "true"
        body = await self._wire.call("GET", "/browser/read", params=params, seconds=_START_SECONDS)
        return parse(b.PageText.model_validate_json, body)

    async def act_on_page(
        self,
        *actions: b.BrowserAction,
        tab: str | None = None,
        seconds: float = 5,
        settle_ms: int = 1500,
        observe: a.Observe = "frame",
    ) -> b.Acted:
        """Play actions on a page, in order, stopping at the first that fails.

        Each waits up to ``seconds`` until its element can be used. The screen is then observed as
        by :meth:`act`.
        """
        wanted = asked(b.BrowserActions, actions=list(actions), tab=tab, seconds=seconds)
        body = await self._wire.call(
            "POST",
            "/browser/act",
            params={"settle_ms": settle_ms, "observe": observe},
            content=wanted.model_dump_json(exclude_none=True),
            headers=_JSON,
            seconds=_START_SECONDS + len(actions) * (3 * seconds + 1) + settle_ms / 1000,
        )
        return parse(b.Acted.model_validate_json, body)

    async def click_ref(self, ref: str, *, tab: str | None = None) -> b.Acted:
        """Click an element, without looking at the screen."""
        return await self._one(asked(b.ClickRef, ref=ref), tab)

    async def fill_ref(
        self, ref: str, text: str, *, submit: bool = False, tab: str | None = None
    ) -> b.Acted:
        """Set the text of an entry; ``submit`` presses Enter then."""
        return await self._one(asked(b.FillRef, ref=ref, text=text, submit=submit), tab)

    async def select_ref(self, ref: str, *values: str, tab: str | None = None) -> b.Acted:
        """Choose options of a list."""
        return await self._one(asked(b.SelectRef, ref=ref, values=list(values)), tab)

    async def upload_ref(self, ref: str, *paths: str, tab: str | None = None) -> b.Acted:
        """Give files of the desktop to a file entry."""
        return await self._one(asked(b.UploadRef, ref=ref, paths=list(paths)), tab)

    async def answer_dialog(
        self, accept: bool = True, *, text: str | None = None, tab: str | None = None
    ) -> b.Acted:
        """Answer the dialog that is open."""
        return await self._one(asked(b.AnswerDialog, accept=accept, text=text), tab)

    async def _one(self, action: b.BrowserAction, tab: str | None) -> b.Acted:
        return await self.act_on_page(action, tab=tab, settle_ms=0, observe="none")

    async def tabs(self) -> b.TabList:
        """The pages that are open."""
        body = await self._wire.call("GET", "/browser/tabs", seconds=_START_SECONDS)
        return parse(b.TabList.model_validate_json, body)

    async def new_tab(self, url: str | None = None) -> b.TabList:
        return await self._change_tab(asked(b.TabChange, do="new", url=url))

    async def switch_tab(self, tab: str) -> b.TabList:
        """Show a tab to whoever watches."""
        return await self._change_tab(asked(b.TabChange, do="switch", tab=tab))

    async def close_tab(self, tab: str) -> b.TabList:
        return await self._change_tab(asked(b.TabChange, do="close", tab=tab))

    async def _change_tab(self, wanted: b.TabChange) -> b.TabList:
        body = await self._wire.call(
            "POST",
            "/browser/tabs",
            json=wanted.model_dump(exclude_none=True),
            seconds=_START_SECONDS + 20,
        )
        return parse(b.TabList.model_validate_json, body)

    async def evaluate(
        self,
        expression: str,
        *,
        ref: str | None = None,
        tab: str | None = None,
        seconds: float = 5,
    ) -> JsonValue:
        """What JavaScript brings in a page, as JSON; a function is given the element of ``ref``.

        Raises:
            Forbidden: the template does not permit it. ScriptFailed: it threw.
            TimedOut: it did not return, and was stopped.
        """
        wanted = asked(b.Evaluate, expression=expression, ref=ref, tab=tab, seconds=seconds)
        body = await self._wire.call(
            "POST",
            "/browser/evaluate",
            json=wanted.model_dump(exclude_none=True),
            seconds=seconds + _START_SECONDS,
        )
        return parse(b.Evaluated.model_validate_json, body).value

    async def wait_for_page(
        self,
        *,
        load: b.LoadState | None = None,
        text: str | None = None,
        text_gone: str | None = None,
        ref: str | None = None,
        ref_gone: str | None = None,
        url: str | None = None,
        tab: str | None = None,
        seconds: float = 15,
    ) -> b.PageState:
        """Wait until all that is given is so of a page.

        Raises:
            TimedOut: it is not; the message says what.
        """
        wanted = asked(
            b.WaitPage,
            load=load,
            text=text,
            text_gone=text_gone,
            ref=ref,
            ref_gone=ref_gone,
            url=url,
            tab=tab,
            seconds=seconds,
        )
        body = await self._wire.call(
            "POST",
            "/browser/wait",
            json=wanted.model_dump(exclude_none=True),
            seconds=seconds + _START_SECONDS,
        )
        return parse(b.PageState.model_validate_json, body)

    async def page_log(
        self,
        kind: b.LogKind = "console",
        *,
        contains: str | None = None,
        level: str | None = None,
        failed: bool = False,
        after: int = 0,
        limit: int = 100,
        tab: str | None = None,
    ) -> b.LogList:
        """What a page wrote to its console, or what it asked for and what came of it.

        ``level`` is a console's (error, warning, ...) or a request's method; ``failed`` brings
        only errors, and requests that failed.
        """
        given = {"contains": contains, "level": level, "tab": tab}
        params: _Params = {key: value for key, value in given.items() if value is not None}
        params |= {"kind": kind, "failed": str(failed).lower(), "after": after, "limit": limit}
        body = await self._wire.call("GET", "/browser/log", params=params, seconds=_START_SECONDS)
        return parse(b.LogList.model_validate_json, body)

    async def page_picture(
        self,
        *,
        ref: str | None = None,
        full_page: bool = False,
        format: Literal["jpeg", "png"] = "jpeg",
        quality: int = 80,
        tab: str | None = None,
    ) -> bytes:
        """A picture of a page, of all of it, or of one element."""
        given = {"ref": ref, "tab": tab}
        params: _Params = {key: value for key, value in given.items() if value is not None}
        params |= {"full_page": str(full_page).lower(), "format": format, "quality": quality}
        return await self._wire.call(
            "GET", "/browser/picture", params=params, seconds=_START_SECONDS
        )

    async def page_pdf(self, *, tab: str | None = None) -> bytes:
        """A page as it is printed."""
        params = {} if tab is None else {"tab": tab}
        return await self._wire.call("GET", "/browser/pdf", params=params, seconds=_START_SECONDS)

    async def downloads(self) -> list[b.Download]:
        """The files that pages had the browser save; read one at its ``path``."""
        return parse(_DOWNLOADS.validate_json, await self._wire.call("GET", "/browser/downloads"))

    async def cancel_download(self, download: str) -> b.Download:
        path = f"/browser/downloads/{segment(download)}/cancel"
        return parse(b.Download.model_validate_json, await self._wire.call("POST", path))

    async def browser_state(self) -> b.BrowserState:
        """Cookies and local storage; keep them like a password."""
        body = await self._wire.call("POST", "/browser/state", seconds=_START_SECONDS)
        return parse(b.BrowserState.model_validate_json, body)

    async def set_browser_state(self, state: b.BrowserState) -> None:
        """Put cookies and local storage in place of those that are there."""
        await self._wire.call(
            "PUT",
            "/browser/state",
            content=state.model_dump_json(),
            headers=_JSON,
            seconds=_START_SECONDS + 15,
        )

    async def trace_pages(self, do: Literal["start", "stop"]) -> b.Trace:
        """Begin to trace what happens in pages, or stop, for Playwright's trace viewer."""
        body = await self._wire.call(
            "POST",
            "/browser/trace",
            json=asked(b.TraceChange, do=do).model_dump(),
            seconds=_START_SECONDS + 60,
        )
        return parse(b.Trace.model_validate_json, body)
