"""The tool that asks for a person, and what the others say while one has control."""

from __future__ import annotations

import pytest
from mcp import Client

from tests.agent_bridge.conftest import text_of
from tests.agent_bridge.fake import FakeController
from tests.agent_bridge.test_windows import on
from workspace import actions as a
from workspace.control import TypeWithheld

pytestmark = pytest.mark.anyio


async def test_a_person_is_asked_for_and_the_ticket_polled(
    client: Client, controller: FakeController
) -> None:
    call, desktop = await on(client, controller, "desktop")
    told = text_of(await call("request_human", reason="Log in."))
    assert "Nobody has come yet" in told
    assert "ticket 'ticket01'" in told
    refused = await call("computer", action="click", x=1, y=1)
    assert refused.is_error
    assert "human_in_control" in text_of(refused)
    assert "request_human with ticket 'ticket01'" in text_of(refused)
    assert desktop.asked is not None
    desktop.asked = desktop.asked.model_copy(update={"state": "taken", "taken_by": "ada"})
    told = text_of(await call("request_human", ticket="ticket01"))
    assert "ada is at it" in told
    desktop.asked = desktop.asked.model_copy(
        update={
            "state": "done",
            "answered_by": "ada",
            "note": "I am in.",
            "did": [
                a.Click(x=5, y=6),
                a.Type(text="x" * 1000),
                TypeWithheld(length=8),
                a.Key(chord="Return"),
                a.Drag(path=[(1, 1), (2, 2), (3, 3)]),
            ],
            "more": 3,
        }
    )
    told = text_of(await call("request_human", ticket="ticket01"))
    assert "ada says that it is done. Their note: I am in." in told
    assert "click x 5 y 6" in told
    assert "typed 8 characters that are not told" in told
    assert "drag path [[1, 1], [3, 3]]" in told
    assert "and 3 more" in told
    assert len(told) < 1000
    assert not (await call("computer", action="click", x=1, y=1)).is_error


@pytest.mark.parametrize(
    ("state", "says"), [("declined", "ada declined."), ("expired", "Nobody answered in time")]
)
async def test_nobody_does_it(
    client: Client, controller: FakeController, state: str, says: str
) -> None:
    call, desktop = await on(client, controller, "desktop")
    await call("request_human", reason="Pay.")
    assert desktop.asked is not None
    desktop.asked = desktop.asked.model_copy(update={"state": state, "answered_by": "ada"})
    assert says in text_of(await call("request_human", ticket="ticket01"))


async def test_a_wrong_request(client: Client, controller: FakeController) -> None:
    call, _ = await on(client, controller, "desktop")
    for arguments in ({}, {"reason": " "}):
        assert "Say in reason" in text_of(await call("request_human", **arguments))
    assert "not_found" in text_of(await call("request_human", ticket="another1"))
