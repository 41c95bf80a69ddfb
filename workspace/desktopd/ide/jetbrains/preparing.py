"""The files that let an IDE of JetBrains start with no question asked, and with its MCP server on.

By the standard library alone: the image runs this as a script too (``prepare``), for another home.
Where each file lies and what it holds is by the platform's published source, as of 2025.2 to
2026.2; none of it could be tried on an IDE here. What a file held before stays, but for the options
that are set.

The agreement with JetBrains is not accepted unless the caller says so: that is for whoever builds
the image, or owns the machine. Without it the IDE asks, and its health says which dialog waits.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

_MAX_BYTES = 1 << 20
_ANY_VERSION = "999.999"  # of the agreement: compared by its first number
# The alphabet in which Java's preferences write names of folders (FileSystemPreferences, Base64).
_PLAIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_JAVAS = "!\"#$%&'(),-.:;<>@[]^`_{|}~abcdefghijklmnopqrstuvwxyz0123456789+?"


@dataclass(frozen=True)
class Product:
    """What ``product-info.json`` in an IDE's folder says of it."""

    name: str
    version: str
    data_directory: str  # PyCharm2026.2
    options_file: str  # pycharm64.vmoptions


@dataclass(frozen=True)
class Choices:
    """``asks``: whether a person is to confirm each command that an agent has run (no "brave
    mode"). ``agreement``: the version that is accepted, or none."""

    port: int
    trusted: Sequence[str] = ()
    asks: bool = False
    agreement: str | None = None


def product_of(home: str) -> Product | None:
    """The IDE in a folder; None if there is none, or it does not say."""
    try:
        with open(os.path.join(home, "product-info.json"), "rb") as file:
            told = json.loads(file.read(_MAX_BYTES))
        launches = [each for each in told.get("launch", []) if isinstance(each, dict)]
        options = next((each.get("vmOptionsFilePath") for each in launches), None)
        product = Product(
            name=str(told["name"]),
            version=str(told.get("version", "")),
            data_directory=str(told["dataDirectoryName"]),
            options_file=os.path.basename(str(options or "idea64.vmoptions")),
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None
    is_plain = "/" not in product.data_directory and product.data_directory not in ("", ".", "..")
    return product if is_plain else None


def prepare(home: str, product: Product, choices: Choices) -> list[str]:
    """Write the files below a home; where they are. Raises OSError."""
    made = []
    for path, text in files(home, product, choices, now=time.time()).items():
        target = os.path.join(home, path)
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        new = f"{target}.new"
        with open(new, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(new, target)
        made.append(target)
    return sorted(made)


def files(home: str, product: Product, choices: Choices, *, now: float) -> dict[str, str]:
    """The files, by their path below the home, and what each is to hold."""
    config = f".config/JetBrains/{product.data_directory}"
    options = {
        "mcpServer.xml": {
            "McpServerSettings": {
                "enableMcpServer": "true",
                "enableBraveMode": "false" if choices.asks else "true",
                "mcpServerPort": str(choices.port),
            }
        },
        "ide.general.xml": {
            "GeneralSettings": {
                "showTipsOnStartup": "false",
                "confirmOpenNewProject2": "1",  # in the same window
                "confirmExit": "false",
                "reopenLastProject": "false",
            }
        },
        "updates.xml": {"UpdatesConfigurable": {"CHECK_NEEDED": "false"}},
    }
    found = {
        f"{config}/options/{name}": merged(_read(home, f"{config}/options/{name}"), components)
        for name, components in options.items()
    }
    found[f"{config}/options/trusted-paths.xml"] = _trusted(choices.trusted)
    path = f"{config}/{product.options_file}"
    found[path] = _vm_options(_read(home, path), choices)
    # Nothing is sent: 0 declines. The date is that of the answer, in milliseconds.
    consent = ".local/share/JetBrains/consentOptions/accepted"
    found[consent] = f"rsch.send.usage.stat:1.1:0:{int(now * 1000)}"
    if choices.agreement:
        folder = "/".join(_java_node(name) for name in ("jetbrains", "privacy_policy"))
        found[f".java/.userPrefs/{folder}/prefs.xml"] = _preferences(choices.agreement)
    return found


def merged(before: str | None, components: Mapping[str, Mapping[str, str]]) -> str:
    """A file of the IDE's options in which these are set, others kept.

    What cannot be read, or declares a document type, is written anew.
    """
    root = ElementTree.Element("application")
    if before and "<!" not in before:
        try:
            parsed = ElementTree.fromstring(before)
            root = parsed if parsed.tag == "application" else root
        except ElementTree.ParseError:
            pass
    for name, values in components.items():
        component = next((each for each in root if each.get("name") == name), None)
        if component is None:
            component = ElementTree.SubElement(root, "component", name=name)
        for key, value in values.items():
            option = next((each for each in component if each.get("name") == key), None)
            if option is None:
                option = ElementTree.SubElement(component, "option", name=key)
            option.set("value", value)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _trusted(paths: Sequence[str]) -> str:
    projects = "".join(f'\n        <entry key={quoteattr(p)} value="true" />' for p in paths)
    places = "".join(f"\n        <option value={quoteattr(p)} />" for p in paths)
    return f"""<application>
  <component name="Trusted.Paths">
    <option name="TRUSTED_PROJECT_PATHS">
      <map>{projects}
      </map>
    </option>
  </component>
  <component name="Trusted.Paths.Settings">
    <option name="TRUSTED_PATHS">
      <list>{places}
      </list>
    </option>
  </component>
</application>
"""


def _vm_options(before: str | None, choices: Choices) -> str:
    ours = {
        # Of 2026.2 and later: on whatever the settings say, and without asking a person first.
        "-Didea.mcp.server.force.enable": "true",
        "-Didea.mcp.server.force.port": str(choices.port),
        "-Djb.consents.confirmation.enabled": "false",
        "-Didea.initially.ask.config": "never",
        "-Didea.trust.all.projects": "true",  # the desktop is the sandbox
        "-Dide.show.tips.on.startup.default.value": "false",
        "-Dide.no.platform.update": "true",
    }
    kept = [
        line
        for line in (before or "").splitlines()
        if line.strip() and line.partition("=")[0] not in ours
    ]
    return "\n".join([*kept, *(f"{key}={value}" for key, value in ours.items())]) + "\n"


def _preferences(version: str) -> str:
    chosen = quoteattr(version)
    keys = ("accepted_version", "eua_accepted_version", "euacommunity_accepted_version")
    entries = "\n".join(f'  <entry key="{key}" value={chosen}/>' for key in keys)
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n'
        '<!DOCTYPE map SYSTEM "http://java.sun.com/dtd/preferences.dtd">\n'
        f'<map MAP_XML_VERSION="1.0">\n{entries}\n</map>\n'
    )


def _java_node(name: str) -> str:
    """The folder in which Java keeps the preferences of a node."""
    if all(" " <= character <= "~" and character not in "/._" for character in name):
        return name
    plain = base64.b64encode(name.encode("utf-16-be")).decode()
    return "_" + plain.translate(str.maketrans(_PLAIN, _JAVAS))


def _read(home: str, path: str) -> str | None:
    try:
        with open(os.path.join(home, path), encoding="utf-8") as file:
            return file.read(_MAX_BYTES)
    except (OSError, UnicodeDecodeError):
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """The script ``prepare``: exit code 2 if there is no such IDE."""
    parser = argparse.ArgumentParser(prog="prepare", description=__doc__.split("\n\n")[0])
    parser.add_argument("ide", help="the IDE's folder: that which has product-info.json")
    parser.add_argument("--home", default=os.path.expanduser("~"))
    parser.add_argument("--port", type=int, default=64342)
    parser.add_argument("--trust", action="append", default=[], metavar="FOLDER")
    parser.add_argument("--ask", action="store_true", help="confirm each command in the IDE")
    parser.add_argument(
        "--accept-agreement",
        nargs="?",
        const=_ANY_VERSION,
        metavar="VERSION",
        help="accept the JetBrains User Agreement, as whoever runs this",
    )
    told = parser.parse_args(arguments)
    product = product_of(told.ide)
    if product is None:
        print(f"There is no IDE of JetBrains in {told.ide}.", file=sys.stderr)
        return 2
    choices = Choices(told.port, told.trust, told.ask, told.accept_agreement)
    for path in prepare(told.home, product, choices):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
