"""Print what pyproject.toml names for an extra, one a line: ``requirements.py desktopd``."""

import sys

try:
    import tomllib
except ModuleNotFoundError:  # before Python 3.11; pip brings the same
    from pip._vendor import tomli as tomllib

with open("pyproject.toml", "rb") as file:
    told = tomllib.load(file)
print("\n".join(sorted(told["project"]["optional-dependencies"][sys.argv[1]])))
