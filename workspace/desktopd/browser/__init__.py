"""The browser as an interface: Chromium, attached over CDP by Playwright.

``chromium`` finds or starts the browser that the person watches, ``driver`` attaches to it,
``tabs`` keeps what is known of each page, ``reading`` (with ``walker``, its JavaScript, and
``outline``, its text) reads pages, ``acting`` plays actions on them, ``downloads`` follows files,
and ``pages`` is all of it as one thing, which the routes call. Nothing of it is loaded before the
first call.
"""
