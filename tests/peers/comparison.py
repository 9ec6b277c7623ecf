"""Each test as Keras has it, and again with the wrapper."""

import collections
import dataclasses
import fnmatch
import os
import pathlib
import re
from collections.abc import Mapping
from collections.abc import Sequence

import pytest
from _pytest.runner import runtestprotocol

from tests.peers.stand_ins import StandIns

GROUPS = {
    "optimizers and callbacks": ("optimizers", "callbacks"),
    "saving and models": ("saving", "models"),
    "trainer": ("trainers",),
}
KINDS = ("passed", "private", "known", "failed")
HEADER = ("group", "backend", "Keras passes", "with a wrapper", *KINDS)
_PRIVATE = re.compile(r"\._(?!_)\w")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A test that Keras passes.

    Args:
        group: a key of `GROUPS`.
        test: its name below `keras/src`.
        kind: "passed"; "private", failed where it reads what has no public
            name; "known", a difference with a reason; or "failed".
        wrapped: how many wrappers it made.
        why: the reason, or the error.
    """

    group: str
    test: str
    kind: str
    wrapped: int
    why: str = ""


def compare(
    checkout: pathlib.Path,
    known: Mapping[str, str],
    groups: Sequence[str] | None = None,
    select: str = "",
) -> list[Outcome]:
    """Run the tests of a checkout that Keras passes with the wrapper.

    The files are those that speak of an optimizer.

    Args:
        checkout: holds `keras/src/optimizers` and so on.
        known: reasons by pattern of test names.
        groups: keys of `GROUPS`; None for all.
        select: pytest's `-k`.
    """
    source = checkout / "keras" / "src"
    folders = {
        folder: group
        for group, names in GROUPS.items()
        for folder in names
        if group in (groups or GROUPS) and (source / folder).is_dir()
    }
    settings = checkout / "pyproject.toml"
    files = [
        path
        for folder in folders
        for path in sorted((source / folder).rglob("*_test.py"))
        if "optimizer" in path.read_text("utf-8")
    ]
    plugin = _Comparison(folders, known)
    with plugin.stand_ins.installed():
        pytest.main(
            [
                f"--rootdir={checkout}",
                f"-c{settings if settings.exists() else os.devnull}",
                # Keras's own suite asks for verbose output.
                "--override-ini=addopts=",
                "--continue-on-collection-errors",
                "-qq",
                "--no-summary",
                "-pno:cacheprovider",
                *([f"-k{select}"] if select else []),
                *map(str, files),
            ],
            plugins=[plugin],
        )
    return plugin.outcomes


class _Comparison:
    """A pytest plugin that runs every test twice."""

    def __init__(self, folders, known):
        self.outcomes = []
        self.stand_ins = StandIns()
        self._folders = folders
        self._known = known

    def pytest_runtest_protocol(self, item, nextitem):
        """The test as it is; if it passes, with wrappers."""
        self.stand_ins.wrapping = False
        reports = runtestprotocol(item, log=False, nextitem=item)
        if _passed(reports):
            item._initrequest()
            self.stand_ins.wrapping, self.stand_ins.made = True, 0
            reports = runtestprotocol(item, log=False, nextitem=nextitem)
            self.stand_ins.wrapping = False
            self.outcomes.append(outcome := self._outcome(item, reports))
            print(outcome.kind[0].upper(), end="", flush=True)
            if outcome.kind == "failed":
                # Hours before the report, which a stopped run does without.
                print(f" {outcome.test}: {outcome.why}", flush=True)
        return True

    def pytest_collectreport(self, report):
        """A file that needs what is not installed is named."""
        if report.failed:
            reason = str(report.longrepr).strip().splitlines()[-1]
            print(f"not collected: {report.nodeid}: {reason}")

    def _outcome(self, item, reports):
        test = item.nodeid.partition("keras/src/")[2]
        group = self._folders[test.partition("/")[0]]
        made = self.stand_ins.made
        if _passed(reports):
            return Outcome(group, test, "passed", made)
        (report, *_) = [one for one in reports if not one.passed]
        for pattern, reason in self._known.items():
            if fnmatch.fnmatchcase(test, pattern):
                return Outcome(group, test, "known", made, reason)
        line, error = _failure(item, report)
        private = _PRIVATE.search(line) or "has no attribute '_" in error
        kind = "private" if private else "failed"
        return Outcome(group, test, kind, made, f"{line.strip()}: {error}")


def _passed(reports):
    return [report.outcome for report in reports] == ["passed"] * 3


def _failure(item, report):
    """The line of the test that failed, and the error."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None:
        return "", str(report.longrepr)
    entries = report.longrepr.reprtraceback.reprentries
    lines = [
        line[1:]
        for entry in entries
        if entry.reprfileloc
        and pathlib.Path(str(entry.reprfileloc.path)).name == item.path.name
        for line in entry.lines
        if line.startswith(">")
    ]
    return (lines[-1] if lines else ""), crash.message.split("\n\n")[0][:300]


def rows(outcomes: Sequence[Outcome], backend: str) -> list[tuple]:
    """The counts of each group, under `HEADER`."""
    found = []
    for group in GROUPS:
        own = [one for one in outcomes if one.group == group]
        count = collections.Counter(one.kind for one in own)
        wrapped = sum(one.wrapped > 0 for one in own)
        if own:
            kinds = (count[kind] for kind in KINDS)
            found.append((group, backend, len(own), wrapped, *kinds))
    return found


def report(outcomes: Sequence[Outcome], backend: str) -> str:
    """A table, and what failed."""
    lines = ["", *map(_line, (HEADER, ["---"] * len(HEADER)))]
    lines += map(_line, rows(outcomes, backend))
    for kind in KINDS[1:]:
        for one in outcomes:
            if one.kind == kind:
                lines += ["", f"{kind}: {one.test}", f"  {one.why}"]
    return "\n".join(lines)


def _line(cells):
    return "| " + " | ".join(map(str, cells)) + " |"
