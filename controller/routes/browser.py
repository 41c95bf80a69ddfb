"""The browser of a desktop: pages read as text with refs, and acted on by ref.

What is typed into pages, chosen in them, evaluated or stored is never in the log: of an action its
kind and ref, of text its length, of an address what comes before its query.
"""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import Response

from controller.answers import OF_DESKTOP
from controller.routes import Id, caller, desktop, dumped, parts, recorded
from controller.routes.screen import seen_as_told
from controller.streams import attachment, until_gone
from workspace import actions as a
from workspace import browsing as b
from workspace.errors import InvalidRequest

router = APIRouter(
    prefix="/v1/workspaces/{workspace_id}/browser", tags=["browser"], responses=OF_DESKTOP
)
_MAX_ADDRESS = 500
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
}
_EXAMPLES = {
    "log in": {
        "value": {
            "actions": [
                {"type": "fill", "ref": "r4", "text": "ada"},
                {"type": "fill", "ref": "r5", "text": "secret", "submit": True},
            ]
        }
    },
    "click": {"value": {"actions": [{"type": "click", "ref": "r12"}]}},
    "dialog": {"value": {"actions": [{"type": "dialog", "accept": False}]}},
}
_BYTES: dict[int | str, dict[str, Any]] = {  # Any: FastAPI's own type
    200: {"content": {"application/octet-stream": {}}, "description": "The bytes"}
}
Tab = Annotated[b.TabId | None, Query(description="none: the one that is shown")]


def _bare(url: str | None) -> str | None:
    """An address without what may be a secret in it."""
    if url is None:
        return None
    try:
        parts_ = urlsplit(url)
        host = parts_.hostname or ""
        port = f":{parts_.port}" if parts_.port else ""
    except ValueError:
        return "?"
    if parts_.scheme in ("data", "blob", "about") or not (host or parts_.scheme):
        return f"{parts_.scheme or 'http'}:{parts_.path[:20] if parts_.scheme == 'about' else ''}"
    return f"{parts_.scheme}://{host}{port}{parts_.path}"[:_MAX_ADDRESS]


def _told(action: b.BrowserAction) -> dict[str, Any]:  # Any: JSON values
    """An action as the log tells of it."""
    told: dict[str, Any] = {"type": action.type}
    if (ref := getattr(action, "ref", None)) is not None:
        told["ref"] = ref
    match action:
        case b.FillRef(text=text):
            told["length"] = len(text)
        case b.SelectRef(values=values):
            told["count"] = len(values)
        case b.UploadRef(paths=paths):
            told["paths"] = [path[:200] for path in paths[:10]]
        case b.AnswerDialog(accept=accept):
            told["accept"] = accept
        case b.PressRef(key=key):
            told |= {"length": 1} if _is_text(key) else {"key": key}
        case _:
            pass
    return told


def _is_text(key: str) -> bool:
    """Whether a key types a character."""
    *modifiers, last = key.split("+") if len(key) > 1 else [key]
    return len(last) <= 1 and {each.lower() for each in modifiers} <= {"shift"}


@router.post("/navigate")
async def navigate(request: Request, workspace_id: Id, body: b.Navigate) -> b.PageState:
    """Go to an address, starting the browser if there is none; or back, forward, reload."""
    target = await desktop(request, workspace_id)

    async def go() -> b.PageState:
        asked = {"url": _bare(body.url), "history": body.history, "tab": body.tab}
        given = {name: value for name, value in asked.items() if value is not None}
        async with recorded(request, workspace_id, "browser_navigate", **given) as event:
            page = await target.navigate(**body.model_dump())
            event |= {"tab": page.tab, "status": page.status, "at": _bare(page.url)}
            return page

    return await until_gone(request.receive, go())


@router.get("/read")
async def read(
    request: Request,
    workspace_id: Id,
    tab: Tab = None,
    format: b.ReadFormat = "tree",
    limit: b.Chars = b.DEFAULT_CHARS,
    after: b.Offset = 0,
    ref: Annotated[b.Ref | None, Query(description="only what is in this element")] = None,
    find: Annotated[b.Words | None, Query(description="only with this in name or value")] = None,
    role: Annotated[str | None, Query(min_length=1, max_length=40)] = None,
    all: Annotated[bool, Query(description="also what pages hide from assistive programs")] = False,
) -> b.PageText:
    """What a page says: elements with their refs, text, or Markdown of the main part."""
    if format != "tree" and (find or role or all):
        raise InvalidRequest("find, role and all are for the format tree.")
    target = await desktop(request, workspace_id)
    reading = target.read_page(
        tab=tab,
        format=format,
        limit=limit,
        after=after,
        ref=ref,
        find=find,
        role=role,
        everything=all,
    )
    return await until_gone(request.receive, reading)


@router.post("/act", response_model=b.Acted)
async def act(
    request: Request,
    workspace_id: Id,
    body: Annotated[b.BrowserActions, Body(openapi_examples=_EXAMPLES)],
    settle_ms: Annotated[
        int, Query(ge=0, le=10_000, description="wait for the screen to come to rest, at most")
    ] = 0,
    observe: Annotated[
        a.Observe, Query(description="frame: bring a picture and the effect that was seen")
    ] = "none",
) -> Response:
    """Play actions on a page in order, by refs; never retried."""
    own = parts(request)
    handed = await own.lifecycle.handed(workspace_id, actor=caller(request).name)

    async def play() -> bytes:
        told = [_told(each) for each in body.actions]
        async with recorded(request, workspace_id, "browser_act", actions=told) as event:
            keep = handed.keep_frames
            kept = own.frames.around(handed.desktop, workspace_id, keep, event)
            async with kept if keep != "none" else nullcontext():
                acted = await handed.desktop.act_on_page(
                    *body.actions,
                    tab=body.tab,
                    seconds=body.seconds,
                    settle_ms=settle_ms,
                    observe=observe,
                )
            event["seen"] = seen_as_told(acted.observation)
            # Of the page: which it is then, and that it is that, without its words.
            page = f"{acted.page.url} {acted.page.title}"
            event["page"] = {
                "tab": acted.page.tab,
                "at": _bare(acted.page.url),
                "digest": hashlib.sha256(page.encode()).hexdigest()[:16],
            }
        return dumped(acted)

    return Response(await until_gone(request.receive, play()), media_type="application/json")


@router.get("/tabs")
async def tabs(request: Request, workspace_id: Id) -> b.TabList:
    """The pages that are open, and which of them is shown."""
    target = await desktop(request, workspace_id)
    return await until_gone(request.receive, target.tabs())


@router.post("/tabs")
async def change_tab(request: Request, workspace_id: Id, body: b.TabChange) -> b.TabList:
    """Open a tab, show one, or close one."""
    target = await desktop(request, workspace_id)

    async def change() -> b.TabList:
        told = {"do": body.do, "tab": body.tab, "url": _bare(body.url)}
        given = {name: value for name, value in told.items() if value is not None}
        async with recorded(request, workspace_id, "browser_tab", **given):
            if body.do == "new":
                return await target.new_tab(body.url)
            if body.do == "switch":
                return await target.switch_tab(str(body.tab))
            return await target.close_tab(str(body.tab))

    return await until_gone(request.receive, change())


@router.post("/evaluate")
async def evaluate(request: Request, workspace_id: Id, body: b.Evaluate) -> b.Evaluated:
    """Run JavaScript in a page, if the template permits it; what it brings as JSON."""
    target = await desktop(request, workspace_id)

    async def run() -> b.Evaluated:
        told = {
            "length": len(body.expression),
            "sha256": hashlib.sha256(body.expression.encode()).hexdigest()[:16],
        }
        async with recorded(request, workspace_id, "browser_evaluate", **told):
            return b.Evaluated(value=await target.evaluate(**body.model_dump()))

    return await until_gone(request.receive, run())


@router.post("/wait")
async def wait(request: Request, workspace_id: Id, body: b.WaitPage) -> b.PageState:
    """Wait until a page has loaded, is somewhere, shows a text or an element, or no more."""
    target = await desktop(request, workspace_id)
    return await until_gone(request.receive, target.wait_for_page(**body.model_dump()))


@router.get("/log")
async def log(
    request: Request,
    workspace_id: Id,
    tab: Tab = None,
    kind: b.LogKind = "console",
    contains: b.Words | None = None,
    level: Annotated[str | None, Query(min_length=1, max_length=40)] = None,
    failed: Annotated[bool, Query(description="only errors, and requests that failed")] = False,
    after: b.Offset = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> b.LogList:
    """What a page wrote to its console, or what it asked for and what came of it."""
    target = await desktop(request, workspace_id)
    telling = target.page_log(
        kind, contains=contains, level=level, failed=failed, after=after, limit=limit, tab=tab
    )
    return await until_gone(request.receive, telling)


@router.get("/picture", responses=_BYTES)
async def picture(
    request: Request,
    workspace_id: Id,
    tab: Tab = None,
    ref: b.Ref | None = None,
    full_page: bool = False,
    format: Literal["jpeg", "png"] = "jpeg",
    quality: Annotated[int, Query(ge=1, le=100)] = 80,
) -> Response:
    """A picture of a page, of all of it, or of one element."""
    if ref is not None and full_page:
        raise InvalidRequest("Give a ref, or full_page, not both.")
    target = await desktop(request, workspace_id)
    taking = target.page_picture(
        ref=ref, full_page=full_page, format=format, quality=quality, tab=tab
    )
    data = await until_gone(request.receive, taking)
    return Response(data, media_type=f"image/{format}", headers=_HEADERS)


@router.get("/pdf", responses=_BYTES)
async def pdf(request: Request, workspace_id: Id, tab: Tab = None) -> Response:
    """A page as it is printed."""
    target = await desktop(request, workspace_id)
    data = await until_gone(request.receive, target.page_pdf(tab=tab))
    headers = {**_HEADERS, "Content-Disposition": attachment("page.pdf")}
    return Response(data, media_type="application/pdf", headers=headers)


@router.get("/downloads")
async def downloads(request: Request, workspace_id: Id) -> list[b.Download]:
    """The files that pages had the browser save; each is fetched at its path, as any file."""
    return await (await desktop(request, workspace_id)).downloads()


@router.post("/downloads/{download}/cancel")
async def cancel_download(request: Request, workspace_id: Id, download: str) -> b.Download:
    """Cancel a download that goes on."""
    target = await desktop(request, workspace_id)
    async with recorded(request, workspace_id, "browser_download_cancel", download=download[:20]):
        return await target.cancel_download(download)


@router.post("/state")
async def save_state(request: Request, workspace_id: Id) -> b.BrowserState:
    """Cookies and local storage, as Playwright's `storage_state`. They are secrets."""
    target = await desktop(request, workspace_id)

    async def save() -> b.BrowserState:
        async with recorded(request, workspace_id, "browser_state_saved") as event:
            state = await target.browser_state()
            event |= {"cookies": len(state.cookies), "origins": len(state.origins)}
            return state

    return await until_gone(request.receive, save())


@router.put("/state", status_code=204)
async def load_state(request: Request, workspace_id: Id, body: b.BrowserState) -> None:
    """Put cookies and local storage in place of those that are there."""
    target = await desktop(request, workspace_id)
    told = {"cookies": len(body.cookies), "origins": len(body.origins)}

    async def load() -> None:
        async with recorded(request, workspace_id, "browser_state_loaded", **told):
            await target.set_browser_state(body)

    await until_gone(request.receive, load())


@router.post("/trace")
async def trace(request: Request, workspace_id: Id, body: b.TraceChange) -> b.Trace:
    """Begin to trace what happens in pages, or stop: the file is for Playwright's trace viewer."""
    target = await desktop(request, workspace_id)

    async def change() -> b.Trace:
        async with recorded(request, workspace_id, "browser_trace", do=body.do):
            return await target.trace_pages(body.do)

    return await until_gone(request.receive, change())
