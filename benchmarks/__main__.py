"""`python -m benchmarks NAME [flags]`; `python -m benchmarks list`."""

import ast
import difflib
import pathlib
import runpy
import sys

FOLDER = pathlib.Path(__file__).parent


def benchmarks() -> dict[str, str]:
    """What each program measures, by its name."""
    found = {}
    for path in sorted(FOLDER.glob("[!_]*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        if any(getattr(node, "name", "") == "main" for node in tree.body):
            found[path.stem] = ast.get_docstring(tree).splitlines()[0]
    return found


def main(arguments: list[str]) -> int:
    """Run the one that is named, with the flags behind its name."""
    known = benchmarks()
    if arguments[:1] in (["list"], []):
        width = max(map(len, known))
        for name, what in known.items():
            print(f"{name:{width}}  {what}")
        return 0
    name, *flags = arguments
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        print(
            f"{name!r} is not a benchmark.{hint} `python -m benchmarks list` "
            "shows all of them.",
            file=sys.stderr,
        )
        return 2
    sys.argv = [f"python -m benchmarks {name}", *flags]
    # The programs import each other by name.
    sys.path.insert(0, str(FOLDER))
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
