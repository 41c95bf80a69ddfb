"""Who has mouse and keyboard: the agent, or one person."""

from __future__ import annotations

from typing import Literal

from workspace.calls.wire import Wire, parse, segment
from workspace.control import (
    HOLD_SECONDS,
    AnswerHuman,
    AskHuman,
    Control,
    ControlRequest,
    HumanRequest,
    Park,
    Returned,
)
from workspace.transport import asked


class ControlCalls:
    """A desktop's control. ``holder`` is for who speaks to desktopd itself: whom it is for."""

    _wire: Wire

    async def control(self, *, after: str | None = None, wait_seconds: float = 0) -> Control:
        """Who has it; with ``after`` once that taking is over, or after ``wait_seconds``."""
        given = {"after": after, "wait_seconds": wait_seconds or None}
        params = {name: value for name, value in given.items() if value is not None}
        body = await self._wire.call("GET", "/control", params=params, seconds=wait_seconds)
        return parse(Control.model_validate_json, body)

    async def take_control(
        self,
        *,
        seconds: float = HOLD_SECONDS,
        reason: str = "",
        display_name: str | None = None,
        force: bool = False,
        holder: str | None = None,
    ) -> Control:
        """Take mouse and keyboard; what the agent does is broken off.

        It goes back to the agent after ``seconds`` without input. With ``force`` it is taken from
        another person too.

        Raises:
            ControlTaken: another person has it, and ``force`` was not asked for.
            Forbidden: ``force`` is for who claimed the desktop, and for operators.
        """
        wanted = asked(
            ControlRequest,
            seconds=seconds,
            reason=reason,
            display_name=display_name,
            force=force,
        ).model_dump()
        if holder is not None:
            wanted["holder"] = holder
        body = await self._wire.call("POST", "/control", json=wanted)
        return parse(Control.model_validate_json, body)

    async def hand_back(self, *, force: bool = False, holder: str | None = None) -> Control:
        """Give it back to the agent; ``returned`` of the answer is what was done meanwhile.

        Raises:
            ControlTaken: it is another person's, and ``force`` was not asked for.
            Forbidden: ``force`` is for who claimed the desktop, and for operators.
        """
        params: dict[str, str] = {} if holder is None else {"holder": holder}
        if force:
            params["force"] = "true"
        body = await self._wire.call("DELETE", "/control", params=params)
        return parse(Control.model_validate_json, body)

    # Of the controller alone.

    async def request_human(self, reason: str, *, seconds: float = 1800) -> HumanRequest:
        """Ask for a person; the agent's input waits until that is answered, or given up.

        One request is open at a time: asking again answers with that.
        """
        wanted = asked(AskHuman, reason=reason, seconds=seconds)
        body = await self._wire.call("POST", "/requests", json=wanted.model_dump())
        return parse(HumanRequest.model_validate_json, body)

    async def human_request(self, ticket: str, *, wait_seconds: float = 0) -> HumanRequest:
        """What has come of it; waits for its end, ``wait_seconds`` at most.

        Raises:
            NotFound: there is no such request.
        """
        body = await self._wire.call(
            "GET",
            f"/requests/{segment(ticket)}",
            params={"wait_seconds": wait_seconds},
            seconds=wait_seconds,
        )
        return parse(HumanRequest.model_validate_json, body)

    async def answer_human(
        self, ticket: str, outcome: Literal["done", "declined"], note: str = ""
    ) -> HumanRequest:
        """As the person: say that it is done, or will not be. Control is handed back first.

        Raises:
            Conflict: it is over already.
        """
        wanted = asked(AnswerHuman, outcome=outcome, note=note)
        path = f"/requests/{segment(ticket)}"
        body = await self._wire.call("POST", path, json=wanted.model_dump())
        return parse(HumanRequest.model_validate_json, body)


# What only the controller asks, of desktopd itself.


async def collect(desktop: ControlCalls, taking: str) -> Returned:
    """What an ended taking brought, once; NotFound the second time."""
    body = await desktop._wire.call("DELETE", "/control/returned", params={"taking": taking})
    return parse(Returned.model_validate_json, body)


async def park(desktop: ControlCalls, ticket: str, reason: str, seconds: float) -> None:
    """Have the agent wait for a person.

    Raises:
        Conflict: it does so already; ``details`` has the ``ticket``.
    """
    wanted = asked(Park, ticket=ticket, reason=reason, seconds=seconds)
    await desktop._wire.call("POST", "/control/parked", json=wanted.model_dump())


async def unpark(desktop: ControlCalls, ticket: str) -> None:
    """That request is answered: the agent goes on."""
    await desktop._wire.call("DELETE", "/control/parked", params={"ticket": ticket})
