"""Errors over the wire and back: the class for its code, and nothing else for anything else."""

from __future__ import annotations

import json

import pytest

from workspace import errors


@pytest.mark.parametrize("cls", errors.BY_CODE.values(), ids=lambda cls: cls.__name__)
def test_every_error_comes_back_as_itself(cls: type[errors.CarrelError]) -> None:
    error = cls("It failed.", hint="Do this.", details={"index": 1})
    back = errors.from_body(json.dumps(error.to_wire()).encode(), status=cls.status)
    assert type(back) is cls
    assert (back.message, back.hint, back.details) == ("It failed.", "Do this.", {"index": 1})


def test_codes_are_never_used_twice() -> None:
    # Some rooms have kinds of their own, which go over the wire as what they are kinds of.
    ours = [c for c in errors._tree(errors.CarrelError) if c.__module__ == errors.__name__]
    assert len(errors.BY_CODE) == len(ours)


@pytest.mark.parametrize(
    "body", [None, b"", b"<html>", b"\xff\xfe", b"[" * 100_000, b"7", b'{"message": 7}', b"[{}]"]
)
def test_what_is_no_error_of_ours_names_the_status(body: bytes | None) -> None:
    error = errors.from_body(body, status=502)
    assert type(error) is errors.CarrelError
    assert "HTTP 502" in error.message


def test_what_a_sandbox_says_is_cut_and_picks_no_other_class() -> None:
    said = {"code": "SystemExit", "message": "x" * 10_000, "hint": 5, "details": "no"}
    error = errors.from_wire(said, status=500)
    assert type(error) is errors.CarrelError
    assert len(error.message) == 4000
    assert (error.hint, error.details) == ("", {})
