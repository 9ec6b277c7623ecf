"""Globs over the whole segments of a variable's path, read from its end."""

import difflib
import fnmatch
from collections.abc import Iterable
from collections.abc import Sequence


def matches(pattern: str, path: str) -> bool:
    """Whether the end of a path matches a pattern; `**` is any segments."""
    segments = path.split("/")
    return _segments_match(["**", *pattern.split("/")], segments)


def _segments_match(wanted: list[str], segments: list[str]) -> bool:
    if not wanted:
        return not segments
    if wanted[0] == "**":
        return any(
            _segments_match(wanted[1:], segments[skipped:])
            for skipped in range(len(segments) + 1)
        )
    return (
        bool(segments)
        and fnmatch.fnmatchcase(segments[0], wanted[0])
        and _segments_match(wanted[1:], segments[1:])
    )


def shortest_ending(path: str, paths: Sequence[str]) -> str:
    """The pattern of the shortest end of `path` that no other path has.

    At least the layer and the weight, the last two segments.

    Raises:
        ValueError: if another path is the same.
    """
    segments = path.split("/")
    others = [other.split("/") for other in paths]
    for length in range(min(2, len(segments)), len(segments) + 1):
        ending = segments[-length:]
        if sum(other[-length:] == ending for other in others) <= 1:
            return "/".join(map(_literally, ending))
    raise ValueError(
        "`variables` must have paths of their own. Received: two variables "
        f"with the path {'/'.join(segments)}. Give the layers other names."
    )


def nearest(patterns: Iterable[str], paths: Sequence[str]) -> str:
    """A hint: the path whose end is most like one of the patterns."""
    for pattern in patterns:
        length = len(pattern.split("/"))
        ends = {"/".join(p.split("/")[-length:]): p for p in paths}
        near = difflib.get_close_matches(pattern, ends, n=1)
        if near:
            return f". Did you mean {ends[near[0]]!r}?"
    return ""


def _literally(segment):
    return "".join(f"[{c}]" if c in "*?[" else c for c in segment)
