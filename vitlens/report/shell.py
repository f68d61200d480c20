"""What every page is built of: the document around it, its sections, and the files beside this one."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from string import Template

# The policy makes the browser itself refuse any request, whatever a label may hold.
PAGE = Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; \
style-src 'unsafe-inline'; img-src data: blob:">
<meta name="generator" content="vitlens">
<title>$title</title>
<style>
$css</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header>
<h1>$title</h1>
$subject
</header>
<nav aria-label="Contents">$contents</nav>
<main>
<span id="main" tabindex="-1"></span>
$body
</main>
$data
<script>$plotly</script>
<script>
$script</script>
</body>
</html>
"""
)


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading of its own.

    Attributes:
        heading: plain text.
        text: HTML.
        figures: element and heading of each figure in it.
    """

    heading: str
    text: str
    figures: Sequence[tuple[str, str]] = ()

    @property
    def element(self) -> str:
        """The section's id."""
        return "section-" + re.sub(r"[^a-z0-9]+", "-", self.heading.lower()).strip("-")

    @property
    def link(self) -> str:
        """The section in the page's contents, and below it its figures."""
        inner = "".join(
            f'<li><a href="#{element}">{html.escape(heading)}</a></li>' for element, heading in self.figures
        )
        link = f'<a href="#{self.element}">{html.escape(self.heading)}</a>'
        return f"<li>{link}{f'<ul>{inner}</ul>' if inner else ''}</li>"


def contents(sections: Sequence[Section]) -> str:
    """The list of sections, as links."""
    return f"<ul>{''.join(section.link for section in sections)}</ul>"


def body(sections: Sequence[Section]) -> str:
    """The sections, each under its heading."""
    return "\n".join(
        f'<section id="{section.element}" aria-label="{html.escape(section.heading)}">\n'
        f"<h2>{html.escape(section.heading)}</h2>\n"
        f"{section.text}\n</section>"
        for section in sections
    )


def asset(name: str) -> str:
    """A style sheet or script that lies beside this file."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def data_block(element: str, content: str) -> str:
    """JSON that a script of the page reads; `<` is written so that no text can end the element."""
    safe = content.replace("<", "\\u003c")
    return f'<script type="application/json" id="{element}">{safe}</script>\n'
