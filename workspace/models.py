"""The nouns: templates, workspaces, and what a desktop says of its processes, files and windows.

Inputs refuse unknown fields; outputs ignore them, so that an older client can read a newer
server.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

from workspace.browsing import BrowserSettings
from workspace.control import Control
from workspace.egress import Egress, EgressLimits, Secret, SecretUse, covers
from workspace.ide import IdeSettings

WORKSPACE_ID = r"^[a-z0-9]{8,20}$"
TEMPLATE_NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
TOOLS_NAME = r"^[a-z][a-z0-9-]{0,31}$"
DEFAULT_TENANT = "default"
MAX_TTL_SECONDS = 24 * 3600
CAPABILITY = r"^[a-z0-9][a-z0-9+.-]{0,39}$"
_NO_NUL = r"^[^\x00]*$"  # what no database keeps in a text

Environment = Annotated[
    dict[
        Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")],
        Annotated[str, Field(max_length=32_768, pattern=r"^[^\x00]*$")],
    ],
    Field(max_length=200),
]
Seconds = Annotated[float, Field(gt=0, le=MAX_TTL_SECONDS)]


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Output(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


_Width = Annotated[int, Field(ge=320, le=7680)]
_Height = Annotated[int, Field(ge=240, le=4320)]
_Dpi = Annotated[int, Field(ge=48, le=384, description="dots per inch: how large text is")]


class Screen(_Input):
    """The size of a desktop's screen, in pixels."""

    width: _Width = 1280
    height: _Height = 800
    dpi: _Dpi = 96


class ScreenChange(_Input):
    """The body of ``POST .../screen``; what is not named stays as it is."""

    width: _Width | None = None
    height: _Height | None = None
    dpi: _Dpi | None = None


SessionKind = Literal["xfce", "openbox"]
Theme = Literal["light", "dark"]
# Whether there is one of that name, only the machine that runs the desktop can tell.
Locale = Annotated[
    str,
    Field(
        pattern=r"^(C\.UTF-8|[a-z]{2,3}_[A-Z]{2}\.UTF-8(@[a-z]{1,20})?)$",
        examples=["de_DE.UTF-8"],
        description="language and formats, in UTF-8",
    ),
]
TimeZone = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_+-]{0,30}(/[A-Za-z0-9_+-]{1,30}){0,2}$",
        examples=["Europe/Berlin"],
        description="by its name in the tz database; that of the machine if none is named",
    ),
]
Keyboard = Annotated[
    str,
    Field(
        pattern=r"^[a-z][a-z0-9_-]{0,30}(\([A-Za-z0-9_-]{1,40}\))?$",
        examples=["de", "us(intl)"],
        description="an XKB layout, and its variant in brackets",
    ),
]


class Pool(_Input):
    """How many desktops of a template are kept warm: started and settled before they are asked for.

    All zero, the default, keeps none; a claim then starts its own.
    """

    warm: Annotated[int, Field(ge=0, le=10_000, description="kept warm while claims come")] = 0
    floor: Annotated[
        int, Field(ge=0, le=10_000, description="kept warm though no claims have come for long")
    ] = 0
    max: Annotated[
        int | None, Field(ge=1, le=100_000, description="desktops of this template in all, at most")
    ] = None
    surge: Annotated[int, Field(ge=1, le=1000, description="started at a time, at most")] = 2
    idle_seconds: Annotated[
        float | None,
        Field(ge=1, le=30 * 86400, description="without a claim, until only the floor is kept"),
    ] = None
    max_age_seconds: Annotated[
        float, Field(ge=10, le=30 * 86400, description="a warm desktop is replaced after that")
    ] = 4 * 3600


# What a desktop can do, in words that claims ask for: browser, office, ide, vscode, jetbrains, ...
Capabilities = Annotated[
    list[Annotated[str, Field(pattern=CAPABILITY, examples=["vscode"])]], Field(max_length=50)
]
IdleAction = Literal["release", "pause"]
# Pictures of before and after each batch of actions: of none, those that changed the screen, all.
KeepFrames = Literal["none", "changed", "all"]


class ToolProgram(_Input):
    """An MCP server over stdio inside of a desktop, started as its user when it is first asked."""

    command: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=4096, pattern=_NO_NUL)]],
        Field(min_length=1, max_length=64, examples=[["mcp-server-time"]]),
    ]
    environment: Environment = {}
    package: Annotated[
        str | None,
        Field(
            pattern=r"^(pip|npm):[A-Za-z0-9@][A-Za-z0-9@/._~+=<>!-]{0,199}$",
            examples=["pip:mcp-server-time==2025.9.25", "npm:@scope/server@1.2.3"],
            description="what `carrel tools cache` installs for it beforehand",
        ),
    ] = None


# Labels of nodes, and what is wanted of them, in the words of Ray's label selectors.
_LABEL_VALUE = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
LabelName = Annotated[
    str,
    Field(
        pattern=rf"^([a-z0-9]([a-z0-9.-]{{0,200}}[a-z0-9])?/)?{_LABEL_VALUE}$", examples=["zone"]
    ),
]
LabelValue = Annotated[str, Field(pattern=rf"^{_LABEL_VALUE}$")]
LabelWish = Annotated[
    str,
    Field(
        pattern=rf"^!?({_LABEL_VALUE}|in\({_LABEL_VALUE}(,{_LABEL_VALUE}){{0,19}}\))$",
        examples=["a100", "!a100", "in(a,b)", "!in(a,b)"],
    ),
]


class Template(_Input):
    """A named recipe for desktops."""

    name: Annotated[str, Field(pattern=TEMPLATE_NAME)]
    description: Annotated[str, Field(max_length=500)] = ""
    capabilities: Annotated[
        Capabilities, Field(description="what its desktops can do: claims may ask for that")
    ] = []
    backend: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,30}$")] = "bubblewrap"
    session: SessionKind = "xfce"
    screen: Screen = Screen()
    theme: Theme = "light"
    locale: Locale = "C.UTF-8"
    timezone: TimeZone | None = None
    keyboard: Keyboard = "us"
    cpus: Annotated[float, Field(ge=0.1, le=256)] = 2.0
    memory_mib: Annotated[int, Field(ge=256, le=1 << 20)] = 2048
    pids: Annotated[int, Field(ge=128, le=100_000, description="processes and threads")] = 1024
    disk_mib: Annotated[int, Field(ge=64, le=1 << 20, description="of the home folder")] = 4096
    node_labels: Annotated[
        dict[LabelName, LabelWish],
        Field(max_length=16, description="what the labels of its nodes have to be"),
    ] = {}
    environment: Environment = {}
    startup: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=4096)]],
        Field(max_length=20, description="programs started with the desktop, in bash"),
    ] = []
    tools: Annotated[
        dict[Annotated[str, Field(pattern=TOOLS_NAME)], ToolProgram],
        Field(max_length=16, description="MCP servers that are started in its desktops"),
    ] = {}
    pool: Pool = Pool()
    idle_seconds: Annotated[
        float | None,
        Field(ge=1, le=30 * 86400, description="neither used nor watched, until when_idle is done"),
    ] = None
    when_idle: IdleAction = "release"
    keep_frames: Annotated[
        KeepFrames, Field(description="keep pictures of before and after actions as artifacts")
    ] = "none"
    egress: Annotated[Egress, Field(description="what its desktops reach if nobody asks")] = "none"
    egress_max: Annotated[
        Egress | None, Field(description="what may be asked for at most; default: egress")
    ] = None
    egress_limits: EgressLimits = EgressLimits()

    @model_validator(mode="after")
    def _within_its_own(self) -> Template:
        if self.egress_max is not None and not covers(self.egress_max, self.egress):
            raise ValueError("egress_max permits less than egress does")
        return self

    @property
    def most_egress(self) -> Egress:
        """What a claim, and whoever uses a desktop, may ask for at most."""
        return self.egress if self.egress_max is None else self.egress_max

    browser: BrowserSettings = BrowserSettings()
    ide: Annotated[
        IdeSettings | None, Field(description="started with its desktops; none: they have none")
    ] = None


State = Literal["queued", "starting", "ready", "paused", "releasing", "released", "failed"]
LIVE_STATES: frozenset[State] = frozenset({"queued", "starting", "ready", "paused"})


class ErrorInfo(_Output):
    """An error as it stands in JSON."""

    code: str
    message: str
    hint: str = ""


VolumeName = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}$", examples=["my-project"])]


class WorkspaceRequest(_Input):
    """The body of ``POST /v1/workspaces``."""

    template: str = "desktop"
    capabilities: Annotated[
        Capabilities,
        Field(description="in place of a template: the smallest that has all of them is taken"),
    ] = []
    screen: Annotated[
        ScreenChange | None, Field(description="in place of the template's, as are the next four")
    ] = None
    theme: Theme | None = None
    locale: Locale | None = None
    timezone: TimeZone | None = None
    keyboard: Keyboard | None = None
    name: Annotated[str, Field(max_length=100, pattern=_NO_NUL)] = ""
    ttl_seconds: Seconds = 1800
    metadata: Annotated[
        dict[
            Annotated[str, Field(min_length=1, max_length=100, pattern=_NO_NUL)],
            Annotated[str, Field(max_length=1000, pattern=_NO_NUL)],
        ],
        Field(max_length=50),
    ] = {}
    environment: Environment = {}
    setup: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=32_768)]],
        Field(max_length=50, description="commands run in bash, in order, before it is ready"),
    ] = []
    volume: Annotated[
        VolumeName | None,
        Field(description="a home that stays when the workspace ends; made if there is none"),
    ] = None
    wait: Annotated[bool, Field(description="answer when it is ready, not at once")] = True
    key: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=100,
            pattern=_NO_NUL,
            description="the same key again answers with the same workspace, not another one",
        ),
    ] = None
    idle_seconds: Annotated[
        float | None,
        Field(ge=1, le=30 * 86400, description="in place of the template's, as is the next"),
    ] = None
    when_idle: IdleAction | None = None
    keep_frames: Annotated[KeepFrames | None, Field(description="in place of the template's")] = (
        None
    )
    egress: Annotated[
        Egress | None, Field(description="in place of the template's, and within what it permits")
    ] = None
    secrets: Annotated[
        list[Secret],
        Field(max_length=20, description="put into requests by the proxy; never in the desktop"),
    ] = []
    queue_seconds: Annotated[
        float, Field(ge=0, le=86400, description="waits that long for a place; 0: fails at once")
    ] = 60

    @model_validator(mode="after")
    def _one(self) -> WorkspaceRequest:
        if self.capabilities and "template" in self.model_fields_set:
            raise ValueError("give a template or capabilities, not both")
        return self


class QueuePlace(_Output):
    """Where a claim stands that waits for a place."""

    position: int  # from 1
    estimate_seconds: float | None = None  # until it has a place; None: nobody can tell


class Workspace(_Output):
    """One sandboxed desktop, as the controller tells of it."""

    id: str
    tenant: str = DEFAULT_TENANT  # whose it is: others never see it
    name: str = ""
    state: State
    template: str
    screen: Screen
    created_at: datetime
    ready_at: datetime | None = None
    ended_at: datetime | None = None
    expires_at: datetime
    metadata: dict[str, str] = {}
    node: str | None = None
    sandbox: str = ""  # what its sandbox is called on that node; a warm one has its own name
    volume: str | None = None  # its home, which stays
    cpus: float | None = None  # that its template gives it, as is the next
    memory_mib: int | None = None
    idle_seconds: float | None = None
    when_idle: IdleAction = "release"
    keep_frames: KeepFrames = "none"
    egress: Egress = "none"
    secrets: list[SecretUse] = []
    queue: QueuePlace | None = None
    watch_url: str = ""
    control: Control | None = None  # of the person who has mouse and keyboard
    error: ErrorInfo | None = None


class WorkspaceList(_Output):
    """One page of workspaces, newest first; ``after`` is what to ask for next, None at the end."""

    workspaces: list[Workspace]
    after: str | None = None


class Volume(_Output):
    """A home that outlives the workspaces it is mounted in, one at a time."""

    name: str
    owner: str
    node: str | None = None  # where it lies
    size_bytes: int | None = None  # on the disk, when its last workspace ended
    created_at: datetime
    last_used_at: datetime | None = None
    used_by: str | None = None  # the workspace that has it
    is_being_removed: bool = False


class VolumeList(_Output):
    """One page of volumes, by name; ``after`` is what to ask for next, None at the end."""

    volumes: list[Volume]
    after: str | None = None


class Event(_Output):
    """One line of the append-only log: who did what to which workspace, and how it went.

    What an agent typed is never in it, only how long it was; of what a person did in control only
    text that is known to be no secret. ``seq`` counts the lines of its workspace (or those of
    none), and ``hash`` is of it and of the one before it.
    """

    id: int
    at: datetime
    workspace_id: str | None = None
    actor: str
    kind: str
    data: dict[str, JsonValue] = {}
    seq: int = 0
    hash: str = ""


class EventList(_Output):
    """One page of the log, oldest first; ask again with ``after`` for what comes next."""

    events: list[Event]
    after: int


class AuditFinding(_Output):
    """Something in the log that is not as it was written.

    ``chain`` is a workspace's id, "" for lines of none, and None where that cannot be told.
    """

    chain: str | None
    seq: int | None
    what: str
    why: str


class AuditReport(_Output):
    """Whether the log is as it was written, and what was looked at."""

    ok: bool
    lines: int
    chains: int
    checkpoints: int
    newest_checkpoint: str | None = None  # its hash
    unsigned_lines: int = 0  # since that one
    findings: list[AuditFinding] = []


class Node(_Output):
    """A machine that runs desktops."""

    id: str
    name: str
    alive: bool = True
    desktops: int = 0
    slots: int = 0
    warm: int = 0  # of the desktops, those that wait for a claim
    draining: bool = False  # it gets no new ones
    suspect: str = ""  # why it gets none for a while: what went wrong there lately
    labels: dict[str, str] = {}
    since: datetime | None = None  # when it joined
    # The memory that desktops have between them, and how much of it is given; None: not limited.
    desktops_mib: int | None = None
    desktops_mib_taken: int | None = None
    # The same of processors, in thousandths.
    desktops_millicpu: int | None = None
    desktops_millicpu_taken: int | None = None
    # Of the machine, as far as it has told.
    cpus: int | None = None
    memory_mib: int | None = None
    memory_free_mib: int | None = None


# Each may do all that those before it may; what that is stands in controller/access.py.
Role = Literal["viewer", "user", "operator", "admin"]


class Identity(_Output):
    """Whose key this is, and what it may do."""

    name: str
    role: Role
    tenant: str = DEFAULT_TENANT


class Stats(_Output):
    """What a sandbox uses now; None where the machine cannot tell."""

    cpu_seconds: float | None = None
    memory_mib: float | None = None
    pids: int | None = None
    disk_mib: float | None = None


class Health(_Output):
    """What desktopd says of itself."""

    ready: bool
    screen: tuple[int, int]
    uptime_seconds: float
    restarts: int = 0  # how often the X server died, and all on the screen was started anew
    idle_seconds: float = 0.0  # neither used nor watched; 0 while it is
    pss_mib: float | None = None
    control: Control | None = None  # who has mouse and keyboard


class ProcessRequest(_Input):
    """The body of ``POST .../processes``. A text command runs in bash, a list as it stands."""

    command: (
        Annotated[str, Field(min_length=1, max_length=131_072)]
        | Annotated[list[str], Field(min_length=1, max_length=1000)]
    )
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 30
    background: bool = False
    cwd: Annotated[str, Field(max_length=4096)] = "/home/user"
    environment: Environment = {}
    stdin: Annotated[str, Field(max_length=1 << 20)] | None = None


class ProcessResult(_Output):
    """A command that ended. ``exit_code`` is minus the signal's number when one ended it."""

    exit_code: int
    stdout: str
    stderr: str
    truncated: bool = False


class Job(_Output):
    """A background command. ``*_next`` is the offset to read on from, in bytes.

    ``stdout`` and ``stderr`` hold what came since the offsets asked for; ``lost_bytes`` counts
    what had already been dropped (the daemon keeps the last 4 MiB of each).
    """

    id: str
    command: str
    state: Literal["running", "exited"]
    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""
    stdout_next: int = 0
    stderr_next: int = 0
    lost_bytes: int = 0


class Signal(_Input):
    """The body of ``POST .../processes/{job}/signal``."""

    signal: Literal["INT", "TERM", "KILL", "HUP", "QUIT", "STOP", "CONT", "USR1", "USR2"] = "TERM"


class FileInfo(_Output):
    """A file as it lies in the desktop; ``path`` is absolute."""

    path: str
    name: str
    kind: Literal["file", "directory", "link", "other"]
    size: int
    mode: str
    modified_at: datetime


class FileList(_Output):
    """One page of a directory, by name; ``after`` is what to ask for next, None at the end."""

    entries: list[FileInfo]
    after: str | None = None


class FileMove(_Input):
    """The body of ``POST .../files/move``."""

    source: Annotated[str, Field(min_length=1, max_length=4096)]
    destination: Annotated[str, Field(min_length=1, max_length=4096)]
    overwrite: bool = False


# "primary" is what is marked, for the middle mouse button; "clipboard" is what was copied.
Selection = Literal["clipboard", "primary"]
ClipboardPart = Literal["text", "html", "image"]
_ClipboardText = Annotated[str, Field(max_length=4 << 20)]


def _a_png(data: bytes) -> bytes:
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("give a PNG")
    return data


class Clipboard(_Input):
    """The body of ``PUT .../clipboard``: the same thing in up to three forms."""

    text: _ClipboardText | None = None
    html: _ClipboardText | None = None
    image: Annotated[
        Base64Bytes | None, AfterValidator(lambda data: data if data is None else _a_png(data))
    ] = None

    @model_validator(mode="after")
    def _any(self) -> Clipboard:
        if all(part is None for part in (self.text, self.html, self.image)):
            raise ValueError("give a text, html or an image")
        return self


class ClipboardContents(_Output):
    """What a selection holds; ``image`` is a PNG, in base64 in JSON.

    ``targets`` are the forms that the program which owns it has, by their X11 names.
    """

    text: str = ""
    html: str | None = None
    image: Base64Bytes | None = None
    targets: list[str] = []


WindowCondition = Literal["minimised", "maximised", "fullscreen"]
WindowKind = Literal["normal", "dialog", "panel", "desktop", "other"]
# What is waited for in one call, which is answered within a minute.
WaitSeconds = Annotated[float, Field(ge=0, le=50)]
_Coordinate = Annotated[int, Field(ge=-32768, le=32767)]
_Extent = Annotated[int, Field(ge=1, le=32767)]


class Window(_Output):
    """A top-level window; the box is in screen pixels, without the frame.

    ``layer`` is its place from the lowest window, 0, to the topmost.
    """

    id: int
    title: str
    window_class: str
    pid: int | None = None
    x: int
    y: int
    width: int
    height: int
    is_focused: bool = False
    state: list[WindowCondition] = []
    kind: WindowKind = "normal"
    layer: int = 0


class WindowMove(_Input):
    """The body of ``POST .../windows/{id}/move``: where its box's top left corner is to be."""

    x: _Coordinate
    y: _Coordinate


class WindowResize(_Input):
    """The body of ``POST .../windows/{id}/resize``: the size without the frame."""

    width: _Extent
    height: _Extent


class WindowChange(_Input):
    """The body of ``POST .../windows/{id}/state``."""

    state: Literal["normal", "minimised", "maximised", "fullscreen"]


class Launch(_Input):
    """The body of ``POST .../applications``.

    ``name`` is that of its desktop file, whole or its last part, or its title. The arguments stand
    where its command line takes files, else at its end.
    """

    name: Annotated[str, Field(min_length=1, max_length=255)]
    arguments: Annotated[
        list[Annotated[str, Field(max_length=32_768, pattern=r"^[^\x00]*$")]],
        Field(max_length=200),
    ] = []
    wait_seconds: WaitSeconds = 15


class Launched(_Output):
    """A started application; ``window`` is None if none of its own came in the time given."""

    job: Job
    window: Window | None = None


class Application(_Output):
    """An application that is installed in the desktop."""

    name: str
    title: str
    categories: list[str] = []


class ApplicationList(_Output):
    """One page of applications, by name; ``after`` is what to ask for next, None at the end."""

    applications: list[Application]
    after: str | None = None


class Extend(_Input):
    """The body of ``POST .../extend``: the new time left, from now."""

    ttl_seconds: Seconds


class RecordingRequest(_Input):
    """The body of ``POST .../recording``: an MP4 of the screen, within these limits."""

    fps: Annotated[int, Field(ge=1, le=30, description="at most, while the screen changes")] = 15
    max_seconds: Annotated[float, Field(gt=0, le=4 * 3600)] = 600
    max_mib: Annotated[int, Field(ge=1, le=4096)] = 256


class Recording(_Output):
    """A recording of the screen; ``frames`` were encoded, ``size`` is in bytes.

    Of a finished one the reason is ``stopped``, ``max_seconds``, ``max_size``, ``disk_full``,
    ``encoder_failed`` or ``desktop_lost``; what was recorded until then is there in any case.
    """

    state: Literal["recording", "finished"]
    reason: str = ""
    started_at: datetime
    seconds: float
    frames: int
    size: int
    width: int
    height: int
    fps: int
    artifact: str | None = None  # the id of what is kept of it, if it was asked for
