"""Desktop files as tables: what they say, what becomes of their command lines, how one is found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workspace.desktopd import desktopfiles
from workspace.desktopd.desktopfiles import Entry
from workspace.errors import ApplicationNotFound, Unsupported

EDITOR = """\
# A comment
[Desktop Entry]
Type=Application
Name=Text\\sEditor
Name[de]=Texteditor
Exec=editor --title "%c = 100%%" %U
Icon=an-icon
Path=/home/user/notes
TryExec=editor
StartupWMClass=Editor
Categories=Utility;TextEditor;
Terminal=true
NoDisplay=true
a line without a value

[Desktop Action new]
Name=New
Exec=editor --new
"""


def entry(command: str = "editor %U", name: str = "org.example.Editor", title: str = "") -> Entry:
    return Entry(name=name, title=title or name, command=command, file="/f.desktop", icon="an-icon")


def test_all_that_a_file_says() -> None:
    assert desktopfiles.parse(EDITOR, "org.example.Editor", "/f.desktop") == Entry(
        name="org.example.Editor",
        title="Text Editor",
        command='editor --title "%c = 100%%" %U',
        file="/f.desktop",
        icon="an-icon",
        folder="/home/user/notes",
        try_command="editor",
        window_class="Editor",
        categories=("Utility", "TextEditor"),
        in_terminal=True,
        is_listed=False,
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "\0",
        "Exec=before any group",
        "[Desktop Entry]\nType=Application\nName=No command",
        "[Desktop Entry]\nType=Link\nExec=editor",
        "[Desktop Entry]\nExec=editor\nHidden=true",
        "[Desktop Action new]\nExec=editor",
        "[DEFAULT]\nExec=editor\n[Desktop Entry]\nName=Not by default",
    ],
)
def test_files_that_describe_no_application(text: str) -> None:
    assert desktopfiles.parse(text, "x") is None


def test_percent_signs_are_no_references() -> None:
    found = desktopfiles.parse("[Desktop Entry]\nExec=a %(Name)s ${Name} %%\nName=n", "x")
    assert found is not None
    assert found.command == "a %(Name)s ${Name} %%"
    assert found.title == "n"


@pytest.mark.parametrize(
    ("command", "arguments", "argv"),
    [
        ("editor", [], ["editor"]),
        ("editor", ["a b", "-x"], ["editor", "a b", "-x"]),
        ("editor %U --last", ["a", "b"], ["editor", "a", "b", "--last"]),
        ("editor %f %F", ["a"], ["editor", "a"]),
        ("editor %u", [], ["editor"]),
        ("editor %i %c %k", [], ["editor", "--icon", "an-icon", "Title", "/f.desktop"]),
        ("editor %d%D %N %v %m x%%y %z", [], ["editor", "", "x%y", ""]),
        ("editor --name=%c", ["a"], ["editor", "--name=Title", "a"]),
        (r'"a editor" "b \"c\" \$d \\ \`" e\ f', [], ["a editor", 'b "c" $d \\ `', "e f"]),
        ("sh -c 'echo \"$1\"; x' --x='y'z", [], ["sh", "-c", 'echo "$1"; x', "--x=yz"]),
        ("a; b ~ && $(x) | y > z", [], ["a;", "b", "~", "&&", "$(x)", "|", "y", ">", "z"]),
        ('editor "" %U', ["%c", '"'], ["editor", "", "%c", '"']),
    ],
)  # fmt: skip
def test_command_lines(command: str, arguments: list[str], argv: list[str]) -> None:
    assert desktopfiles.argv(entry(command, title="Title"), arguments) == argv


@pytest.mark.parametrize(
    "command", ['editor "open', "editor 'open", "editor \\", "   ", "%U", '""']
)
def test_command_lines_that_cannot_be_read(command: str) -> None:
    with pytest.raises(Unsupported):
        desktopfiles.argv(entry(command), [])


def test_an_unclosed_quote_is_found_at_once() -> None:
    with pytest.raises(Unsupported):
        desktopfiles.words('"' + "\\a" * 100_000)
    with pytest.raises(Unsupported):
        desktopfiles.words("a" * 100_000 + "'")


ENTRIES = [
    entry("mousepad --preferences", "org.xfce.mousepad-settings", "Mousepad Settings"),
    entry("mousepad %U", "org.xfce.mousepad", "Mousepad"),
    entry("/usr/bin/chromium %U", "chromium", "Chromium Web Browser"),
    entry("writer", "libreoffice-writer", "LibreOffice Writer"),
    entry('"unreadable', "broken", "Broken"),
]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("org.xfce.mousepad.desktop", "org.xfce.mousepad"),
        ("org.xfce.mousepad", "org.xfce.mousepad"),
        ("Mousepad", "org.xfce.mousepad"),
        ("chromium web browser", "chromium"),
        ("writer", "libreoffice-writer"),
    ],
)
def test_finding_one(name: str, found: str) -> None:
    assert desktopfiles.find(ENTRIES, name).name == found


@pytest.mark.parametrize("name", ["mousepda", "Mouse pad", "chromum", "\0", "a" * 255])
def test_one_that_is_not_there(name: str) -> None:
    with pytest.raises(ApplicationNotFound) as caught:
        desktopfiles.find(ENTRIES, name)
    near = {"m": "org.xfce.mousepad", "c": "chromium"}.get(name[0].lower())
    assert caught.value.hint
    assert near is None or near in caught.value.hint


def test_the_home_goes_before_the_system(tmp_path: Path) -> None:
    mine, system = tmp_path / "home/.local/share/applications", tmp_path / "share/applications"
    for folder in (mine / "kde", system):
        folder.mkdir(parents=True)

    def write(folder: Path, name: str, more: str) -> None:
        (folder / f"{name}.desktop").write_text(f"[Desktop Entry]\nExec=sh\n{more}\n")

    write(system, "both", "Name=of the system")
    write(mine, "both", "Name=mine")
    write(system, "deleted", "Name=of the system")
    write(mine, "deleted", "Hidden=true")
    write(mine / "kde", "below", "Name=below")
    write(system, "there", "TryExec=sh")
    write(system, "absent", "TryExec=/no/such/program")
    (system / "no-desktop-file.txt").write_text("[Desktop Entry]\nExec=sh")
    (system / "bytes.desktop").write_bytes(b"[Desktop Entry]\nExec=sh\nName=\xff\0\n")
    (system / "huge.desktop").write_bytes(b"#" * (desktopfiles.MAX_FILE_BYTES + 1))
    (system / "dangling.desktop").symlink_to("nowhere")
    (system / "folder.desktop").mkdir()
    os.mkfifo(system / "pipe.desktop")
    found = desktopfiles.installed(
        {
            "HOME": str(tmp_path / "home"),
            "XDG_DATA_DIRS": f"relative:{tmp_path}/none:{tmp_path}/share",
            "PATH": os.environ["PATH"],
        }
    )
    assert [each.name for each in found] == ["both", "bytes", "kde-below", "there"]
    assert found[0].title == "mine"
    assert desktopfiles.installed({"HOME": str(tmp_path / "none"), "XDG_DATA_DIRS": ":"}) == []
