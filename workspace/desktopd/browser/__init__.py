"""The browser as an interface: Chromium, attached over CDP by Playwright.

``chromium`` finds or starts the browser that the person watches, ``driver`` attaches to it, and
``attachment`` keeps that and the ``tabs``, with what is known of each. ``reading`` (with
``walker``, its JavaScript, and ``outline``, its text) reads pages, ``acting`` plays actions on
them, ``asking`` is for scripts, waits, logs and pictures, ``downloads`` follows files. ``pages`` is
all of it, as the routes call it. Nothing of it is loaded before the first call.
"""
