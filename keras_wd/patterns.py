"""Globs over the whole segments of a variable's path, read from its end."""

import collections
import difflib
import fnmatch
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

_GLOB = set("*?[")


class Patterns:
    """Globs for which a path is looked up rather than compared with each.

    Args:
        patterns: globs over whole segments, read from the end of a path.
    """

    def __init__(self, patterns: Iterable[str]):
        patterns = list(patterns)
        self._globs = [p for p in patterns if _GLOB & set(p)]
        self._endings = set(patterns) - set(self._globs)

    def match(self, path: str) -> bool:
        """Whether the end of a path matches one of the patterns."""
        return any(ending in self._endings for ending in endings(path)) or any(
            matches(pattern, path) for pattern in self._globs
        )


def endings(path: str) -> Iterator[str]:
    """All ends of a path of whole segments, the shortest first."""
    segments = path.split("/")
    for length in range(1, len(segments) + 1):
        yield "/".join(segments[-length:])


def matches(pattern: str, path: str) -> bool:
    """Whether the end of a path matches a pattern; `**` is any segments."""
    if not _GLOB & set(pattern):
        return path == pattern or path.endswith(f"/{pattern}")
    return _segments_match(["**", *pattern.split("/")], path.split("/"))


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


def shortest_endings(paths: Sequence[str]) -> dict[str, str]:
    """By path, the pattern of the shortest end that no other path has.

    At least the layer and the weight, the last two segments. A path that is
    there twice has no pattern, and is left out.
    """
    counts = collections.Counter(
        ending for path in paths for ending in endings(path)
    )
    found = {}
    for path in paths:
        for ending in endings(path):
            long_enough = "/" in ending or ending == path
            if long_enough and counts[ending] == 1:
                parts = ending.split("/")
                found[path] = "/".join(map(_literally, parts))
                break
    return found


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
