"""`carrel audit`: whether the log is as it was written, and the log as a file.

Both read the database itself, of this machine's settings, whether a controller runs or not.
"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import output
from controller.cli.output import Json

if TYPE_CHECKING:
    from controller.settings import Settings
    from controller.store.chain import Finding
    from controller.store.signing import Signer
    from controller.store.verifying import Report

audit_app = typer.Typer(no_args_is_help=True, help="Verify the log of events, or export it.")
Of = Annotated[str | None, typer.Option("--workspace", metavar="ID", help="Of one alone.")]


def add_to(app: typer.Typer) -> None:
    app.add_typer(audit_app, name="audit")


@audit_app.command()
def verify(
    file: Annotated[
        Path | None, typer.Argument(help="What `carrel audit export` wrote; default: the database.")
    ] = None,
    workspace: Of = None,
    json: Json = False,
) -> None:
    """Look for lines that were removed, changed or put in. Exit code 1 if anything is wrong."""
    from controller.cli import process
    from controller.cli.connect import run
    from controller.store import exporting, verifying
    from workspace.errors import FileMissing

    settings = process.settings()
    found: list[Finding] = []
    signer = _signer(settings)

    def tell(finding: Finding) -> None:
        if json:
            found.append(finding)
        else:
            print(output.inert(f"{_whose(finding)}: {finding.what}: {finding.why}"), flush=True)

    with output.progress("Verifying the log"):
        if file is None:
            report = run(
                lambda: verifying.verify(settings.database, signer, tell, workspace=workspace)
            )
        else:
            try:
                with file.open("rb") as lines:
                    report = exporting.verify_file(lines, signer, tell)
            except OSError as error:
                raise FileMissing(f"{file} cannot be read: {error.strerror}.", hint="") from error
    output.result(_document(report, found), _told(report))
    if report.findings:
        raise typer.Exit(1)


@audit_app.command()
def export(
    workspace: Of = None,
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="In UTC.")
    ] = None,
) -> None:
    """Write the log to stdout as JSON lines, which `carrel audit verify FILE` understands."""
    from datetime import timezone

    from controller.cli import process
    from controller.cli.connect import run
    from controller.store.exporting import export

    settings = process.settings()
    begin = None if since is None else since.replace(tzinfo=timezone.utc)

    async def main() -> None:
        lines = export(settings.database, _signer(settings), workspace=workspace, since=begin)
        async for some in lines:
            sys.stdout.buffer.write(some)
        sys.stdout.buffer.flush()

    run(main)


def _signer(settings: Settings) -> Signer | None:
    """By the controllers' secret, if it is here."""
    from controller.store.signing import Signer, key_of

    secret = settings.secret.get_secret_value() if settings.secret else ""
    if not secret and settings.secret_file.is_file():
        secret = settings.secret_file.read_text(encoding="utf-8").strip()
    return Signer(key_of(secret.encode())) if secret else None


def _whose(finding: Finding) -> str:
    if finding.chain is None:
        return "the log"
    return f"workspace {finding.chain}" if finding.chain else "no workspace's"


def _document(report: Report, found: list[Finding]) -> dict[str, object]:
    newest = report.newest
    return {
        "ok": not report.findings,
        "lines": report.lines,
        "chains": report.chains,
        "checkpoints": report.checkpoints,
        "newest_checkpoint": {"number": newest.number, "hash": newest.hash} if newest else None,
        "unsigned_lines": report.unsigned,
        "signatures_checked": report.is_signed,
        "findings": [finding._asdict() for finding in found],
    }


def _told(report: Report) -> str:
    told = f"{report.lines} lines in {report.chains} chains"
    if report.checkpoints:
        told += f", {report.checkpoints} checkpoints"
    if report.newest is not None:
        told += f" (the newest: {report.newest.number} {report.newest.hash})"
    if report.unsigned:
        told += f", {report.unsigned} lines since"
    if not report.is_signed:
        told += "; no signature was checked: the controllers' secret is not here"
    return told + (f"; {report.findings} findings" if report.findings else ": as it was written")
