#!/usr/bin/env python3
"""Draws the top of the demo's page, in light and dark.

  tests/page_picture.py FOLDER

Writes page-light.png and page-dark.png. `make picture` runs the demo and calls this script.
"""

import sys
from pathlib import Path

from demo import LATEST_PAGE, stored
from page_check import BROWSER_ARGUMENTS, SCHEMES, browser_program

SIZE = {"width": 1000, "height": 1130}
MAX_BYTES = 200_000


def main():
    from playwright.sync_api import sync_playwright

    folder, program, page = Path(sys.argv[1]), browser_program(), stored(LATEST_PAGE)
    if program is None:
        sys.exit("page_picture: there is no Chromium to draw the page with: name one with CHROMIUM")
    if not page.exists():
        sys.exit(f"page_picture: {page} does not exist: run `make demo`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=BROWSER_ARGUMENTS)
        for scheme in SCHEMES:
            tab = browser.new_page(viewport=SIZE, color_scheme=scheme)
            tab.goto(page.as_uri())
            picture = tab.screenshot(path=folder / f"page-{scheme}.png")
            if len(picture) > MAX_BYTES:
                sys.exit(f"page_picture: the picture has {len(picture)} bytes")
        browser.close()


if __name__ == "__main__":
    main()
