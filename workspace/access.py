"""The nouns of who may enter: keys, and links that share one desktop. Roles are in models.py."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from workspace.models import DEFAULT_TENANT, TEMPLATE_NAME, Role, Seconds

KEY_ID = r"^[a-z0-9]{8,20}$"
TenantName = Annotated[str, Field(pattern=TEMPLATE_NAME, examples=["billing"])]
ShareMode = Literal["view", "control"]


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Output(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class KeyRequest(_Input):
    """The body of ``POST /v1/keys``."""

    name: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$",
            examples=["ci"],
            description="who the log says did it, and whose volumes they are; one key has it",
        ),
    ]
    role: Role = "user"
    tenant: TenantName = DEFAULT_TENANT
    ttl_seconds: Annotated[
        float | None,
        Field(gt=0, le=10 * 365 * 86400, description="without it the key is good until revoked"),
    ] = None


class Key(_Output):
    """A key, without what proves it."""

    id: str
    name: str
    role: Role
    tenant: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None


class NewKey(Key):
    """A key as it was just made: ``key`` is told this once, and kept by nobody."""

    key: str


class KeyList(_Output):
    """One page of the keys that are not revoked, newest first; ``after`` is what to ask for next,
    None at the end.
    """

    keys: list[Key]
    after: str | None = None


class ShareRequest(_Input):
    """The body of ``POST .../shares``: a link for whoever has it."""

    mode: Annotated[
        ShareMode, Field(description="control: also mouse and keyboard, by the page it opens")
    ] = "view"
    ttl_seconds: Seconds = 3600


class Share(_Output):
    """A link to one desktop, without what proves it."""

    id: str
    workspace_id: str
    mode: ShareMode
    created_at: datetime
    created_by: str
    expires_at: datetime


class NewShare(Share):
    """A link as it was just made: ``url`` is told this once."""

    url: str


class Admission(_Output):
    """What whoever asks may do with a desktop's screen."""

    mode: ShareMode


_Days = Annotated[float | None, Field(ge=0, le=36500)]
_Count = Annotated[int | None, Field(ge=0, le=1_000_000)]


class Quotas(_Input):
    """How much a tenant may have; None is as much as there is. The body of ``PUT .../tenants/..``.

    What is "at once" counts every workspace that has not ended, paused and waiting ones too. How
    long what it leaves behind is kept stands in place of the controller's settings; None is those.
    """

    workspaces: Annotated[_Count, Field(description="at once")] = None
    cpus: Annotated[float | None, Field(ge=0, le=10_000_000, description="at once")] = None
    memory_mib: Annotated[int | None, Field(ge=0, le=1 << 40, description="at once")] = None
    desktop_hours: Annotated[
        float | None,
        Field(
            ge=0,
            le=100_000_000,
            description="in a calendar month (UTC): claims are refused once they are used",
        ),
    ] = None
    requests_per_minute: Annotated[
        int | None, Field(ge=1, le=10_000_000, description="of each key, at each controller")
    ] = None

    artifact_days: Annotated[
        _Days, Field(description="its artifacts are removed after that; 0: never")
    ] = None
    event_days: Annotated[
        _Days, Field(description="events of its desktops are removed after that; 0: never")
    ] = None

    @property
    def limits_claims(self) -> bool:
        """Whether any of it can refuse a claim."""
        of_claims = (self.workspaces, self.cpus, self.memory_mib, self.desktop_hours)
        return any(limit is not None for limit in of_claims)


class Used(_Output):
    """How much of its quotas a tenant has."""

    workspaces: int = 0
    cpus: float = 0.0
    memory_mib: int = 0
    desktop_hours: float = 0.0  # in this calendar month


class Tenant(_Output):
    """Whose workspaces and keys are, how much it may have, and how much it has."""

    name: str
    quotas: Quotas
    used: Used


class TenantList(_Output):
    """One page of tenants, by name; ``after`` is what to ask for next, None at the end."""

    tenants: list[Tenant]
    after: str | None = None
