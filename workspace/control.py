"""Who may move the mouse: the words of control, for the daemon, the controller and its clients.

Mouse and keyboard belong to the agent or to exactly one person. A *taking* is the time that one
person has them; what the person did comes back in the actions' own words (:data:`Deed`). While an
agent is *parked* it has asked for a person, and its input waits whether one has come or not.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from workspace import actions as a

MAX_DEEDS = 200
HOLD_SECONDS = 300.0
MAX_HOLD_SECONDS = 3600.0
MAX_PARK_SECONDS = 24 * 3600.0

Person = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
Reason = Annotated[str, Field(max_length=1000, pattern=r"^[^\x00]*$")]
Ticket = Annotated[str, Field(pattern=r"^[a-z0-9]{8,32}$")]
HoldSeconds = Annotated[
    float,
    Field(ge=5, le=MAX_HOLD_SECONDS, description="without input, until the agent has it again"),
]
# Why a taking ended.
Why = Literal["handed_back", "timed_out", "disconnected", "taken_over"]


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Output(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class TypeWithheld(_Input):
    """Text was typed that is not told: a password, or what nobody could say is none."""

    type: Literal["type_withheld"] = "type_withheld"
    length: Annotated[int, Field(ge=0)]


# What a person did, as an agent would have done it.
Deed = Annotated[
    a.Click | a.Drag | a.Scroll | a.Type | a.Key | TypeWithheld, Field(discriminator="type")
]
DEEDS: TypeAdapter[list[Deed]] = TypeAdapter(list[Deed])


class ControlRequest(_Input):
    """The body of ``POST /v1/workspaces/{id}/control``: take mouse and keyboard."""

    seconds: HoldSeconds = HOLD_SECONDS
    reason: Reason = ""
    display_name: Annotated[Person | None, Field(description="what others see them called")] = None
    force: Annotated[
        bool,
        Field(description="also from another person: for who claimed the desktop, and operators"),
    ] = False


class Take(ControlRequest):
    """The same for desktopd, which is told who it is."""

    holder: Person


class Park(_Input):
    """The body of desktopd's ``POST /control/parked``: the agent waits for a person."""

    ticket: Ticket
    reason: Reason = ""
    seconds: Annotated[float, Field(ge=1, le=MAX_PARK_SECONDS)]


class Parked(_Output):
    """The agent has asked for a person; its input waits until that is answered, or ``until``."""

    ticket: str
    reason: str = ""
    since: datetime
    until: datetime


class Returned(_Output):
    """A taking that is over: who had control, why it ended, and what they did meanwhile.

    ``did`` holds the first deeds only; ``more`` is how many followed.
    """

    taking: str
    holder: str
    display_name: str = ""
    since: datetime
    ended_at: datetime
    why: Why
    did: list[Deed] = []
    more: int = 0


# "open": nobody has come yet; "taken": somebody has control of the desktop.
RequestState = Literal["open", "taken", "done", "declined", "expired"]


class AskHuman(_Input):
    """The body of ``POST .../requests``: what a person is asked to do."""

    reason: Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]
    seconds: Annotated[
        float, Field(ge=5, le=MAX_PARK_SECONDS, description="until it is given up")
    ] = 1800


class AnswerHuman(_Input):
    """The body of ``POST .../requests/{ticket}``."""

    outcome: Literal["done", "declined"]
    note: Annotated[str, Field(max_length=2000, pattern=r"^[^\x00]*$")] = ""


class HumanRequest(_Output):
    """An agent's request for a person, and what came of it. ``did`` is what they did meanwhile."""

    ticket: str
    workspace_id: str
    reason: str
    state: RequestState
    asked_by: str
    created_at: datetime
    expires_at: datetime
    taken_by: str | None = None
    answered_by: str | None = None
    answered_at: datetime | None = None
    note: str = ""
    did: list[Deed] = []
    more: int = 0

    @property
    def is_over(self) -> bool:
        return self.state not in ("open", "taken")


class HumanRequestList(_Output):
    """The requests that wait for a person, the oldest first."""

    requests: list[HumanRequest]


class Control(_Output):
    """Who has mouse and keyboard now. ``holder`` is None while the agent has them.

    ``until`` is when the agent has them again if nothing is moved or typed meanwhile. ``grant`` is
    what the person's own connection names; others are not told.
    """

    holder: str | None = None
    display_name: str = ""
    reason: str = ""
    since: datetime | None = None
    until: datetime | None = None
    taking: str | None = None
    grant: str | None = None
    did: list[Deed] = []
    more: int = 0
    parked: Parked | None = None
    returned: Annotated[Returned | None, Field(description="the last taking that is over")] = None

    @property
    def who(self) -> str:
        """What the person is called; nothing while the agent has control."""
        return self.display_name or self.holder or ""
