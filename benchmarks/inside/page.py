"""How a page is read or clicked without a connection that is kept: a process for each call.

Run in the desktop, with the folder of Playwright's package: ``page.py read|click FOLDER``. It
attaches to the same browser, does the one thing by Playwright's own means, and ends.
"""

from __future__ import annotations

import sys

sys.path.append(sys.argv[2])

from playwright.sync_api import sync_playwright  # found in the folder above


def main() -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.connect_over_cdp("http://127.0.0.1:9222", no_defaults=True)
        page = browser.contexts[0].pages[0]
        if sys.argv[1] == "read":
            print(len(page.aria_snapshot(mode="ai", boxes=True)))
        else:
            page.get_by_role("button").first.click()


if __name__ == "__main__":
    main()
