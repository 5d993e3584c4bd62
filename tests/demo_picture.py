#!/usr/bin/env python3
"""Draws what the demo prints as a picture of a terminal.

    COLUMNS=118 tests/demo.py --brief | tests/demo_picture.py docs/demo.svg

The SVG refers to no other file: it uses the reader's own monospaced font. `make picture` calls
this script.
"""

import io
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

COLUMNS = 118
TITLE = "make demo (shortened)"

STYLES = {
    r"^(Findings|Targets): .*$": "bold",
    r"^\$ .*$": "bold",
    r"^  (unarchived|failed|expired) \(\d+\)$": "bold red",
    r"^  (expiring|stuck|uncovered) \(\d+\)$": "bold yellow",
    r"^  (unrecognised_state|undated) \(\d+\)$": "bold magenta",
    r"\bami-\w+": "cyan",
    r"\bamiur-\w+": "blue",
    r"(?<=  )(complete|ok)\b": "green",
    r"(?<=  )failed(?=  )": "red",
    r"(?<=  )partial(?=  )": "yellow",
    r"\b(clean|sound)$": "bold green",
}

# Background and text, then black, red, green, yellow, blue, magenta, cyan and white.
THEME = TerminalTheme(
    (22, 27, 34),
    (201, 209, 217),
    [
        *((72, 79, 88), (255, 123, 114), (63, 185, 80), (210, 153, 34)),
        *((121, 160, 210), (188, 140, 255), (57, 197, 207), (177, 186, 196)),
    ],
)

# Rich's own template loads fonts from another host.
TEMPLATE = """\
<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{unique_id}-name" xmlns="http://www.w3.org/2000/svg">
<title id="{unique_id}-name">Terminal: TITLE</title>
<style>
.{unique_id}-matrix, .{unique_id}-title {{
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace;
}}
.{unique_id}-matrix {{ font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def shortened(output):
    """Returns the output from its first heading on, without the line that names the logs."""
    return "Findings:" + output.partition("\nFindings:")[2].rpartition("\nThe logs are in")[0]


def styled(output):
    lines = [Text(line) for line in output.splitlines()]
    for line in lines:
        for pattern, style in STYLES.items():
            line.highlight_regex(pattern, style)
    return lines


def draw(lines):
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), color_system="standard", force_terminal=True)
    for line in lines:
        console.print(line, overflow="fold", no_wrap=False)
    # A fixed ID: the same output gives the same bytes.
    return console.export_svg(title=TITLE, theme=THEME, code_format=TEMPLATE.replace("TITLE", TITLE), unique_id="demo")


def main():
    output = sys.stdin.read()
    if "\nFindings:" not in output or "\n$ image-usage verify" not in output:
        sys.exit("demo_picture: this is not the output of a demo that succeeded")
    Path(sys.argv[1]).write_text(draw(styled(shortened(output))))


if __name__ == "__main__":
    main()
