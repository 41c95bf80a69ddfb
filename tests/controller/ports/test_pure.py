"""What the names of origins are, and what of heads goes through to a server and back."""

from __future__ import annotations

import pytest

from controller.ports.cleaning import Place, answer_fields, request_fields
from controller.ports.origins import Origins, Target

ID = "k7mq2xw9ra"
ORIGIN = f"https://3000-{ID}.desks.example.net"


def test_a_name_leads_to_its_port_and_back() -> None:
    here = Origins("http://127.0.0.1:8700", "")
    assert here.of(Target(ID, 3000)) == f"http://3000-{ID}.localhost:8700"
    assert here.find(f"3000-{ID}.localhost:8700") == Target(ID, 3000)
    there = Origins("https://carrel.example.org", "desks.example.net")
    assert there.of(Target(ID, 80)) == f"https://80-{ID}.desks.example.net"
    assert there.find(f"80-{ID}.DESKS.example.net") == Target(ID, 80)
    with_port = Origins("https://carrel.example.org", "desks.example.net:8443")
    assert with_port.of(Target(ID, 80)) == f"https://80-{ID}.desks.example.net:8443"
    usual = Origins("https://carrel.example.org:8443", "desks.example.net:443")
    assert usual.of(Target(ID, 80)) == f"https://80-{ID}.desks.example.net"


def test_where_names_lead_nowhere_there_are_none() -> None:
    origins = Origins("https://carrel.example.org", "")
    assert origins.of(Target(ID, 80)) is None
    assert origins.find(f"80-{ID}.") is None


@pytest.mark.parametrize(
    "host",
    [
        "localhost:8700",
        f"0-{ID}.localhost",
        f"65536-{ID}.localhost",
        f"3000-{ID}.localhost.evil.example",
        f"3000-{ID}.evil.example",
        f"x.3000-{ID}.localhost",
        "3000-SHORT.localhost",
        f"3000-{ID}@localhost",
        f"[3000-{ID}.localhost",
        "",
    ],
)
def test_no_other_name_does(host: str) -> None:
    assert Origins("http://localhost:8700", "").find(host) is None


def asked(*fields: tuple[str, str], place: Place | None = None) -> dict[str, list[str]]:
    scope = {
        "scheme": "https",
        "client": ("192.0.2.7", 1234),
        "headers": [(name.encode(), value.encode()) for name, value in fields],
    }
    return told(request_fields(scope, place or Place(3000, ORIGIN)))


def told(fields: list[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in fields:
        found.setdefault(name.decode().lower(), []).append(value.decode())
    return found


def test_a_server_gets_nothing_that_proves_who_asks() -> None:
    seen = asked(
        ("host", f"3000-{ID}.desks.example.net"),
        ("authorization", "Bearer secret"),
        ("cookie", "carrel_ab=1; theirs=2; __Host-carrel_port_ab=3; also=4"),
        ("proxy-authorization", "Basic abc"),
        ("x-forwarded-for", "10.0.0.1"),
        ("connection", "keep-alive, x-mine"),
        ("x-mine", "for one hop"),
        ("upgrade", "h2c"),
        ("accept", "*/*"),
    )
    assert seen == {
        "host": ["localhost:3000"],
        "cookie": ["theirs=2; also=4"],
        "accept": ["*/*"],
        "x-forwarded-for": ["192.0.2.7"],
        "x-forwarded-host": [f"3000-{ID}.desks.example.net"],
        "x-forwarded-proto": ["https"],
    }
    assert "cookie" not in asked(("cookie", "carrel_ab=1"))
    split = asked(("cookie", "a=1"), ("cookie", "carrel_ab=1; b=2"))
    assert split["cookie"] == ["a=1; b=2"]
    by_path = asked(("cookie", "a=1"), place=Place(3000, prefix="/v1/workspaces/x/ports/3000"))
    assert "cookie" not in by_path  # it is of Carrel's own origin


def test_its_own_pages_are_of_its_own_origin() -> None:
    seen = asked(("origin", ORIGIN), ("referer", f"{ORIGIN}/page"))
    assert (seen["origin"], seen["referer"]) == (
        ["http://localhost:3000"],
        ["http://localhost:3000/page"],
    )
    others = asked(("origin", f"{ORIGIN}.evil.example"))
    assert others["origin"] == [f"{ORIGIN}.evil.example"]


def test_an_answer_sets_cookies_of_its_own_origin_only() -> None:
    fields = [
        (b"Set-Cookie", b"a=1; Domain=example.net; Path=/; HttpOnly"),
        (b"Set-Cookie", b"carrel_ab=stolen"),
        (b"Set-Cookie", b"__Host-carrel_port_ab=stolen; Secure"),
        (b"Location", b"http://localhost:3000/next?x=1"),
        (b"Clear-Site-Data", b'"*"'),
        (b"Strict-Transport-Security", b"max-age=1"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Content-Type", b"text/html"),
    ]
    assert told(answer_fields(fields, Place(3000, ORIGIN))) == {
        "set-cookie": ["a=1; Path=/; HttpOnly"],
        "location": [f"{ORIGIN}/next?x=1"],
        "content-type": ["text/html"],
    }


def test_below_a_path_it_can_tell_a_browser_nothing_of_carrels_origin() -> None:
    prefix = f"/v1/workspaces/{ID}/ports/3000"
    fields = [
        (b"Set-Cookie", b"a=1"),
        (b"Location", b"/next"),
        (b"Access-Control-Allow-Origin", b"*"),
        (b"Link", b"</x.css>; rel=preload"),
        (b"Content-Type", b"text/html"),
    ]
    assert told(answer_fields(fields, Place(3000, prefix=prefix))) == {
        "location": [f"{prefix}/next"],
        "content-type": ["text/html"],
        "content-security-policy": ["sandbox"],
        "x-content-type-options": ["nosniff"],
    }


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("/a", f"{ORIGIN}/a"),
        ("http://127.0.0.1:3000", f"{ORIGIN}/"),
        ("http://127.0.0.1:30001/a", "http://127.0.0.1:30001/a"),
        ("//elsewhere.example/a", "//elsewhere.example/a"),
        ("next", "next"),
    ],
)
def test_where_it_sends_a_browser(said: str, seen: str) -> None:
    found = told(answer_fields([(b"Location", said.encode())], Place(3000, ORIGIN)))
    assert found["location"] == [seen]


PREFIX = f"/v1/workspaces/{ID}/ports/3000"


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("/a?b=c", f"{PREFIX}/a?b=c"),
        ("b", f"{PREFIX}/deep/b"),
        ("../b", f"{PREFIX}/b"),
        ("http://localhost:3000/a", f"{PREFIX}/a"),
        ("http://localhost:3000?a", f"{PREFIX}/?a"),
        ("/../../../../keys", None),
        ("../../../../../../v1/keys", None),
        ("/%2e%2e/%2E%2E/%2e%2e/%2e%2e/keys", None),
        ("/..\\..\\keys", None),
        ("//127.0.0.1:8700/v1/keys", None),
        ("http://127.0.0.1:8700/v1/keys", None),
        ("http://localhost:30001/", None),
        ("javascript:alert(1)", None),
        ("http://[", None),
    ],
)
def test_below_a_path_no_client_is_sent_elsewhere(said: str, seen: str | None) -> None:
    """It takes its key along to wherever on this origin it is sent."""
    place = Place(3000, prefix=PREFIX)
    fields = answer_fields([(b"Location", said.encode())], place, path="/deep/page?x=/y")
    assert told(fields).get("location") == (None if seen is None else [seen])


def test_what_no_answer_can_have_is_left_out() -> None:
    place = Place(3000, ORIGIN)
    bad = [(b"X-A", b"a\x01b"), (b"X-B", b"b\tc"), (b"Content-Length", b"x")]
    assert told(answer_fields(bad, place)) == {"x-b": ["b\tc"]}
    assert answer_fields([(b"Content-Length", b"5")], place, status=304) == []
    assert answer_fields([(b"Content-Length", b"5")], place) == [(b"content-length", b"5")]
