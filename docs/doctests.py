"""Shows the doctests of docstrings as code, in sections of their own."""

import griffe


class Doctests(griffe.Extension):
    """Puts every block that starts with `>>>` under "Examples:"."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        """Change the text of the docstring before it is read."""
        if obj.docstring is not None:
            obj.docstring.value = _with_sections(obj.docstring.value)


def _with_sections(text):
    lines, inside = [], False
    for line in text.splitlines():
        if line.startswith(">>> ") and not inside:
            lines.append("Examples:")
            inside = True
        elif not line.strip():
            inside = False
        lines.append(f"    {line}" if inside else line)
    return "\n".join(lines)
