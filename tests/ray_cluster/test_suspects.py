"""How long a node is avoided."""

from __future__ import annotations

from ray_cluster.suspects import FIRST_SECONDS, MOST_SECONDS, Suspects


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_longer_each_time_and_not_at_all_once_it_works() -> None:
    clock = Clock()
    suspects = Suspects(clock)
    expected = FIRST_SECONDS
    for _ in range(10):
        suspects.blame("n1", "no bwrap")
        suspects.blame("n1", "no bwrap")  # of what was under way: not a second time
        assert suspects.now() == {"n1": "no bwrap"}
        clock.now += expected - 0.1
        assert suspects.now()
        clock.now += 0.2
        assert suspects.now() == {}
        expected = min(MOST_SECONDS, expected * 2)
    suspects.blame("n1", "again")
    suspects.blame("n2", "another")
    suspects.blame("n3", "again")
    suspects.clear("n1")  # what was wrong with n3 too
    assert suspects.now() == {"n2": "another"}
    suspects.blame("n1", "anew")
    clock.now += FIRST_SECONDS + 1
    assert suspects.now() == {}
