"""What `carrel bench` measures: Carrel beside the way its peers do the same, on one X display.

:mod:`benchmarks.run` goes through the tasks in one desktop, with :mod:`benchmarks.ours` for Carrel
and :mod:`benchmarks.peers` for the others, whose methods are written from their description and
run inside that very desktop (:mod:`benchmarks.inside`). :mod:`benchmarks.report` and
:mod:`benchmarks.plot` show what came out. What cannot be measured has no row.

:mod:`benchmarks.fleet` measures many desktops at once, over :mod:`benchmarks.churn`.
"""
