"""Rows of the tables that benchmarks print and write into the pages."""

from collections.abc import Iterable


def row(cells: Iterable[object]) -> str:
    """A line of a table, without its end."""
    texts = [str(cell).replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(texts)} |"


def header(columns: Iterable[str]) -> str:
    """The names of the columns, and the line below them."""
    columns = list(columns)
    return f"{row(columns)}\n{row(['---'] * len(columns))}"


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """All lines, each with its end."""
    return "\n".join([header(columns), *map(row, rows), ""])
