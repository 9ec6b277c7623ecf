"""Tables of the documentation that commands fill in, row by row."""

import pathlib
from collections.abc import Sequence

VERSIONS = pathlib.Path(__file__).parents[1] / "docs" / "versions.md"


def record(
    page: pathlib.Path, header: Sequence[str], keys: int, rows: Sequence
) -> None:
    """Put rows into the table of a page that has this header.

    Args:
        page: a Markdown file.
        header: the names of the columns.
        keys: how many cells name a row; one of the same name is replaced.
        rows: of as many cells as the header has.
    """
    text = page.read_text(encoding="utf-8")
    page.write_text(with_rows(text, header, keys, rows), encoding="utf-8")


def with_rows(
    text: str, header: Sequence[str], keys: int, rows: Sequence
) -> str:
    """The text of a page with these rows in its table; see `record`."""
    lines = text.splitlines()
    start = lines.index(_line(header)) + 2
    end = start
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    table = {tuple(_cells(line)[:keys]): line for line in lines[start:end]}
    for row in rows:
        cells = [str(cell) for cell in row]
        table[tuple(cells[:keys])] = _line(cells)
    lines[start:end] = [table[key] for key in sorted(table)]
    return "\n".join(lines) + "\n"


def _line(cells):
    return "| " + " | ".join(cells) + " |"


def _cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]
