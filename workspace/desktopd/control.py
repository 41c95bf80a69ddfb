"""Control: whose mouse and keyboard it is now. Pure: clocks are given, nothing is awaited.

There is one holder or none, and a taking that is over never comes back: what a person's connection
may send hangs on its *grant*, which is good until the next taking, by whomever. So the same person
taking again, on another device, moves control there. Time runs out by itself: whatever is asked,
what has expired counts no more.

What an ended taking brought is kept until somebody collects it (of the last ones).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from workspace.control import Control as Told
from workspace.control import Park, Parked, Returned, Take, Why
from workspace.desktopd.deeds import Deeds
from workspace.errors import Conflict, ControlTaken, HumanInControl

GRACE_SECONDS = 5.0  # that a connection may be gone before control is
_KEPT = 16


@dataclass
class _Taking:
    wanted: Take
    id: str
    grant: str
    since: datetime
    used_at: float
    deeds: Deeds
    streams: int = 0
    left_at: float | None = None  # since when there is no connection, after there was one

    @property
    def who(self) -> str:
        return self.wanted.display_name or self.wanted.holder


@dataclass
class _Over:
    taking: _Taking
    why: Why
    at: datetime
    is_collected: bool = False

    def told(self) -> Returned:
        did, more = self.taking.deeds.told()
        return Returned(
            taking=self.taking.id,
            holder=self.taking.wanted.holder,
            display_name=self.taking.wanted.display_name or "",
            since=self.taking.since,
            ended_at=self.at,
            why=self.why,
            did=did,
            more=more,
        )


@dataclass
class _Parking:
    wanted: Park
    since: datetime
    ends_at: float

    def told(self) -> Parked:
        until = self.since + timedelta(seconds=self.wanted.seconds)
        return Parked(
            ticket=self.wanted.ticket, reason=self.wanted.reason, since=self.since, until=until
        )


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)


class Control:
    """``now`` tells seconds that nobody can set, ``clock`` the time of day."""

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        clock: Callable[[], datetime] = _utc_now,
        token: Callable[[], str] = lambda: secrets.token_hex(8),
        *,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._now = now
        self._clock = clock
        self._token = token
        self._grace = grace_seconds
        self._taking: _Taking | None = None
        self._parking: _Parking | None = None
        self._over: list[_Over] = []

    # The agent.

    def check(self) -> None:
        """Whether the agent may act.

        Raises:
            HumanInControl: it may not now.
        """
        if self._taking is None and self._parking is None:  # an agent's action costs no more
            return
        self.expire()
        if self._taking is not None or self._parking is not None:
            raise self.refusal()

    def refusal(self) -> HumanInControl:
        """Why the agent may not act."""
        taking, parking = self._taking, self._parking
        ticket = None if parking is None else parking.wanted.ticket
        if taking is not None:
            message = f"{taking.who} has had mouse and keyboard since {_at(taking.since)}."
            if taking.wanted.reason:
                message += f" Reason: {taking.wanted.reason}"
            since, until = taking.since, self._until(taking)
            who, reason = taking.who, taking.wanted.reason
        elif parking is not None:
            told = parking.told()
            message = f"You asked for a person at {_at(told.since)}, and nobody is done yet."
            who, since, until, reason = None, told.since, told.until, told.reason
        else:  # it ended a moment ago
            message = "A person had mouse and keyboard until this moment."
            who, since, until, reason = None, self._clock(), self._clock(), ""
        details = {
            "who": who,
            "since": since.isoformat(),
            "until": until.isoformat(),
            "reason": reason,
        }
        if ticket is not None:
            details["ticket"] = ticket
            message += f" The request's ticket is {ticket}."
        return HumanInControl(message, details=details)

    def park(self, wanted: Park) -> None:
        """Have the agent's input wait, until :meth:`unpark` or its time is over.

        Raises:
            Conflict: another request is open; ``details`` has its ``ticket``.
        """
        self.expire()
        parking = self._parking
        if parking is not None and parking.wanted.ticket != wanted.ticket:
            raise Conflict(
                "A person has been asked for already.",
                details={"ticket": parking.wanted.ticket},
            )
        self._parking = _Parking(wanted, self._clock(), self._now() + wanted.seconds)

    def unpark(self, ticket: str) -> None:
        """That request is answered; one that is not open any more is fine."""
        if self._parking is not None and self._parking.wanted.ticket == ticket:
            self._parking = None

    # People.

    def take(self, wanted: Take) -> None:
        """Give mouse and keyboard to a person. The same person's taking goes on, with a new grant.

        Raises:
            ControlTaken: another person has them.
        """
        self.expire()
        taking = self._taking
        if taking is not None and taking.wanted.holder != wanted.holder:
            if not wanted.force:
                raise self._taken(taking)
            self._end("taken_over")
            taking = None
        if taking is None:
            now, deeds = self._now(), Deeds(self._now)
            self._taking = _Taking(wanted, self._token(), self._token(), self._clock(), now, deeds)
            return
        taking.wanted, taking.grant = wanted, self._token()
        taking.used_at, taking.streams, taking.left_at = self._now(), 0, None

    def hand_back(self, holder: str, *, force: bool = False) -> Returned | None:
        """End a person's taking; None if the agent had control anyway.

        Raises:
            ControlTaken: it is another person's.
        """
        self.expire()
        if self._taking is None:
            return None
        if self._taking.wanted.holder != holder and not force:
            raise self._taken(self._taking)
        return self._end("handed_back").told()

    def admit(self, holder: str | None, grant: str | None) -> None:
        """Whether a connection may begin that wants to send input.

        Raises:
            ControlTaken: another person has control. Conflict: nobody has, or not by that grant.
        """
        self.expire()
        if self._taking is None:
            raise Conflict("You do not have control.", hint="Take it first: POST /control.")
        if self._taking.wanted.holder != holder:
            raise self._taken(self._taking)
        if self._taking.grant != grant:
            raise Conflict("You took control again elsewhere.", hint="Take it here: POST /control.")

    def _taken(self, taking: _Taking) -> ControlTaken:
        return ControlTaken(
            f"{taking.who} has had mouse and keyboard since {_at(taking.since)}.",
            details={"who": taking.who, "since": taking.since.isoformat()},
        )

    # A person's connections.

    def holds(self, grant: str) -> bool:
        """Whether input by that grant passes now."""
        if self._taking is None or self._taking.grant != grant:
            return False
        self.expire()
        return self._taking is not None

    def used(self) -> Deeds | None:
        """The holder moved or typed something now; where that is noted."""
        if self._taking is None:
            return None
        self._taking.used_at = self._now()
        return self._taking.deeds

    def opened(self, grant: str) -> None:
        """A connection with that grant began."""
        if self._taking is not None and self._taking.grant == grant:
            self._taking.streams += 1
            self._taking.left_at = None

    def closed(self, grant: str) -> None:
        """One ended: the grace begins with the last one's end."""
        taking = self._taking
        if taking is not None and taking.grant == grant:
            taking.streams = max(0, taking.streams - 1)
            if taking.streams == 0:
                taking.left_at = self._now()

    # Time.

    def expire(self) -> None:
        """End what is over by now."""
        now, taking, parking = self._now(), self._taking, self._parking
        if parking is not None and now >= parking.ends_at:
            self._parking = None
        if taking is None:
            return
        if taking.left_at is not None and now >= taking.left_at + self._grace:
            self._end("disconnected")
        elif now >= taking.used_at + taking.wanted.seconds:
            self._end("timed_out")

    def due_seconds(self) -> float | None:
        """How long until :meth:`expire` may have something to do; None while it has not."""
        ends: list[float] = []
        if self._parking is not None:
            ends.append(self._parking.ends_at)
        if self._taking is not None:
            ends.append(self._taking.used_at + self._taking.wanted.seconds)
            if self._taking.left_at is not None:
                ends.append(self._taking.left_at + self._grace)
        return max(0.0, min(ends) - self._now()) if ends else None

    def _until(self, taking: _Taking) -> datetime:
        left = taking.used_at + taking.wanted.seconds - self._now()
        return self._clock() + timedelta(seconds=max(0.0, left))

    def _end(self, why: Why) -> _Over:
        assert self._taking is not None
        over = _Over(self._taking, why, self._clock())
        over.taking.deeds.close()
        self._taking = None
        self._over = [*self._over, over][-_KEPT:]
        return over

    # What is told.

    @property
    def is_idle(self) -> bool:
        """Whether the agent has control, and has not asked for anybody."""
        return self._taking is None and self._parking is None

    @property
    def taking(self) -> str | None:
        """The id of the taking that goes on."""
        return None if self._taking is None else self._taking.id

    def told(self) -> Told:
        """How things are now."""
        self.expire()
        parked = None if self._parking is None else self._parking.told()
        returned = self._over[-1].told() if self._over else None
        taking = self._taking
        if taking is None:
            return Told(parked=parked, returned=returned)
        did, more = taking.deeds.told()
        return Told(
            holder=taking.wanted.holder,
            display_name=taking.wanted.display_name or "",
            reason=taking.wanted.reason,
            since=taking.since,
            until=self._until(taking),
            taking=taking.id,
            grant=taking.grant,
            did=did,
            more=more,
            parked=parked,
            returned=returned,
        )

    def collect(self, taking: str) -> Returned | None:
        """What an ended taking brought, once: for who writes it down."""
        self.expire()
        for over in self._over:
            if over.taking.id == taking and not over.is_collected:
                over.is_collected = True
                return over.told()
        return None

    def ended_deeds(self) -> list[Deeds]:
        """Of the ended takings that nobody has written down yet."""
        return [over.taking.deeds for over in self._over if not over.is_collected]

    def uncollected(self) -> list[str]:
        """The ended takings that nobody has written down yet."""
        return [over.taking.id for over in self._over if not over.is_collected]


def _at(moment: datetime) -> str:
    return moment.strftime("%H:%M:%S UTC")
