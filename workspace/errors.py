"""The error tree: one for REST, MCP, the SDK and the command line.

    CarrelError
    ├── InvalidRequest 422        the request itself is wrong: mend it and send it again
    │   ├── MethodNotAllowed 405  that path has no such method
    │   ├── OffScreen             a coordinate outside the screen (never clamped)
    │   ├── UnknownKey            no key of that name; the hint offers the nearest
    │   ├── UntypableText         a control character that no keyboard types
    │   └── ScriptFailed          JavaScript that was evaluated threw
    ├── Unauthorized 401, Forbidden 403
    ├── NotFound 404              WorkspaceNotFound, TemplateNotFound, FileMissing,
    │                             ProcessNotFound, WindowNotFound, ElementNotFound,
    │                             ApplicationNotFound, VolumeNotFound, KeyNotFound,
    │                             LinkNotFound, ArtifactNotFound, ToolsNotFound,
    │                             ToolNotFound, TabNotFound,
    │                             StaleRef (the element is not on the page any more)
    ├── Conflict 409              NotReady, TemplateExists, IsADirectory, NotADirectory, FileExists,
    │                             PortTaken, VolumeInUse, HumanInControl (the agent's input waits),
    │                             ControlTaken (another person has mouse and keyboard),
    │                             NoBrowser, DialogOpen, NotActionable, PageFailed (of pages),
    │                             NoIde, IdeNotReady, IdeFailed, EditConflict, NotDebugging,
    │                             PortClosed (nothing in the desktop listens there)
    ├── TooMany 429               RateLimited, QuotaExceeded: `Retry-After` says when to come again
    ├── WorkspaceEnded 410        it was released, ran out or failed; the message says which
    ├── TooLarge 413
    ├── Unsupported 501
    ├── DesktopLost 502           the daemon inside went away: what was asked may have been done
    ├── BadGateway 502            a server in the desktop answers what is no HTTP
    ├── Unavailable 503           NoCapacity, BackendUnavailable (no bubblewrap, no user namespaces)
    │                             ToolsDown (a tool server beside the desktop does not answer)
    ├── StartFailed 500           the sandbox or its desktop did not come up
    │   └── SetupFailed 422       it did, and a set-up command of the request failed in it
    ├── TimedOut 504              CommandTimedOut
    ├── DiskFull 507
    ├── ArtifactDamaged 500       what is kept of it is not what was saved
    └── Internal 500              a defect of Carrel's own

On the wire an error is ``{"code", "message", "hint"}`` (and ``details`` where there are any) with
the class's HTTP status. :func:`from_body` and :func:`from_wire` turn that back into the class for
its code; a code they do not know becomes a plain :class:`CarrelError`, so nothing a sandbox says
picks a class freely.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar


class CarrelError(Exception):
    """What failed and why (``message``), what to do next (``hint``), and a stable ``code``."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    default_hint: ClassVar[str] = ""

    def __init__(
        self, message: str, *, hint: str | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint
        self.details: dict[str, Any] = dict(details or {})  # Any: JSON values

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def to_wire(self) -> dict[str, Any]:  # Any: JSON values
        """The body that every transport sends."""
        body: dict[str, Any] = {"code": self.code, "message": self.message, "hint": self.hint}
        if self.details:
            body["details"] = self.details
        return body


class InvalidRequest(CarrelError):
    code, status = "invalid_request", 422
    default_hint = "Correct the request and send it again."


class MethodNotAllowed(InvalidRequest):
    code, status = "method_not_allowed", 405


class OffScreen(InvalidRequest):
    code = "off_screen"
    default_hint = "Coordinates start at (0, 0), top left. Take a screenshot to see the screen."


class UnknownKey(InvalidRequest):
    code = "unknown_key"


class UntypableText(InvalidRequest):
    code = "untypable_text"
    default_hint = "Leave control characters out; send keys such as Escape as a key action."


class Unauthorized(CarrelError):
    code, status = "unauthorized", 401
    default_hint = "Send 'Authorization: Bearer <key>'; `carrel up` prints where the key is."


class Forbidden(CarrelError):
    code, status = "forbidden", 403


class NotFound(CarrelError):
    code, status = "not_found", 404


class WorkspaceNotFound(NotFound):
    code = "workspace_not_found"
    default_hint = "List the live ones, or create one."


class TemplateNotFound(NotFound):
    code = "template_not_found"


class FileMissing(NotFound):
    code = "file_not_found"
    default_hint = "Check the path; relative paths start in /home/user."


class ProcessNotFound(NotFound):
    code = "process_not_found"
    default_hint = "List the desktop's processes, or start one."


class WindowNotFound(NotFound):
    code = "window_not_found"
    default_hint = "List the windows again: it may have closed."


class ElementNotFound(NotFound):
    code = "element_not_found"
    default_hint = "Ask for the elements again (GET /ui or ui_tree): what is on the screen changed."


class StaleRef(NotFound):
    code = "stale_ref"
    default_hint = "Read the page again: refs are of what was there when it was read."


class TabNotFound(NotFound):
    code = "tab_not_found"
    default_hint = "List the tabs again: it may have been closed."


class ApplicationNotFound(NotFound):
    code = "application_not_found"
    default_hint = "List the desktop's applications, or start a command as a process."


class VolumeNotFound(NotFound):
    code = "volume_not_found"
    default_hint = "List the volumes; one is made by the first workspace that names it."


class KeyNotFound(NotFound):
    code = "key_not_found"
    default_hint = "List the keys; of a key that was revoked only the log tells."


class LinkNotFound(NotFound):
    code = "link_not_found"
    default_hint = "List the workspace's links, or make one."


class ArtifactNotFound(NotFound):
    code = "artifact_not_found"
    default_hint = "List the workspace's artifacts: it may have been removed, or become too old."


class ToolsNotFound(NotFound):
    code = "tools_not_found"
    default_hint = "List the tool servers: `carrel tools`, or GET /v1/tools."


class ToolNotFound(NotFound):
    code = "tool_not_found"
    default_hint = "Look at what its server offers: GET /v1/tools/{name}."


class Conflict(CarrelError):
    code, status = "conflict", 409
    default_hint = "Look at how things are now before you ask again."


class NotReady(Conflict):
    code = "not_ready"
    default_hint = "Wait until its state is 'ready'."


class TemplateExists(Conflict):
    code = "template_exists"


class IsADirectory(Conflict):
    code = "is_a_directory"
    default_hint = "Name a file, or list the directory."


class NotADirectory(Conflict):
    code = "not_a_directory"
    default_hint = "A part of the path is a file: name a folder, or another path."


class FileExists(Conflict):
    code = "file_exists"
    default_hint = "Choose another name, or ask to overwrite."


class PortTaken(Conflict):
    code = "port_taken"
    default_hint = "End that program, or name another port with --port (0: any free one)."


class VolumeInUse(Conflict):
    code = "volume_in_use"
    default_hint = "Release the workspace that has it, or use another volume."


class HumanInControl(Conflict):
    """``details``: ``who`` (None while a person is only asked for), ``since``, ``until``,
    ``reason``, and the ``ticket`` of an open request.
    """

    code = "human_in_control"
    default_hint = (
        "Nothing of this action was done. Looking still works; wait and try again, or ask for "
        "the outcome of your request for a person."
    )


class ControlTaken(Conflict):
    """``details``: ``who`` and ``since``."""

    code = "control_taken"
    default_hint = "Wait until it is handed back, or ask its holder."


class NoBrowser(Conflict):
    code = "no_browser"
    default_hint = "Navigate to an address: that opens the browser."


class DialogOpen(Conflict):
    """A dialog holds up the page."""

    code = "dialog_open"
    default_hint = "Answer it with the action dialog (accept, or not; text for a prompt)."


class NotActionable(Conflict):
    """The element is there, but cannot be used now: covered, disabled, moving or hidden."""

    code = "not_actionable"
    default_hint = "Look at a screenshot, or read the page again."


class PageFailed(Conflict):
    """The page could not be loaded, or has crashed."""

    code = "page_failed"
    default_hint = "Check the address, and whether this desktop may reach it."


class ScriptFailed(InvalidRequest):
    """JavaScript that was evaluated threw."""

    code = "script_failed"


class NoIde(Conflict):
    """The desktop's template has no IDE."""

    code = "no_ide"
    default_hint = 'Claim a desktop whose template has one, such as "code".'


class IdeNotReady(Conflict):
    """The IDE starts, indexes, or waits for a dialog to be answered."""

    code = "ide_not_ready"
    default_hint = "Ask again in a moment; a screenshot shows what it waits for."


class IdeFailed(Conflict):
    """The IDE ended or does not answer: it may have done what was asked."""

    code = "ide_failed"
    default_hint = "Ask for its state; it is started anew once if it ended."


class EditConflict(Conflict):
    """A file is not as the edit takes it to be, or a rename cannot be: nothing was changed."""

    code = "edit_conflict"
    default_hint = "Read the file again, then edit it as it stands now."


class NotDebugging(Conflict):
    """Nothing is debugged, or the program is not stopped."""

    code = "not_debugging"
    default_hint = "Start debugging, and let the program come to a breakpoint."


class PortClosed(Conflict):
    code = "port_closed"
    default_hint = "Start a server there, on 127.0.0.1 or on all addresses; list what listens."


class TooMany(CarrelError):
    """Of what a tenant or a key may have. ``details`` has ``retry_after_seconds``."""

    code, status = "too_many", 429


class RateLimited(TooMany):
    code = "rate_limited"
    default_hint = "Wait as long as Retry-After says, then ask again."


class QuotaExceeded(TooMany):
    code = "quota_exceeded"
    default_hint = "Release a desktop, or have whoever runs Carrel raise the tenant's quotas."


class WorkspaceEnded(CarrelError):
    code, status = "workspace_ended", 410
    default_hint = "Create a new one."


class TooLarge(CarrelError):
    code, status = "too_large", 413
    default_hint = "Ask for less, or in parts."


class Unsupported(CarrelError):
    code, status = "unsupported", 501
    default_hint = "This cannot be done here: do it another way."


class DesktopLost(CarrelError):
    code, status = "desktop_lost", 502
    default_hint = (
        "What was asked may or may not have been done and was not retried: "
        "look at the desktop before you repeat it."
    )


class BadGateway(CarrelError):
    code, status = "bad_gateway", 502
    default_hint = "Look at what the server in the desktop writes: its answer is not HTTP."


class Unavailable(CarrelError):
    code, status = "unavailable", 503
    default_hint = "Try again in a moment."


class ToolsDown(Unavailable):
    """A tool server does not answer, or answers what no tool server says."""

    code = "tools_down"
    default_hint = (
        "It is looked after again by itself. A call that it had begun may have been done: "
        "it is not repeated."
    )


class NoCapacity(Unavailable):
    code = "no_capacity"
    default_hint = "Release a desktop or wait for one to end."
    # There is room for a desktop of another kind: a smaller one, or one that may be elsewhere.
    has_room_for_others = False


class BackendUnavailable(Unavailable):
    code = "backend_unavailable"
    default_hint = "Run `carrel doctor` on the node: it says what is missing and how to mend it."


class StartFailed(CarrelError):
    code, status = "start_failed", 500
    default_hint = "Run `carrel doctor` on the node, then try again."


class SetupFailed(StartFailed):
    code, status = "setup_failed", 422
    default_hint = "Correct the set-up command and create the workspace again."


class TimedOut(CarrelError):
    code, status = "timed_out", 504
    default_hint = "Look at how things are now before you ask again."


class CommandTimedOut(TimedOut):
    code = "command_timed_out"
    default_hint = 'Run it with "background": true and poll it, or allow it more time.'


class DiskFull(CarrelError):
    code, status = "disk_full", 507
    default_hint = "Remove files in the desktop, or use a template with a larger disk."


class ArtifactDamaged(CarrelError):
    code, status = "artifact_damaged", 500
    default_hint = (
        "Nothing of it is handed out. Whoever runs the controller should look at where artifacts "
        "are kept (CARREL_ARTIFACTS): what was there was lost or changed by somebody else."
    )


class Internal(CarrelError):
    code, status = "internal", 500
    default_hint = "This is a defect of Carrel: the controller's log has the trace."


def _tree(root: type[CarrelError]) -> Iterator[type[CarrelError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


BY_CODE: Mapping[str, type[CarrelError]] = {cls.code: cls for cls in _tree(CarrelError)}


def from_wire(body: object, *, status: int) -> CarrelError:
    """The error that ``body`` (an error's JSON, not trusted) tells of.

    A body that is not one of ours becomes a plain CarrelError that names the HTTP status.
    """
    if not isinstance(body, Mapping) or not isinstance(body.get("message"), str):
        return CarrelError(f"The server answered HTTP {status} without saying why.")
    cls = BY_CODE.get(str(body.get("code")), CarrelError)
    hint, details = body.get("hint"), body.get("details")
    return cls(
        body["message"][:4000],
        hint=hint[:4000] if isinstance(hint, str) else None,
        details=details if isinstance(details, Mapping) else None,
    )


def from_body(body: bytes | bytearray | None, *, status: int) -> CarrelError:
    """The error that an answer's bytes tell of; any bytes will do."""
    try:
        parsed: object = json.loads(body or b"")
    except (ValueError, RecursionError):
        parsed = None
    return from_wire(parsed, status=status)
