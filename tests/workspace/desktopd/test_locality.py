"""Locales, time zones and keyboards: what is refused, and with which words."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError

from workspace.desktopd import locality
from workspace.errors import InvalidRequest
from workspace.models import Template

RIGHT = {"locale": "C.UTF-8", "timezone": None, "keyboard": "us"}


@pytest.mark.parametrize(
    "there",
    [
        {},
        {"locale": "de_DE.UTF-8"},
        {"locale": "ca_ES.UTF-8@valencia"},
        {"timezone": "Europe/Berlin"},
        {"timezone": "America/Argentina/Buenos_Aires"},
        {"timezone": "UTC"},
        {"timezone": "Etc/GMT+5"},
        {"keyboard": "de"},
        {"keyboard": "us(intl)"},
        {"keyboard": "ch(fr)"},
    ],
)
def test_what_is_there(there: dict[str, str]) -> None:
    locality.check(**(RIGHT | there))  # type: ignore[arg-type]  # the table's values fit
    Template(name="x", **there)  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    ("wrong", "message", "hint"),
    [
        ({"timezone": "Berlin"}, "no time zone 'Berlin'", "Europe/Berlin"),
        ({"timezone": "Europe"}, "no time zone 'Europe'", "Europe/"),
        ({"timezone": "zone.tab"}, "no time zone", ""),
        ({"keyboard": "german"}, "no keyboard layout 'german'", ""),
        ({"keyboard": "de(dvorrak)"}, "no variant of the keyboard layout de 'dvorrak'", "dvorak"),
        ({"locale": "en_DE.UTF-8"}, "no locale 'en_DE.UTF-8'", "en_DK.UTF-8"),
    ],
)
def test_what_is_not_there(wrong: dict[str, str], message: str, hint: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        locality.check(**(RIGHT | wrong))  # type: ignore[arg-type]  # the table's values fit
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("place", "wrong", "package"),
    [
        ("ZONES", {"timezone": "Europe/Berlin"}, "tzdata"),
        ("LAYOUTS", {"keyboard": "de"}, "xkb-data"),
        ("SOURCES", {"locale": "de_DE.UTF-8"}, "locales"),
    ],
)
def test_a_machine_without_them_is_told_what_to_install(
    place: str, wrong: dict[str, str], package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locality, place, tmp_path / "nothing")
    monkeypatch.setattr(locality, "is_installed", lambda locale: locale == "C.UTF-8")
    locality.check(**RIGHT)  # type: ignore[arg-type]  # as above
    with pytest.raises(InvalidRequest) as caught:
        locality.check(**(RIGHT | wrong))  # type: ignore[arg-type]  # the table's values fit
    assert f"apt-get install {package}" in caught.value.hint


@pytest.mark.parametrize(
    "wrong",
    [
        {"locale": "de_DE"},
        {"locale": "de_DE.ISO-8859-1"},
        {"locale": "../../etc.UTF-8"},
        {"timezone": "../../../etc/passwd"},
        {"timezone": "/etc/localtime"},
        {"timezone": ""},
        {"keyboard": "us,de"},
        {"keyboard": "-print"},
        {"keyboard": "us()"},
        {"theme": "blue"},
        {"session": "gnome"},
        {"screen": {"dpi": 5}},
        {"screen": {"width": 10}},
    ],
)
def test_what_is_no_name_at_all(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Template(name="x", **wrong)  # type: ignore[arg-type]  # that is what is tested


def test_the_commands_and_variables() -> None:
    assert locality.environment(locale="de_DE.UTF-8", timezone="Asia/Tokyo") == {
        "LANG": "de_DE.UTF-8",
        "TZ": "Asia/Tokyo",
    }
    assert locality.environment(locale="C.UTF-8", timezone=None) == {"LANG": "C.UTF-8"}
    assert locality.setting_keyboard("us") is None
    assert locality.setting_keyboard("de") == ["setxkbmap", "-layout", "de"]
    assert locality.setting_keyboard("us(intl)") == [
        *("setxkbmap", "-layout", "us", "-variant", "intl")
    ]
    assert locality.making("C.UTF-8", "/nowhere") is None


def test_a_locale_with_a_modifier_is_made(tmp_path: Path) -> None:
    locale = "ca_ES.UTF-8@valencia"
    making = locality.making(locale, str(tmp_path))
    assert making is not None
    assert not locality.is_made(locale, str(tmp_path))
    subprocess.run(making.command, check=False, capture_output=True, timeout=60)
    assert locality.is_made(locale, str(tmp_path))
    told = subprocess.run(
        ["locale", "charmap", "decimal_point"],
        env={"LC_ALL": locale, "PATH": "/usr/bin", **making.environment},
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    assert told.stdout.split() == ["UTF-8", ","]
    assert told.stderr == ""


def test_the_list_of_layouts(tmp_path: Path) -> None:
    path = tmp_path / "base.lst"
    path.write_text(
        "! model\n  pc105  Generic\n\n! layout\n  us   English (US)\n  de   German\n"
        "! variant\n  intl   us: English (US, intl.)\n  neo    de: German (Neo 2)\n\n"
        "! option\n  grp   Switching\n"
    )
    assert locality.read_layouts(path) == {"us": {"intl"}, "de": {"neo"}}
    assert locality.read_layouts(tmp_path / "none") == {}
