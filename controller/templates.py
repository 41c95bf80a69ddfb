"""The recipes: built in, and as JSON files in a folder that people may edit at any time.

A file's name is its template's: ``<name>.json``. Files are read when asked for, so an edit counts
from the next claim on. A file that is not a template is said to be wrong when it is asked for, and
left out of the list with a line in the log; it never hides the others.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from controller.problems import invalid
from workspace.errors import DiskFull, InvalidRequest, TemplateExists, TemplateNotFound
from workspace.folders import private_folder
from workspace.models import Template, WorkspaceRequest

MAX_FILE_BYTES = 1 << 20
MAX_TEMPLATES = 1000
_TEMPLATE = TypeAdapter(Template)
_log = logging.getLogger(__name__)


class Templates:
    """The templates of one controller. Methods block on small files."""

    def __init__(self, folder: Path, *, backend: str = "bubblewrap") -> None:
        """``backend``: of those that name none."""
        self._folder = folder
        self._backend = backend
        built_in = resources.files("controller").joinpath("templates")
        self._built_in = {
            template.name: template
            for template in (
                Template.model_validate_json(file.read_bytes())
                for file in sorted(built_in.iterdir(), key=lambda file: file.name)
                if file.name.endswith(".json")
            )
        }

    def get(self, name: str) -> Template:
        """
        Raises:
            TemplateNotFound: there is none of that name; the hint names those there are.
            InvalidRequest: its file is not a template.
        """
        if name in self._built_in:
            return self._completed(self._built_in[name])
        if name in self._names():
            return self._completed(_read(self._path(name)))
        known = ", ".join([*self._built_in, *self._names()][:20])
        raise TemplateNotFound(f"There is no template {name[:80]!r}.", hint=f"There are: {known}.")

    def fitting(self, capabilities: Sequence[str]) -> Template:
        """The smallest that has them all: by memory, then processors, then disk.

        Raises:
            TemplateNotFound: none has; the hint says what each can.
        """
        known = self.all()
        found = [each for each in known if set(capabilities) <= set(each.capabilities)]
        if not found:
            told = [
                f"{each.name} ({', '.join(each.capabilities)})"
                for each in known
                if each.capabilities
            ]
            raise TemplateNotFound(
                f"No template has all of: {', '.join(capabilities)}.",
                hint=f"There are: {'; '.join(told[:20]) or 'none that say what they can'}.",
            )
        return min(found, key=lambda each: (each.memory_mib, each.cpus, each.disk_mib))

    def chosen(self, request: WorkspaceRequest) -> WorkspaceRequest:
        """The request by its template's name, whether it asks for that or for capabilities.

        Raises:
            TemplateNotFound: no template has them all.
        """
        if not request.capabilities:
            return request
        name = self.fitting(request.capabilities).name
        return request.model_copy(update={"template": name, "capabilities": []})

    def all(self) -> list[Template]:
        """All of them, the built-in ones first."""
        return [self._completed(each) for each in (*self._built_in.values(), *self._read_all())]

    def _completed(self, template: Template) -> Template:
        if "backend" in template.model_fields_set:
            return template
        return template.model_copy(update={"backend": self._backend})

    def add(self, template: Template) -> Template:
        """Keep a new template as a file.

        Raises:
            TemplateExists: there is one of that name.
        """
        if template.name in self._built_in:
            raise TemplateExists(
                f"The template {template.name!r} is built in and cannot be replaced.",
                hint="Choose another name.",
            )
        private_folder(self._folder)
        path = self._path(template.name)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            partial.write_text(template.model_dump_json(indent=2, exclude_defaults=True) + "\n")
            os.link(partial, path)
        except FileExistsError as error:
            raise TemplateExists(
                f"There is a template {template.name!r} already.",
                hint=f"Choose another name, or edit or remove {path}.",
            ) from error
        except OSError as error:
            raise DiskFull(f"{path} cannot be written: {error.strerror}.") from error
        finally:
            partial.unlink(missing_ok=True)
        return template

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _names(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob("*.json"))[:MAX_TEMPLATES]

    def _read_all(self) -> Iterator[Template]:
        for name in self._names():
            try:
                template = _read(self._path(name))
            except InvalidRequest as error:
                _log.warning("left out of the templates: %s", error)
                continue
            if name not in self._built_in:
                yield template


def _read(path: Path) -> Template:
    try:
        with path.open("rb") as file:
            template = _TEMPLATE.validate_json(file.read(MAX_FILE_BYTES))
    except ValidationError as error:
        raise invalid(error.errors(), where=str(path)) from error
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.") from error
    if template.name != path.stem:
        raise InvalidRequest(
            f"{path} holds the template {template.name!r}.", hint="Name the file after it."
        )
    return template
