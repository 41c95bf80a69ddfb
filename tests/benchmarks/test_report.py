"""How measurements are told: nothing looks better than it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import plot, report
from benchmarks.inside.play import TEXT
from benchmarks.rows import DESKTOPD, REST, Measured, ratio, up

FOUND = [
    Measured("click", DESKTOPD, "ms", (0.411, 0.5)),
    Measured("click", REST, "ms", (3.001, 2.0, 4.0)),
    Measured("click", "E2B", "ms", (110.2,)),
    Measured("type", REST, "ms", (7.0,), "exact"),
    Measured("type", "Cua", "ms", (1.0,), "mangled", fails=True),
    Measured("memory", DESKTOPD, "MiB", (150.4,)),
]


@pytest.mark.parametrize(
    ("samples", "p50", "p95"),
    [
        ((1.0,), 1.0, 1.0),
        ((1.0, 2.0), 1.5, 2.0),
        ((3.0, 1.0, 2.0), 2.0, 3.0),
        (tuple(map(float, range(1, 101))), 50.5, 95.0),
    ],
)
def test_the_median_and_the_95th_percentile(
    samples: tuple[float, ...], p50: float, p95: float
) -> None:
    measured = Measured("", "", "ms", samples)
    assert (measured.p50, measured.p95) == (p50, p95)


def test_times_are_rounded_up_and_ratios_down() -> None:
    assert [up(3.001, 2), up(3.0, 2), up(0.1 + 0.2, 1)] == [3.01, 3.0, 0.3]
    ours = Measured("", REST, "ms", (3.0,))
    assert ratio(Measured("", "", "ms", (8.99,)), ours) == 2.9
    assert ratio(Measured("", "", "ms", (110.0,)), ours) == 36


def test_a_row_names_who_was_measured_at_what_and_what_is_to_be_known_of_it() -> None:
    name = "type: Cua (mangled)"
    assert FOUND[4].row() == {"name": name, "unit": "ms", "p50": 1.0, "p95": 1.0, "n": 1}


def test_the_readmes_table() -> None:
    assert report.markdown(FOUND).splitlines() == [
        "| | in desktopd | through REST | E2B | Cua |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| click | 0.46 ms | **3.1 ms** | 111 ms (36x) | |",
        "| type | | **7 ms** | | 1 ms, mangled |",
        "| memory | 151 MiB | | | |",
    ]


def test_what_fails_is_not_compared() -> None:
    told = {line[:2]: line[5] for line in report.lines(FOUND)}
    assert told["", "E2B"] == "36"
    assert told["", "Cua"] == ""


def test_the_plot_is_a_picture_of_what_has_a_peer(tmp_path: Path) -> None:
    plot.draw(FOUND, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(OSError, match="nowhere"):
        plot.draw(FOUND, tmp_path / "nowhere" / "plot.png")


def test_the_text_that_is_typed_is_of_fifty_characters() -> None:
    assert len(TEXT) == 50
