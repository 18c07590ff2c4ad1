"""Tables for a terminal and for a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Columns of text, those of `right` aligned to the right."""
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [cell.rjust(widths[at]) if at in right else cell.ljust(widths[at]) for at, cell in enumerate(row)]
        return ("  " + "  ".join(cells)).rstrip()

    return "\n".join([line(head), *map(line, rows)])


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, marks: Sequence[str] = ()) -> str:
    """An HTML table; `marks` are colours of the rows' first cells. All text is escaped."""
    header = "".join(f"<th style='text-align:left'>{html.escape(cell)}</th>" for cell in head)
    body = ""
    for number, row in enumerate(rows):
        colour = f" style='text-align:left;color:{marks[number]}'" if marks else " style='text-align:left'"
        cells = "".join(f"<td{colour if at == 0 else ''}>{html.escape(cell)}</td>" for at, cell in enumerate(row))
        body += f"<tr>{cells}</tr>"
    return f"<p>{html.escape(caption)}</p><table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"


def count(number: int, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
