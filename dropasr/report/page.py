"""A report as blocks, written out as Markdown (plots beside it) and as one HTML page with everything inside."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

from dropasr.report.tables import Table

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, sans-serif; color: #1d2433; background: #fff; margin: 0 auto; padding: 1rem; max-width: 92rem; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #d8dee9; padding-bottom: .2rem; }
p, li { max-width: 48rem; } p.lead { font-size: 1.08rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; text-align: right; border-bottom: 1px solid #e5e9f0; } td { white-space: nowrap; }
th { vertical-align: bottom; background: #f4f6fa; } td.left, th.left { text-align: left; }
tr.strong td { font-weight: 600; }
figure { margin: 1rem 0; } figcaption { font-size: .9rem; color: #4a5568; max-width: 48rem; } svg { max-width: 100%; height: auto; }
code { background: #f4f6fa; padding: .1rem .3rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) { body { padding: .7rem; } .wide svg { min-width: 34rem; } h1 { font-size: 1.35rem; } }
@media print { .wide { overflow: visible; } }
"""


@dataclass(frozen=True)
class Heading:
    """The title of a section."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph; `code` between backticks. `lead` paragraphs stand out."""

    text: str
    lead: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Figure:
    """A plot: the SVG element, the name of its file, and what it shows."""

    name: str
    svg: str
    caption: str


Block = Union[Heading, Text, Bullets, Figure, Table]


def to_markdown(title: str, blocks: Sequence[Block], plots: str = "plots") -> str:
    """The report as Markdown; figures are links into the folder `plots`."""
    parts = [f"# {title}"]
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"## {block.text}")
        elif isinstance(block, Text):
            parts.append(f"**{block.text}**" if block.lead else block.text)
        elif isinstance(block, Bullets):
            parts.append("\n".join(f"- {item}" for item in block.items))
        elif isinstance(block, Table):
            parts.append(block.markdown())
        else:
            parts.append(f"![{block.caption}]({plots}/{block.name}.svg)\n\n{block.caption}")
    return "\n\n".join(parts) + "\n"


def _inline(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text, quote=False))


def _html_table(table: Table) -> str:
    def cells(line: Sequence[str], tag: str) -> str:
        marked = [f"<{tag}{' class=left' if i in table.left else ''}>{_inline(cell)}</{tag}>" for i, cell in enumerate(line)]
        return "".join(marked)

    rows = []
    for line in table.lines:
        strong = " class=strong" if "reference" in line else ""
        rows.append(f"<tr{strong}>{cells(line, 'td')}</tr>")
    body = "\n".join(rows)
    return f'<div class="wide"><table>\n<thead><tr>{cells(table.header, "th")}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """The report as one HTML page that needs no other file and no network."""
    parts = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"<h2>{_inline(block.text)}</h2>")
        elif isinstance(block, Text):
            parts.append(f"<p{' class=lead' if block.lead else ''}>{_inline(block.text)}</p>")
        elif isinstance(block, Bullets):
            parts.append("<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in block.items) + "</ul>")
        elif isinstance(block, Table):
            parts.append(_html_table(block))
        else:
            caption = _inline(block.caption)
            parts.append(f'<figure><div class="wide">{block.svg}</div><figcaption>{caption}</figcaption></figure>')
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<meta charset="utf-8">\n{viewport}\n<title>{html.escape(title)}</title>'
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head>\n{head}\n<style>{STYLE}</style></head><body>',
            f"<h1>{html.escape(title)}</h1>",
            *parts,
            "</body></html>\n",
        ]
    )
