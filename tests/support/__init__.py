"""What works with what: the table of `docs/support.md`, cell by cell."""
