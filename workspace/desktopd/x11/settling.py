"""When the screen has come to rest: decided from the times and boxes of its repaints alone.

What moves by itself is no unrest. That is, in the order in which it is known:

- what moved already while nobody acted (:class:`Background`): spinners, videos, clocks, carets;
- a caret that blinks where it appeared;
- what repaints much the same box at a steady pace, and has done so for :data:`LOOP_SECONDS`: until
  then it may be a transition that the action started, or say that a page is loading.

All else is the action's effect. It is over after a pause of :data:`QUIET_SECONDS`: some frames of
a browser (60 in a second). One that went on for longer is given longer pauses, and so is one that
opened a window or changed its title, since programs fill a window in stages.

A repaint that takes in more than what moves (a browser paints one box around all of a frame's
changes) is unrest once. Whatever lies wholly within a box that moves by itself cannot be told
from it. What looks as before once it is quiet was no unrest (:meth:`Settling.calm`).

Pure: no clock and no X; ``now`` is in seconds of any one clock.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import combinations, pairwise

from workspace.actions import Region
from workspace.desktopd.x11.boxes import (
    Box,
    absorb,
    are_alike,
    do_touch,
    is_within,
    join,
    merge,
    regions,
)

FIRST_CHANGE_SECONDS = 0.3
QUIET_SECONDS = 0.045
LONGEST_QUIET_SECONDS = 0.1
STAGED_QUIET_SECONDS = 0.12
LOOP_SECONDS = 0.6
SMALL_LOOP_SECONDS = 0.35
_GROWTH = 0.25  # of the time that the effect went on, added to its pause
_SMALL = (128, 128)
_CARET = (10, 48)  # the largest a blinking text caret gets, in pixels
_MAX_TRACKS = 64
_MAX_PAIRED = 8  # of what moves, for the boxes around two of them
_MIN_GAP = 0.004  # reports closer than that are of one repaint
_LATE_FACTOR, _LATE_SECONDS = 2.5, 0.01  # how late a repaint may be and still be in step
_MAX_PAUSE = 1.5  # seconds that a place seen once is remembered: clocks tick once in one
# How often, and from the first to the last for how long, it is seen before it is known to move.
_DOUBT_SECONDS = 0.1
_SIGHTINGS, _CARET_SIGHTINGS, _SIGHTED_SECONDS = 3, 2, 0.09


def is_caret(box: Box) -> bool:
    """Whether it has the shape of a text caret."""
    return _fits(box, _CARET)


def _fits(box: Box, size: tuple[int, int]) -> bool:
    return box[2] - box[0] <= size[0] and box[3] - box[1] <= size[1]


class Track:
    """Repaints of much the same box."""

    def __init__(self, box: Box, now: float) -> None:
        self.box = box  # the first: what later ones are compared with, so that it cannot creep
        self.cover = box
        self.last = now
        self.armed: float | None = None  # since when a repaint there would have been reported
        self.missed = 0  # looks, one after the other, that did not see it
        self.is_known = False  # to move by itself
        self.lull = -1  # which one it was seen in last, since when in it, and how often
        self.seen_since = now
        self.seen_at = now
        self.seen = 0
        self.gap: float | None = None  # the shortest that was seen
        self._run: deque[float] = deque([now], maxlen=9)  # repaints in step with each other
        self._run_began = now

    def add(self, box: Box, now: float) -> None:
        """Note a repaint."""
        self.cover = join(self.cover, box)
        self.armed, self.missed = None, 0
        gap = now - self.last
        if gap < _MIN_GAP:
            return
        if len(self._run) > 1 and gap > _LATE_FACTOR * self._pace() + _LATE_SECONDS:
            self._run.clear()
            self._run_began = now
        self.last = now
        self.gap = gap if self.gap is None else min(self.gap, gap)
        self._run.append(now)

    def _pace(self) -> float:
        run = list(self._run)
        return statistics.median(b - a for a, b in pairwise(run))

    def is_looping(self) -> bool:
        """Whether it has been repainted steadily for so long that it will hardly end."""
        seconds = SMALL_LOOP_SECONDS if _fits(self.box, _SMALL) else LOOP_SECONDS
        return len(self._run) >= 3 and self.last - self._run_began >= seconds


def _find(tracks: Iterable[Track], box: Box) -> Track | None:
    return next((track for track in tracks if are_alike(track.box, box)), None)


class Background:
    """What moves while nobody acts, from what is seen of it in some short looks.

    A place that was repainted is reported once, until :meth:`arm` makes it report again. So a look
    arms many times and sees each repaint whole; between looks comes one report of each place, in
    pieces where repaints overlap.

    What answers each of many actions, soon or late, is repainted often as well: so only what is
    seen often enough in one lull, from one action to the next, is known to move by itself.
    """

    def __init__(self) -> None:
        self._tracks: list[Track] = []
        self._lull = 0

    def act(self) -> None:
        """Someone acts: a lull ends, and another begins."""
        self._lull += 1

    def arm(self, now: float) -> None:
        """Every place reports its next repaint, from now on."""
        self._forget(now)
        for track in self._tracks:
            if track.armed is None:
                track.armed = now

    def see(self, box: Box, now: float, *, is_late: bool = False) -> None:
        """Note a repaint outside of any action; ``is_late`` if it may be the answer to one."""
        for track in self._tracks:
            if do_touch(track.cover, box):
                track.armed = None
        known = _find(self._tracks, box)
        if known is not None:
            known.add(box, now)
            if not is_late:
                self._sight(known, now)
        elif len(self._tracks) < _MAX_TRACKS and not is_late:
            self._tracks.append(Track(box, now))
            self._sight(self._tracks[-1], now)

    def _sight(self, track: Track, now: float) -> None:
        if track.lull != self._lull:
            track.lull, track.seen_since, track.seen = self._lull, now, 0
        elif now - track.seen_at < _MIN_GAP:
            return  # of the same repaint
        track.seen, track.seen_at = track.seen + 1, now
        needed = _CARET_SIGHTINGS if is_caret(track.box) else _SIGHTINGS
        if track.seen >= needed and now - track.seen_since >= _SIGHTED_SECONDS:
            track.is_known = True

    def look_away(self, began: float, now: float) -> None:
        """A look ends: what is so fast that it had to be seen, and was not again, has stopped."""
        for track in self._tracks:
            if track.gap is not None and _LATE_FACTOR * track.gap < now - began < now - track.last:
                track.missed += 1
        self._tracks = [track for track in self._tracks if track.missed < 2]

    def adopt(self, track: Track) -> None:
        """Take over what an action started and what moves by itself now."""
        known = _find(self._tracks, track.box)
        if known is not None:
            self._tracks.remove(known)
        if len(self._tracks) < _MAX_TRACKS:
            track.is_known = True
            self._tracks.append(track)

    def drop(self, track: Track) -> None:
        """It moves by itself no more."""
        if track in self._tracks:
            self._tracks.remove(track)

    def moving(self, now: float) -> list[Track]:
        """What moves by itself now."""
        self._forget(now)
        return [track for track in self._tracks if track.is_known]

    def _forget(self, now: float) -> None:
        """Drop what has had the time to move again, and its place was not repainted at all."""
        self._tracks = [
            track
            for track in self._tracks
            if track.armed is None
            or now - track.armed <= (_MAX_PAUSE if track.gap is None else 1.5 * track.gap + 0.25)
        ]


class Settling:
    """One watch over the screen, from before the first action to the picture after the last."""

    def __init__(self, background: Background, now: float) -> None:
        self._background = background
        self._moving = background.moving(now)
        self._moved: dict[Track, Box] = {}  # those of them that were seen since, and where
        self._tracks: list[Track] = []  # all else, since the last action began
        self._painted: list[Box] = []
        self.paints = 0  # how many repaints that was
        self._is_staged = False
        self._since = now  # when the wait for a first change began
        self._first: float | None = None  # of the unrest since the last action began
        self._last: float | None = None

    def paint(self, box: Box, now: float) -> None:
        """A box was repainted."""
        if self._moves_by_itself(box, now):
            return
        self.paints += 1
        absorb(self._painted, box)
        if len(self._painted) > _MAX_TRACKS:
            self._painted = merge(self._painted)
        track = _find(self._tracks, box)
        if track is None:
            if len(self._tracks) < _MAX_TRACKS:
                self._tracks.append(Track(box, now))
        else:
            track.add(box, now)
            if is_caret(box) or track.is_looping():
                return
        self._first = now if self._first is None else self._first
        self._last = now

    def _moves_by_itself(self, box: Box, now: float) -> bool:
        """Whether it is a repaint of what moves by itself: of one, or of two around both."""
        one = _find(self._moving, box)
        if one is not None:
            one.add(box, now)
            found: tuple[Track, ...] = (one,)
        else:
            found = next(self._pairs(box), ())
        for track in found:
            self._moved[track] = join(self._moved.get(track, box), box)
        return bool(found)

    def _pairs(self, box: Box) -> Iterator[tuple[Track, Track]]:
        return (
            pair
            for pair in combinations(self._moving[:_MAX_PAIRED], 2)
            if are_alike(join(pair[0].box, pair[1].box), box)
        )

    def stage(self) -> None:
        """A window opened, closed, or took the focus or another title."""
        self._is_staged = True

    def expect(self, now: float) -> None:
        """The next action begins: what came before is no answer to it."""
        self._tracks.clear()
        self._first = self._last = None
        self._since = now

    def wait(self, now: float) -> None:
        """The last action is done: wait from now on."""
        self._since = now
        if self._last is not None:
            self._last = now  # what has changed already may have changed again, unreported

    def due(self) -> float:
        """When the screen will have come to rest, if nothing is repainted until then."""
        if self._last is None:
            return self._since + FIRST_CHANGE_SECONDS
        return self._last + self._quiet()

    def lull(self) -> float | None:
        """When it will look as if it came to rest, which is not sure before :meth:`due`."""
        return None if self._last is None else self._last + QUIET_SECONDS / 2

    def _quiet(self) -> float:
        if self._first is None or self._last is None:
            return QUIET_SECONDS
        grown = QUIET_SECONDS + _GROWTH * (self._last - self._first)
        return max(
            min(grown, LONGEST_QUIET_SECONDS), STAGED_QUIET_SECONDS if self._is_staged else 0.0
        )

    @property
    def is_restless(self) -> bool:
        """Whether there was unrest since the last action began."""
        return self._last is not None

    @property
    def painted(self) -> list[Box]:
        """What was repainted since the watch began, but for what moves by itself."""
        return list(self._painted)

    def effect(self, boxes: Iterable[Box]) -> list[Box]:
        """Those of the boxes that do not lie in what moves by itself."""
        covers = [track.cover for track in self._moving]
        return [box for box in boxes if not any(is_within(box, cover) for cover in covers)]

    def calm(self) -> None:
        """All that was repainted looks as it did before: it was no unrest."""
        self._tracks.clear()
        self._first = self._last = None

    def doubt(self, now: float) -> bool:
        """Whether something that moved by itself has stopped, so that what it did was an effect.

        It was repainted since the watch began, and then not again for longer than it takes.
        """
        stopped = [
            track
            for track in self._moved
            if track.gap is not None
            and now - track.last > _LATE_FACTOR * track.gap + _DOUBT_SECONDS
        ]
        for track in stopped:
            self._moving.remove(track)
            self._background.drop(track)
            absorb(self._painted, self._moved.pop(track))
            self._first = self._last = track.last
        return bool(stopped)

    def still_changing(self, now: float) -> list[Region]:
        """What moves by itself, and what has not been quiet for long enough."""
        pause = self._quiet()
        moving = [track for track in self._tracks if track.is_looping() or now - track.last < pause]
        return regions(track.cover for track in [*self._moved, *moving])

    def end(self) -> None:
        """Nobody waits any longer: leave behind what is known to move by itself now."""
        for track in self._tracks:
            if track.is_looping():
                self._background.adopt(track)
