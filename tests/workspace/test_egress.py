"""The rules of the way out: what they are written like, what they permit, what covers what."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from workspace.egress import (
    Egress,
    Secret,
    SecretUse,
    changed,
    covers,
    normal_host,
    parse_rule,
    permits,
)
from workspace.proxy import addresses
from workspace.proxy.addresses import is_own, networks, why_refused

EGRESS: TypeAdapter[Egress] = TypeAdapter(Egress)
_labels = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
_names = st.lists(_labels, min_size=1, max_size=5).map(".".join)
_ports = st.one_of(st.just(""), st.just(":*"), st.integers(1, 65535).map(lambda n: f":{n}"))
_rules = st.builds(
    lambda star, name, port: star + name + port, st.sampled_from(["", "*."]), _names, _ports
)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Pkg.Example.net", "pkg.example.net"),
        ("pkg.example.net.", "pkg.example.net"),
        ("pkg.example.net:443", "pkg.example.net:443"),
        ("pkg.example.net:*", "pkg.example.net:*"),
        ("*.example.org", "*.example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.Bücher.example:22", "*.xn--bcher-kva.example:22"),
        ("93.184.216.34:80", "93.184.216.34:80"),
        ("[2606:2800:0220::1]:443", "[2606:2800:220::1]:443"),
        ("127。0。0。1", "127.0.0.1"),
    ],
)
def test_rules_have_one_form(text: str, rule: str) -> None:
    assert str(parse_rule(text)) == rule
    assert str(parse_rule(rule)) == rule


@pytest.mark.parametrize(
    "text",
    [
        "", "*", "*.", ".", "a..b", "-a.org", "a-.org", "a b", "a/b", "http://a.org", "a.org:0",
        "a.org:65536", "a.org:x", "a.org:", ":80", "*.1.2.3.4", "*.*.org", "a.*.org", "1.2.3",
        "2130706433", "0x7f.1", "017.0.0.1", "1.2.3.4.", "a.0x1", "[::1", "::1", "[::1%lo]",
        "[1.2.3.4]", "a\0b", "a\n.org", "a@b.org", "a%2eorg", "x" * 64 + ".org", "ⓔvil..org",
    ],
)  # fmt: skip
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(ValidationError):
        EGRESS.validate_python([text])


@given(_names, st.integers(1, 65535))
def test_a_host_permits_itself_alone(name: str, port: int) -> None:
    for rule in (f"{name}:{port}", f"{name}:*"):
        assert permits([rule], name, port)
        assert not permits([rule], f"x{name}", port)
        assert not permits([rule], f"x.{name}", port)
        assert not permits([rule], f"{name}.x", port)
    assert permits([name], name, port) == (port in (80, 443))
    assert not permits([f"{name}:{port}"], name, port % 65535 + 1)


@given(_names, _names)
def test_a_wildcard_permits_what_is_below(name: str, below: str) -> None:
    assert permits([f"*.{name}"], f"{below}.{name}", 443)
    assert not permits([f"*.{name}"], name, 443)
    assert not permits([f"*.{name}"], f"{below}{name}", 443) or below.endswith(".")


@given(_rules, _rules, _names, st.sampled_from([22, 80, 443, 8080]))
def test_what_is_covered_is_permitted(wide: str, narrow: str, name: str, port: int) -> None:
    assert covers([wide], [wide])
    if covers([wide], [narrow]):
        rule = parse_rule(narrow)
        host = f"{name}.{rule.host}" if rule.is_wildcard else rule.host
        if rule.permits(host, port):
            assert permits([wide], host, port)


@given(st.text(max_size=40))
def test_any_text_is_one_host_or_none(text: str) -> None:
    try:
        host = normal_host(text)
    except ValueError:
        return
    assert host.isascii()
    assert host == host.lower()
    assert normal_host(f"[{host}]" if ":" in host else host) == host


def test_whole_egresses() -> None:
    assert covers("internet", ["a.org"])
    assert covers(["*.org"], ["a.org", "b.a.org:443"])
    assert not covers(["*.org:443"], ["a.org"])
    assert not covers(["a.org"], "internet")
    assert not covers("none", ["a.org"])
    assert covers("none", "none")
    assert changed("none", allow=["A.org"], deny=[]) == ["a.org"]
    assert changed(["a.org"], allow=["b.org", "a.org"], deny=[]) == ["a.org", "b.org"]
    assert changed(["a.org"], allow=[], deny=["a.org"]) == "none"
    with pytest.raises(ValueError, match="none of its rules"):
        changed(["a.org"], allow=[], deny=["b.org"])
    with pytest.raises(ValueError, match="give a list"):
        changed("internet", allow=[], deny=["b.org"])
    many = [f"h{number}.org" for number in range(200)]
    assert changed(many, allow=["b.org", many[7]], deny=[many[0]]) == [*many[1:], "b.org"]
    with pytest.raises(ValueError, match="would be 201 rules, and may be 200"):
        changed(many, allow=["b.org"], deny=[])
    with pytest.raises(ValidationError):
        EGRESS.validate_python("all")
    with pytest.raises(ValidationError):
        EGRESS.validate_python(["a.org"] * 201)


@given(st.ip_addresses())
def test_what_is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if why_refused(address) is None:
        assert address.is_global
        assert not address.is_multicast
        assert getattr(address, "ipv4_mapped", None) is None
        assert getattr(address, "sixtofour", None) is None


@pytest.mark.parametrize("text", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450::1"])
def test_the_internet_is_public(text: str) -> None:
    assert why_refused(ipaddress.ip_address(text)) is None


def test_a_nodes_own_addresses_are_known() -> None:
    assert is_own(ipaddress.ip_address("127.0.0.1"))
    assert not is_own(ipaddress.ip_address("192.0.2.1"))


def test_what_an_operator_permits() -> None:
    private = networks(["10.1.0.0/16", " fd00::/8 ", ""])
    assert why_refused(ipaddress.ip_address("10.1.2.3"), private) is None
    assert why_refused(ipaddress.ip_address("10.2.2.3"), private) == "private"
    assert why_refused(ipaddress.ip_address("fd00::1"), private) is None
    everything = networks(["0.0.0.0/0", "::/0"])
    for metadata in ("169.254.169.254", "fd00:ec2::254", "fe80::1"):
        assert why_refused(ipaddress.ip_address(metadata), everything) is not None
        if "." in metadata:
            mapped = ipaddress.ip_address(f"::ffff:{metadata}")
            assert why_refused(mapped, everything) is not None
    with pytest.raises(ValueError, match="host bits"):
        networks(["10.1.0.1/16"])


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1"]
)
def test_the_nodes_own_are_permitted_one_by_one_alone(text: str) -> None:
    address = ipaddress.ip_address(text)
    around = networks(["127.0.0.0/8", "::/127", "0.0.0.0/0", "::/0"])
    assert why_refused(address, around) == "this node's own"
    assert why_refused(address, [*around, *networks([text])]) is None


def test_the_nodes_own_in_a_private_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a machine with 10.1.0.5 has it; which addresses this one has is not known here."""
    private = networks(["10.1.0.0/16"])
    monkeypatch.setattr(addresses, "is_own", lambda address: str(address) == "10.1.0.5")
    assert why_refused(ipaddress.ip_address("10.1.0.5"), private) == "this node's own"
    assert why_refused(ipaddress.ip_address("10.1.0.6"), private) is None
    named = networks(["10.1.0.0/16", "10.1.0.5/32"])
    assert why_refused(ipaddress.ip_address("10.1.0.5"), named) is None


def test_secrets_show_their_value_to_the_node_alone() -> None:
    secret = Secret.model_validate({"name": "a", "host": "API.example.org", "value": "s3cret"})
    assert secret.host == "api.example.org:443"
    assert secret.target == ("api.example.org", 443)
    assert "s3cret" not in repr(secret) + str(secret) + repr(secret.model_dump())
    assert Secret.model_validate_json(secret.model_dump_json()) == secret
    assert type(secret.use) is SecretUse
    assert "s3cret" not in secret.use.model_dump_json()


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "*.example.org"}, {"host": "a.org:*"}, {"header": "Host"}, {"header": "a:b"},
        {"header": "Proxy-Authorization"}, {"header": "Content-Length"}, {"value": ""},
        {"value": "a\r\nB: c"}, {"value": "ü"}, {"name": ""}, {"name": "a b"},
    ],
)  # fmt: skip
def test_what_is_no_secret(wrong: dict[str, str]) -> None:
    right = {"name": "a", "host": "a.org", "value": "v"}
    Secret.model_validate(right)
    with pytest.raises(ValidationError):
        Secret.model_validate(right | wrong)
