#!/usr/bin/env python3
"""Opens pages of made-up runs in Chromium, and checks that people can read them.

Each page must be small, load nothing, run without scripts, fit a phone, have no violation that axe-core finds, in
light and dark, and be printed on white. One has texts that would be markup if they were not escaped, another is of a
run of 20,000 AMIs in 5,100 targets. `make check-page` builds the program that draws them and calls this script.

  tests/page_check.py [--binaries target/debug] [PAGE.html...]
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from demo import parser_with_binaries

BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
# The page is a file, and the browser must not call home.
BROWSER_ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
MAX_BYTES = 1024 * 1024
WIDTHS = [360, 800, 1280]
SCHEMES = ["light", "dark"]
WHITE = "rgb(255, 255, 255)"
# The elements that load or run something.
ACTIVE = "script, img, iframe, object, embed, link, audio, video, form, base"

# What is wrong with the document's structure: heading levels that are skipped, tables without a caption or headers
# with a scope, links to nowhere, IDs that are given twice.
STRUCTURE = """() => {
  const problems = [];
  const levels = [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map(one => Number(one.tagName[1]));
  if (levels.filter(level => level === 1).length !== 1) problems.push(`there are ${levels.length} h1`);
  levels.reduce((before, level) => { if (level > before + 1) problems.push(`h${level} follows h${before}`); return level; }, 0);
  for (const table of document.querySelectorAll('table')) {
    if (!table.caption) problems.push('a table has no caption');
    for (const header of table.querySelectorAll('th')) if (!header.scope) problems.push(`no scope: ${header.textContent}`);
    for (const row of table.querySelectorAll('tbody tr')) if (!row.querySelector('th')) problems.push('a row has no header');
  }
  const ids = [...document.querySelectorAll('[id]')].map(one => one.id);
  if (new Set(ids).size !== ids.length) problems.push('an ID is given twice');
  for (const element of document.querySelectorAll('[href], [src]')) {
    const target = element.getAttribute('href') ?? element.getAttribute('src');
    if (!target.startsWith('#')) problems.push(`${element.tagName} refers to ${target}`);
    else if (!ids.includes(target.slice(1))) problems.push(`nothing has the ID of ${target}`);
  }
  return problems;
}"""


class Checks:
    """The problems of one page, by what was looked at."""

    def __init__(self, name):
        self.name = name
        self.problems = []

    def expect(self, is_right, problem):
        if not is_right:
            self.problems.append(f"{self.name}: {problem}")


def check_page(browser, axe, path):
    checks = Checks(path.name)
    size = path.stat().st_size
    checks.expect(size <= MAX_BYTES, f"{size} bytes")
    for scheme in SCHEMES:
        for width in WIDTHS:
            check_in(browser, axe, path, scheme, width, checks)
    check_print(browser, path, checks)
    return checks.problems


def check_in(browser, axe, path, scheme, width, checks):
    """Opens the page with scripts, which must find nothing to do, and without; both must look the same."""
    where = f"{scheme}, {width} px wide"
    pictures = []
    for scripts in (True, False):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=scripts
        )
        page = context.new_page()
        loaded = []
        page.on("request", lambda request, loaded=loaded: loaded.append(request.url))
        page.on("console", lambda message: checks.expect(False, f"{where}: console: {message.text}"))
        page.on("pageerror", lambda error: checks.expect(False, f"{where}: {error}"))
        page.on("dialog", lambda dialog: (checks.expect(False, f"{where}: dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(path.as_uri())
        pictures.append(page.screenshot())
        heading = page.locator("h1")
        checks.expect(heading.count() == 1 and heading.is_visible(), f"{where}: no heading is seen")
        if scripts:
            check_document(page, axe, where, checks)
        checks.expect(loaded == [path.as_uri()], f"{where}: loads {loaded[1:]}")
        context.close()
    checks.expect(pictures[0] == pictures[1], f"{where}: it looks otherwise without scripts")


def check_document(page, axe, where, checks):
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    checks.expect(overflow <= 0, f"{where}: {overflow} px too wide")
    active = page.evaluate(f"[...document.querySelectorAll({ACTIVE!r})].map(one => one.outerHTML)")
    checks.expect(not active, f"{where}: has {active}")
    for problem in page.evaluate(STRUCTURE):
        checks.expect(False, f"{where}: {problem}")
    results = axe.run(page).response
    checks.expect(results["passes"], f"{where}: axe-core has checked nothing")
    for violation in results["violations"]:
        nodes = [node["html"][:200] for node in violation["nodes"][:3]]
        checks.expect(False, f"{where}: {violation['id']}: {violation['help']}: {nodes}")


def check_print(browser, path, checks):
    """Paper is white, whatever the screen is; nothing is cut off at its edge."""
    page = browser.new_page(viewport={"width": 700, "height": 900}, color_scheme="dark")
    page.goto(path.as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    checks.expect(background == WHITE, f"printed on {background}")
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    checks.expect(overflow <= 0, f"{overflow} px too wide for paper")
    page.close()


def browser_program():
    """The browser of the machine; None if it has none."""
    named = os.environ.get("CHROMIUM")
    found = (shutil.which(name) for name in ([named] if named else BROWSERS))
    return next((program for program in found if program), None)


def check_all(program, pages):
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=BROWSER_ARGUMENTS)
        axe = Axe()
        problems = [problem for page in pages for problem in check_page(browser, axe, page)]
        print(f"check-page: {len(pages)} pages in Chromium {browser.version}: {len(problems)} problems")
        browser.close()
    return problems


def main():
    parser = parser_with_binaries(__doc__)
    parser.add_argument("pages", type=Path, nargs="*", help="other pages than the made-up ones")
    arguments = parser.parse_args()
    program = browser_program()
    if program is None:
        print(f"check-page: pages not checked in a browser: there is no {' or '.join(BROWSERS)}, and CHROMIUM names none")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        pages = [page.resolve() for page in arguments.pages]
        if not pages:
            subprocess.run([arguments.binaries.resolve() / "examples" / "sample_pages", folder], check=True)
            pages = sorted(Path(folder).glob("*.html"))
        problems = check_all(program, pages)
    for problem in problems:
        print(f"  {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
