"""Who may ask for what: the one table of every route and the least role that it needs.

Pure: :class:`controller.gate.Gate` asks it of each request before anything else sees it. What does
not stand here is refused, whatever route there may be, and a test holds the table to the routes.

A viewer sees what is in its tenant and changes nothing; a user makes and uses desktops there; an
operator looks after the whole, sees and releases the desktops of all tenants and enters none of
others; an admin may do everything. A link sees, or also controls, the screen of one desktop.

``WS`` is a WebSocket. ``WATCH`` is one that is asked for with exactly ``?role=view``: the same path
without that is another right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from workspace.access import ShareMode
from workspace.errors import CarrelError, Forbidden, WorkspaceNotFound
from workspace.models import DEFAULT_TENANT, Role

_SOCKETS = frozenset({"WS", "WATCH"})
RANK: dict[str, int] = {role: rank for rank, role in enumerate(get_args(Role))}

# Whoever asks; what they show, if anything, is looked at by the route.
_ANYBODY = """
GET      /healthz
GET      /readyz
GET HEAD /openapi.json
GET      /
GET      /fleet
GET      /watch/{workspace_id}
GET HEAD /static/{path:path}
ANY      /mcp
ANY      /.well-known/{path:path}
POST     /v1/leases/{sandbox}
POST     /v1/leases/{sandbox}/connections
GET POST /v1/login
GET WS   /cdp/{token}/{path:path}
GET      /v1/login/oidc
GET      /v1/login/oidc/callback
POST     /v1/logout
POST     /v1/workspaces/{workspace_id}/viewer
"""
_VIEWER = """
GET   /v1/whoami
GET   /v1/artifacts/{artifact_id}
GET   /v1/artifacts/{artifact_id}/info
GET WS /v1/events/stream
GET   /v1/events
GET   /v1/requests
GET   /v1/tools
GET   /v1/tools/{name}
GET   /v1/volumes
GET   /v1/volumes/{name}
GET   /v1/workspaces
GET   /v1/workspaces/{workspace_id}
GET   /v1/workspaces/{workspace_id}/applications
GET   /v1/workspaces/{workspace_id}/artifacts
GET   /v1/workspaces/{workspace_id}/clipboard
GET   /v1/workspaces/{workspace_id}/control
GET   /v1/workspaces/{workspace_id}/events
GET WS /v1/workspaces/{workspace_id}/events/stream
GET   /v1/workspaces/{workspace_id}/egress
GET   /v1/workspaces/{workspace_id}/files
GET   /v1/workspaces/{workspace_id}/files/list
GET   /v1/workspaces/{workspace_id}/files/stat
GET   /v1/workspaces/{workspace_id}/health
GET   /v1/workspaces/{workspace_id}/ide
GET   /v1/workspaces/{workspace_id}/ports
GET   /v1/workspaces/{workspace_id}/processes
GET   /v1/workspaces/{workspace_id}/processes/{job}
WS    /v1/workspaces/{workspace_id}/processes/{job}/stream
GET   /v1/workspaces/{workspace_id}/recording
GET   /v1/workspaces/{workspace_id}/recording/file
GET   /v1/workspaces/{workspace_id}/requests/{ticket}
GET   /v1/workspaces/{workspace_id}/screenshot
GET   /v1/workspaces/{workspace_id}/shares
GET   /v1/workspaces/{workspace_id}/stats
GET   /v1/workspaces/{workspace_id}/tools
GET   /v1/workspaces/{workspace_id}/ui
GET   /v1/workspaces/{workspace_id}/ui/find
GET   /v1/workspaces/{workspace_id}/ui/marks
GET   /v1/workspaces/{workspace_id}/viewer
WATCH /v1/workspaces/{workspace_id}/vnc
GET   /v1/workspaces/{workspace_id}/windows
GET   /v1/workspaces/{workspace_id}/windows/wait
"""
_USER = """
DELETE /v1/artifacts/{artifact_id}
GET    /v1/templates
POST   /v1/tools/{name}/calls
DELETE /v1/volumes/{name}
GET    /v1/volumes/{name}/export
POST   /v1/workspaces
DELETE /v1/workspaces/{workspace_id}
POST   /v1/workspaces/{workspace_id}/actions
POST   /v1/workspaces/{workspace_id}/applications
POST   /v1/workspaces/{workspace_id}/artifacts
PUT    /v1/workspaces/{workspace_id}/clipboard
POST   /v1/workspaces/{workspace_id}/browser/act
GET    /v1/workspaces/{workspace_id}/browser/downloads
POST   /v1/workspaces/{workspace_id}/browser/downloads/{download}/cancel
POST   /v1/workspaces/{workspace_id}/browser/evaluate
GET    /v1/workspaces/{workspace_id}/browser/log
POST   /v1/workspaces/{workspace_id}/browser/navigate
GET    /v1/workspaces/{workspace_id}/browser/pdf
GET    /v1/workspaces/{workspace_id}/browser/picture
GET    /v1/workspaces/{workspace_id}/browser/read
POST PUT /v1/workspaces/{workspace_id}/browser/state
GET POST /v1/workspaces/{workspace_id}/browser/tabs
POST   /v1/workspaces/{workspace_id}/browser/trace
POST   /v1/workspaces/{workspace_id}/browser/wait
POST   /v1/workspaces/{workspace_id}/cdp
POST DELETE /v1/workspaces/{workspace_id}/control
POST   /v1/workspaces/{workspace_id}/egress
PUT    /v1/workspaces/{workspace_id}/environment
POST   /v1/workspaces/{workspace_id}/extend
PUT DELETE /v1/workspaces/{workspace_id}/files
PUT    /v1/workspaces/{workspace_id}/files/directory
POST   /v1/workspaces/{workspace_id}/files/move
POST   /v1/workspaces/{workspace_id}/ide
POST   /v1/workspaces/{workspace_id}/pause
POST   /v1/workspaces/{workspace_id}/ports/{port}
GET HEAD POST PUT PATCH DELETE OPTIONS WS /v1/workspaces/{workspace_id}/ports/{port}/{path:path}
POST   /v1/workspaces/{workspace_id}/processes
DELETE /v1/workspaces/{workspace_id}/processes/{job}
POST   /v1/workspaces/{workspace_id}/processes/{job}/signal
POST   /v1/workspaces/{workspace_id}/processes/{job}/stdin
POST DELETE /v1/workspaces/{workspace_id}/recording
POST   /v1/workspaces/{workspace_id}/recording/stop
POST   /v1/workspaces/{workspace_id}/requests
POST   /v1/workspaces/{workspace_id}/requests/{ticket}
POST   /v1/workspaces/{workspace_id}/resume
POST   /v1/workspaces/{workspace_id}/screen
POST   /v1/workspaces/{workspace_id}/shares
DELETE /v1/workspaces/{workspace_id}/shares/{share}
WS     /v1/workspaces/{workspace_id}/terminal
POST   /v1/workspaces/{workspace_id}/tools/{name}
WS     /v1/workspaces/{workspace_id}/tools/{name}
POST   /v1/workspaces/{workspace_id}/tools/{name}/calls
WS     /v1/workspaces/{workspace_id}/vnc
POST   /v1/workspaces/{workspace_id}/wait
POST   /v1/workspaces/{workspace_id}/windows/{window}/close
POST   /v1/workspaces/{workspace_id}/windows/{window}/focus
POST   /v1/workspaces/{workspace_id}/windows/{window}/move
POST   /v1/workspaces/{workspace_id}/windows/{window}/resize
POST   /v1/workspaces/{workspace_id}/windows/{window}/state
"""
_OPERATOR = """
GET   /metrics
GET   /v1/nodes
PATCH /v1/nodes/{node_id}
GET   /v1/pools
GET PATCH /v1/pools/{template}
GET   /v1/status
POST  /v1/templates
POST   /v1/tools
DELETE /v1/tools/{name}
"""
_ADMIN = """
GET /v1/audit
GET /v1/audit/verify
GET POST /v1/keys
DELETE   /v1/keys/{key_id}
GET      /v1/tenants
GET PUT  /v1/tenants/{name}
"""
# What an operator may do with workspaces of other tenants; for all else there it takes an admin.
_ABROAD = """
GET    /v1/workspaces/{workspace_id}
DELETE /v1/workspaces/{workspace_id}
GET    /v1/workspaces/{workspace_id}/stats
"""
_LINK_VIEWS = """
GET   /v1/workspaces/{workspace_id}
GET   /v1/workspaces/{workspace_id}/screenshot
GET   /v1/workspaces/{workspace_id}/viewer
WATCH /v1/workspaces/{workspace_id}/vnc
"""
_LINK_CONTROLS = """
GET POST DELETE /v1/workspaces/{workspace_id}/control
WS    /v1/workspaces/{workspace_id}/vnc
"""


class Caller(NamedTuple):
    """Who asks. A link is of one workspace, and is nobody else's."""

    name: str
    role: Role | Literal["link"]
    tenant: str = DEFAULT_TENANT
    key_id: str = ""  # of a key that can be revoked
    workspace_id: str = ""  # of a link, as are the next two
    share_id: str = ""  # of one that can be revoked
    mode: ShareMode = "view"
    until: float | None = None  # when what proves it expires, in seconds since 1970

    @property
    def sees_all(self) -> bool:
        """Whether it sees the workspaces of all tenants."""
        return self.role in ("operator", "admin")


class Rule(NamedTuple):
    """What a route needs."""

    path: str
    least: Role | None  # None: anybody may ask
    abroad: Role = "admin"
    link: ShareMode | None = None  # what a link has to be for; None: no link will do


class Found(NamedTuple):
    """What stands in the table of a request."""

    rule: Rule | None
    parameters: dict[str, str]
    methods: Sequence[str]  # of no rule: those that its path has


@dataclass
class _Node:
    """A part of a path: what may follow it, and what it is the end of."""

    parts: dict[str, _Node] = field(default_factory=dict)
    parameter: tuple[str, _Node] | None = None
    rest: _Node | None = None  # where whatever follows ends
    rules: dict[str, Rule] = field(default_factory=dict)


def find(method: str, path: str, *, is_watch: bool = False) -> Found:
    """The rule of a request, with what its path names.

    ``is_watch``: of a WebSocket, that it is asked for with exactly ``role=view``.
    """
    names = ("WATCH", method) if is_watch else (method, "ANY")
    methods: list[str] = []
    for node, parameters in _walk(_ROOT, path.split("/")[1:], {}):
        for name in names:
            if (rule := node.rules.get(name)) is not None:
                return Found(rule, parameters, [])
        methods += [name for name in node.rules if name not in _SOCKETS]
    return Found(None, {}, methods)


def check(rule: Rule, caller: Caller, workspace_id: str | None) -> None:
    """Whether ``caller`` may, if the workspace is one of its tenant's.

    Raises:
        Forbidden.
    """
    if rule.least is None:
        return
    if caller.role == "link":
        if rule.link is None or workspace_id != caller.workspace_id:
            raise Forbidden(
                "A link may only watch its desktop.", hint="Use a key for everything else."
            )
        if rule.link == "control" and caller.mode != "control":
            raise Forbidden(
                "This link is for watching. Taking control needs a key, or a link for it."
            )
    elif RANK[caller.role] < RANK[rule.least]:
        raise Forbidden(
            f"This needs the role {rule.least}; this key is a {caller.role}'s.",
            hint="Use a key with that role. `GET /v1/whoami` tells what a key may do.",
        )


def check_tenant(rule: Rule, caller: Caller, workspace_id: str, tenant: str | None) -> None:
    """Whether ``caller`` may, of a workspace of ``tenant``; None: there is none of that id.

    Raises:
        WorkspaceNotFound: for all that it may know.
        Forbidden: it may know of it, and no more.
    """
    if tenant is None or (tenant != caller.tenant and not caller.sees_all):
        raise no_such_workspace(workspace_id)
    if tenant != caller.tenant and RANK[caller.role] < RANK[rule.abroad]:
        raise Forbidden(
            f"Workspace {workspace_id} is tenant {tenant!r}'s.",
            hint="An operator sees and releases it; to enter it takes a key of that tenant.",
        )


def may_share(caller: Caller, tenant: str) -> bool:
    """Whether it is given links to a workspace's screen, which it may hand on."""
    if caller.role == "link" or RANK[caller.role] < RANK["user"]:
        return False
    return caller.role == "admin" or tenant == caller.tenant


def mode(caller: Caller) -> ShareMode:
    """What it may do with the screen of a desktop that it may watch."""
    if caller.role == "link":
        return caller.mode
    return "view" if caller.role == "viewer" else "control"


def no_such_workspace(workspace_id: str) -> CarrelError:
    """Of one that never was, and of one that is somebody else's."""
    return WorkspaceNotFound(f"There is no workspace {workspace_id[:100]!r}.")


def rules() -> Iterator[tuple[str, Rule]]:
    """Every method with its rule."""
    nodes = [_ROOT]
    while nodes:
        node = nodes.pop()
        yield from node.rules.items()
        nodes += node.parts.values()
        nodes += [node.parameter[1]] if node.parameter else []
        nodes += [node.rest] if node.rest else []


def _walk(
    node: _Node, parts: Sequence[str], parameters: dict[str, str]
) -> Iterator[tuple[_Node, dict[str, str]]]:
    """The ends of the table's paths that these parts may be, the most exact first."""
    if not parts:
        yield node, parameters
        return
    first, rest = parts[0], parts[1:]
    if (exact := node.parts.get(first)) is not None:
        yield from _walk(exact, rest, parameters)
    if node.parameter is not None and first:
        name, following = node.parameter
        yield from _walk(following, rest, parameters | {name: first})
    if node.rest is not None:
        yield node.rest, parameters


def _pairs(table: str) -> Iterator[tuple[str, str]]:
    for line in table.split("\n"):
        *methods, path = line.split() or [""]
        for method in methods:
            yield method, path


def _tree() -> _Node:
    root = _Node()
    abroad = set(_pairs(_ABROAD))
    views, controls = set(_pairs(_LINK_VIEWS)), set(_pairs(_LINK_CONTROLS))
    tables: tuple[tuple[Role | None, str], ...] = (
        (None, _ANYBODY),
        ("viewer", _VIEWER),
        ("user", _USER),
        ("operator", _OPERATOR),
        ("admin", _ADMIN),
    )
    for least, table in tables:
        for pair in _pairs(table):
            method, path = pair
            link: ShareMode | None = (
                "view" if pair in views else "control" if pair in controls else None
            )
            rule = Rule(path, least, "operator" if pair in abroad else "admin", link)
            node = _place(root, path)
            assert method not in node.rules, f"{method} {path} stands there twice"
            node.rules[method] = rule
    return root


def _place(root: _Node, path: str) -> _Node:
    """The end of a path of the table, made where it is not there yet."""
    node = root
    for part in path.split("/")[1:]:
        if part == "{path:path}":
            node.rest = node.rest or _Node()
            node = node.rest
        elif part.startswith("{"):
            if node.parameter is None:
                node.parameter = (part[1:-1], _Node())
            assert node.parameter[0] == part[1:-1], f"{path}: two names for one part"
            node = node.parameter[1]
        else:
            node = node.parts.setdefault(part, _Node())
    return node


_ROOT = _tree()
