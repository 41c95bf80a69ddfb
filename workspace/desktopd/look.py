"""How the desktop looks at its first start: XFCE's settings, as the files that it reads.

A slim panel at the top, a calm backdrop without icons, one workspace, no first-start questions.
Settings that a home folder already has are left as they are.

The list of window-manager keys is short on purpose: xfwm4 grabs every key with every lock modifier
in a round trip of its own, and its default list costs half a second of each start. It also takes
Ctrl+F1 to Ctrl+F12 from the programs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

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
            <value type="double" value="0.16"/>
            <value type="double" value="0.28"/>
            <value type="double" value="0.40"/>
            <value type="double" value="1"/>
          </property>
          <property name="rgba2" type="array">
            <value type="double" value="0.27"/>
            <value type="double" value="0.47"/>
            <value type="double" value="0.53"/>
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

_WINDOW_MANAGER = """\
<channel name="xfwm4" version="1.0">
  <property name="general" type="empty">
    <property name="workspace_count" type="int" value="1"/>
    <property name="use_compositing" type="bool" value="false"/>
  </property>
</channel>
"""

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

SETTINGS: Mapping[str, str] = {
    "xfce4-panel.xml": _PANEL,
    "xfce4-desktop.xml": _BACKDROP,
    "xfwm4.xml": _WINDOW_MANAGER,
    "xfce4-keyboard-shortcuts.xml": _KEYS,
}


def furnish(home: str) -> None:
    """Write the settings that ``home`` does not have yet."""
    folder = os.path.join(home, ".config", "xfce4", "xfconf", "xfce-perchannel-xml")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for name, text in SETTINGS.items():
        try:
            with open(os.path.join(folder, name), "x", encoding="utf-8") as file:
                file.write(_HEAD + text)
        except FileExistsError:
            continue
