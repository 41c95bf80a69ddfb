"""The settings that a desktop starts with: complete, well formed, and never over one's own."""

from __future__ import annotations

import configparser
import os
import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest

from workspace.desktopd import look, openbox
from workspace.desktopd.x11.xsettings import packed
from workspace.models import SessionKind, Theme


@pytest.mark.parametrize("session", ["xfce", "openbox"])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("dpi", [96, 144, 192])
def test_every_file_can_be_read(session: SessionKind, theme: Theme, dpi: int) -> None:
    files = look.files(session, theme, dpi)
    assert len(files) > 5
    for name, text in files.items():
        assert not os.path.isabs(name)
        assert "{" not in text.replace("_bits[] = {", "")
        if name.endswith(".xml"):
            ElementTree.fromstring(text.encode())
        if name.endswith(".ini"):
            settings = configparser.ConfigParser()
            settings.read_string(text)
            assert settings["Settings"]["gtk-xft-dpi"] == str(dpi * 1024)
            dark = settings["Settings"]["gtk-application-prefer-dark-theme"]
            assert dark == ("1" if theme == "dark" else "0")


def test_what_somebody_changed_in_a_home_is_left(tmp_path: Path) -> None:
    mine = tmp_path / ".config" / "openbox" / "rc.xml"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    look.furnish(str(tmp_path), "openbox", "light", 96)
    assert mine.read_text() == "mine"
    assert "Terminal" in (mine.parent / "menu.xml").read_text()
    look.furnish(str(tmp_path), "openbox", "dark", 96)
    assert mine.read_text() == "mine"


def test_a_home_that_stays_follows_the_theme(tmp_path: Path) -> None:
    gtk = tmp_path / ".config" / "gtk-3.0" / "settings.ini"
    looks: list[tuple[Theme, int]] = [("light", 96), ("dark", 144), ("light", 200)]
    for theme, dpi in looks:
        look.furnish(str(tmp_path), "xfce", theme, dpi)
        for name, text in look.files("xfce", theme, dpi).items():
            assert (tmp_path / name).read_text() == text
    gtk.write_text(gtk.read_text() + "gtk-cursor-blink = 0\n")
    look.furnish(str(tmp_path), "xfce", "dark", 96)
    assert "prefer-dark-theme = 0" in gtk.read_text()


@pytest.mark.parametrize("spoil", ["file", "link", "round", "pipe", "folder", "closed"])
def test_a_home_that_takes_no_settings_is_no_reason_to_stop(tmp_path: Path, spoil: str) -> None:
    config = tmp_path / ".config"
    inner = config / "gtk-3.0" / "settings.ini"
    if spoil == "file":
        config.write_text("no folder")
    elif spoil == "link":
        config.symlink_to("/nowhere/at/all")
    elif spoil == "round":
        config.symlink_to(".config")
    else:
        inner.parent.mkdir(parents=True)
        if spoil == "pipe":
            os.mkfifo(inner)
        elif spoil == "folder":
            inner.mkdir()
        else:
            inner.symlink_to("/proc/self/mem")
    look.furnish(str(tmp_path), "xfce", "dark", 96)
    assert not os.path.exists("/nowhere")


def test_the_menu_offers_what_is_there() -> None:
    text = openbox.menu({"xterm", "firefox"}.__contains__)
    root = ElementTree.fromstring(text.encode())
    assert [item.get("label") for item in root.findall(".//{*}item")] == ["Terminal", "Web browser"]
    assert [command.text for command in root.findall(".//{*}command")] == ["xterm", "firefox"]


def test_the_buttons_are_bitmaps_that_x_reads(tmp_path: Path) -> None:
    from PIL import Image

    for name, text in openbox.files("light").items():
        if name.endswith(".xbm"):
            path = tmp_path / os.path.basename(name)
            path.write_text(text)
            with Image.open(path) as image:
                assert image.size == (10, 10)
                assert image.getextrema() == (0, 255)


def test_the_settings_that_toolkits_watch() -> None:
    data = packed({"Xft/DPI": 98304, "Net/ThemeName": "Ädwaita"}, serial=7)
    header = struct.pack("<B3xII", 0, 7, 2)
    name = struct.pack("<BxH", 1, 13) + b"Net/ThemeName\0\0\0" + struct.pack("<II", 7, 8)
    name += "Ädwaita".encode()
    number = struct.pack("<BxH", 0, 7) + b"Xft/DPI\0" + struct.pack("<Ii", 7, 98304)
    assert data == header + name + number
