"""How the desktop looks at its first start: the settings of its programs, as the files they read.

XFCE: a slim panel at the top, a calm backdrop without icons, one workspace, no first-start
questions. Openbox is told in :mod:`workspace.desktopd.openbox`. Every toolkit is told of the theme
and of the dots per inch by a file too, though :func:`xsettings` win: programs that start before
those are there need not draw themselves twice. Settings that somebody changed in a home that stays
are left as they are; those that we wrote there ourselves follow the theme that is asked for now.

The list of window-manager keys is short on purpose: xfwm4 grabs every key with every lock modifier
in a round trip of its own, and its default list takes Ctrl+F1 to Ctrl+F12 from the programs.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping

from workspace.desktopd import openbox
from workspace.models import SessionKind, Theme

# What is behind the windows where no program draws it: RGB.
BACKDROPS: Mapping[Theme, int] = {"light": 0x3D6478, "dark": 0x1B262E}

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'

_PANEL = """\
<channel name="xfce4-panel" version="1.0">
  <property name="configver" type="int" value="2"/>
  <property name="panels" type="array">
    <value type="int" value="1"/>
    <property name="dark-mode" type="bool" value="true"/>
    <property name="panel-1" type="empty">
      <property name="position" type="string" value="p=6;x=0;y=0"/>
      <property name="position-locked" type="bool" value="true"/>
      <property name="length" type="uint" value="100"/>
      <property name="size" type="uint" value="28"/>
      <property name="icon-size" type="uint" value="16"/>
      <property name="plugin-ids" type="array">
        <value type="int" value="1"/>
        <value type="int" value="2"/>
        <value type="int" value="3"/>
        <value type="int" value="4"/>
      </property>
    </property>
  </property>
  <property name="plugins" type="empty">
    <property name="plugin-1" type="string" value="applicationsmenu"/>
    <property name="plugin-2" type="string" value="tasklist">
      <property name="grouping" type="uint" value="0"/>
      <property name="flat-buttons" type="bool" value="true"/>
      <property name="show-handle" type="bool" value="false"/>
    </property>
    <property name="plugin-3" type="string" value="separator">
      <property name="expand" type="bool" value="true"/>
      <property name="style" type="uint" value="0"/>
    </property>
    <property name="plugin-4" type="string" value="clock">
      <property name="mode" type="uint" value="2"/>
      <property name="digital-layout" type="uint" value="3"/>
      <property name="digital-time-format" type="string" value=" %H:%M "/>
    </property>
  </property>
</channel>
"""

# VNC-0 is the one monitor of an Xtigervnc. A gradient needs no picture to be read and scaled.
_BACKDROP = """\
<channel name="xfce4-desktop" version="1.0">
  <property name="backdrop" type="empty">
    <property name="screen0" type="empty">
      <property name="monitorVNC-0" type="empty">
        <property name="workspace0" type="empty">
          <property name="image-style" type="int" value="0"/>
          <property name="color-style" type="int" value="2"/>
          <property name="rgba1" type="array">
            {top}
            <value type="double" value="1"/>
          </property>
          <property name="rgba2" type="array">
            {bottom}
            <value type="double" value="1"/>
          </property>
        </property>
      </property>
    </property>
  </property>
  <property name="desktop-icons" type="empty">
    <property name="style" type="int" value="0"/>
  </property>
</channel>
"""

# Every setting that xfwm4 has (4.18), nearly all at its default. For each that it does not find it
# writes the default, hears of that change itself, and loads theme, settings and keys once more: a
# dozen times at each start, half a second.
_WINDOW_MANAGER: Mapping[str, str | int] = {
    "activate_action": "bring", "borderless_maximize": True, "box_move": False,
    "box_resize": False, "button_layout": "O|SHMC", "button_offset": 0, "button_spacing": 0,
    "click_to_focus": True, "cycle_apps_only": False, "cycle_draw_frame": True,
    "cycle_hidden": True, "cycle_minimized": False, "cycle_minimum": True, "cycle_preview": True,
    "cycle_raise": False, "cycle_tabwin_mode": 0, "cycle_workspaces": False,
    "double_click_action": "maximize", "double_click_distance": 5, "double_click_time": 250,
    "easy_click": "Alt", "focus_delay": 250, "focus_hint": True, "focus_new": True,
    "frame_border_top": 0, "frame_opacity": 100, "full_width_title": True,
    "horiz_scroll_opacity": False, "inactive_opacity": 100, "maximized_offset": 0,
    "mousewheel_rollup": True, "move_opacity": 100, "placement_mode": "center",
    "placement_ratio": 20, "popup_opacity": 100, "prevent_focus_stealing": False,
    "raise_delay": 250, "raise_on_click": True, "raise_on_focus": False,
    "raise_with_any_button": True, "repeat_urgent_blink": False, "resize_opacity": 100,
    "scroll_workspaces": True, "shadow_delta_height": 0, "shadow_delta_width": 0,
    "shadow_delta_x": 0, "shadow_delta_y": -3, "shadow_opacity": 50, "show_app_icon": False,
    "show_dock_shadow": True, "show_frame_shadow": True, "show_popup_shadow": False,
    "snap_resist": False, "snap_to_border": True, "snap_to_windows": False, "snap_width": 10,
    "tile_on_move": True, "title_alignment": "center", "title_font": "Sans Bold 9",
    "title_horizontal_offset": 0, "title_shadow_active": "false",
    "title_shadow_inactive": "false", "title_vertical_offset_active": 0,
    "title_vertical_offset_inactive": 0, "titleless_maximize": False, "toggle_workspaces": False,
    "unredirect_overlays": True, "urgent_blink": False, "use_compositing": False,
    "vblank_mode": "auto", "workspace_count": 1, "wrap_cycle": True, "wrap_layout": True,
    "wrap_resistance": 10, "wrap_windows": True, "wrap_workspaces": False, "zoom_desktop": True,
    "zoom_pointer": True,
}  # fmt: skip

_KEYS = """\
<channel name="xfce4-keyboard-shortcuts" version="1.0">
  <property name="commands" type="empty">
    <property name="custom" type="empty">
      <property name="override" type="bool" value="true"/>
    </property>
  </property>
  <property name="xfwm4" type="empty">
    <property name="custom" type="empty">
      <property name="override" type="bool" value="true"/>
      <property name="&lt;Alt&gt;F4" type="string" value="close_window_key"/>
      <property name="&lt;Alt&gt;F9" type="string" value="hide_window_key"/>
      <property name="&lt;Alt&gt;F10" type="string" value="maximize_window_key"/>
      <property name="&lt;Alt&gt;F11" type="string" value="fullscreen_key"/>
      <property name="&lt;Alt&gt;Tab" type="string" value="cycle_windows_key"/>
      <property name="&lt;Alt&gt;&lt;Shift&gt;Tab" type="string" value="cycle_reverse_windows_key"/>
      <property name="&lt;Alt&gt;space" type="string" value="popup_menu_key"/>
      <property name="&lt;Primary&gt;&lt;Alt&gt;d" type="string" value="show_desktop_key"/>
      <property name="&lt;Super&gt;Up" type="string" value="tile_up_key"/>
      <property name="&lt;Super&gt;Down" type="string" value="tile_down_key"/>
      <property name="&lt;Super&gt;Left" type="string" value="tile_left_key"/>
      <property name="&lt;Super&gt;Right" type="string" value="tile_right_key"/>
      <property name="Escape" type="string" value="cancel_key"/>
      <property name="Up" type="string" value="up_key"/>
      <property name="Down" type="string" value="down_key"/>
      <property name="Left" type="string" value="left_key"/>
      <property name="Right" type="string" value="right_key"/>
    </property>
  </property>
  <property name="providers" type="array">
    <value type="string" value="xfwm4"/>
  </property>
</channel>
"""

_GRADIENTS: Mapping[Theme, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "light": ((0.16, 0.28, 0.40), (0.27, 0.47, 0.53)),
    "dark": ((0.07, 0.10, 0.14), (0.13, 0.19, 0.24)),
}
_XFCONF = ".config/xfce4/xfconf/xfce-perchannel-xml"
_GTK = ".config/gtk-3.0/settings.ini"
_MAX_LENGTH = 64 << 10


def files(session: SessionKind, theme: Theme, dpi: int) -> dict[str, str]:
    """The settings' files by their paths in the home folder."""
    gtk = _gtk(theme, dpi)
    found = {_GTK: gtk, ".config/gtk-4.0/settings.ini": gtk}
    if session == "openbox":
        return found | openbox.files(theme)
    return found | {
        f"{_XFCONF}/xfce4-panel.xml": _HEAD + _PANEL,
        f"{_XFCONF}/xfce4-desktop.xml": _HEAD + _backdrop(theme),
        f"{_XFCONF}/xfwm4.xml": _HEAD + _window_manager(dpi),
        f"{_XFCONF}/xfce4-keyboard-shortcuts.xml": _HEAD + _KEYS,
    }


def furnish(home: str, session: SessionKind, theme: Theme, dpi: int) -> None:
    """Write the settings that ``home`` does not have yet, or has as they were written before.

    One that stays may have become what takes none of them: a desktop comes up without them too.

    Raises:
        OSError: the disk is full.
    """
    ours = _written_before(home, session)
    for name, text in files(session, theme, dpi).items():
        path = os.path.join(home, name)
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            if not os.path.lexists(path) or _read(path) in ours[name]:
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise


def _written_before(home: str, session: SessionKind) -> dict[str, set[str]]:
    """What :func:`furnish` may have written there: for each theme, at the resolution it left."""
    told = re.search(r"gtk-xft-dpi = ([0-9]{1,7})\n", _read(os.path.join(home, _GTK)))
    dpi = int(told[1]) // 1024 if told else 96
    found: dict[str, set[str]] = {}
    for theme in BACKDROPS:
        for name, text in files(session, theme, dpi).items():
            found.setdefault(name, set()).add(text)
    return found


def _read(path: str) -> str:
    """A file's text; none of what is no file, or too long to be ours."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, encoding="utf-8") as file:
            is_file = stat.S_ISREG(os.fstat(fd).st_mode)
            return file.read(_MAX_LENGTH) if is_file else ""
    except (OSError, ValueError):
        return ""


def xsettings(dpi: int) -> dict[str, int | str]:
    """What programs with a toolkit are told (the names are those of GTK's settings)."""
    return {
        "Net/ThemeName": "Adwaita",
        "Net/IconThemeName": "Adwaita",
        "Net/DoubleClickTime": 400,
        "Gtk/CursorThemeName": "Adwaita",
        "Gtk/FontName": "Sans 10",
        "Xft/Antialias": 1,
        "Xft/DPI": dpi * 1024,
        "Xft/Hinting": 1,
        "Xft/HintStyle": "hintslight",
        "Xft/RGBA": "none",
    }


def resources(theme: Theme, dpi: int) -> dict[str, str]:
    """What programs without one read (X resources)."""
    dark = {"XTerm*background": "#1e2226", "XTerm*foreground": "#e4e7ea"}
    # A window with a border of its own is nowhere exactly: managers count it in, and draw none.
    plain = {"Xft.dpi": str(dpi), "XTerm.borderWidth": "0"}
    return plain | (dark if theme == "dark" else {})


def _gtk(theme: Theme, dpi: int) -> str:
    return (
        "[Settings]\n"
        "gtk-theme-name = Adwaita\n"
        "gtk-icon-theme-name = Adwaita\n"
        "gtk-font-name = Sans 10\n"
        f"gtk-application-prefer-dark-theme = {int(theme == 'dark')}\n"
        f"gtk-xft-dpi = {dpi * 1024}\n"
    )


def _backdrop(theme: Theme) -> str:
    ends = ("\n            ".join(map(_double, colour)) for colour in _GRADIENTS[theme])
    return _BACKDROP.format(**dict(zip(("top", "bottom"), ends, strict=True)))


def _double(value: float) -> str:
    return f'<value type="double" value="{value}"/>'


def _window_manager(dpi: int) -> str:
    properties = ""
    for name, value in sorted(({**_WINDOW_MANAGER, "theme": _frames(dpi)}).items()):
        kind = "bool" if isinstance(value, bool) else "int" if isinstance(value, int) else "string"
        text = str(value).lower() if kind == "bool" else value
        properties += f'    <property name="{name}" type="{kind}" value="{text}"/>\n'
    return (
        '<channel name="xfwm4" version="1.0">\n  <property name="general" type="empty">\n'
        f"{properties}  </property>\n</channel>\n"
    )


def _frames(dpi: int) -> str:
    """The theme of xfwm4 whose buttons fit the text."""
    return "Default-xhdpi" if dpi >= 192 else "Default-hdpi" if dpi >= 144 else "Default"
