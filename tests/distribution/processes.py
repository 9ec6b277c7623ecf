"""Processes that a test starts."""

import os
import subprocess
import sys

import pytest


def start(module, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def chosen(request):
    """The names of the cases of this module that are run."""
    calls = [
        item.callspec.params
        for item in request.session.items
        if item.path == request.path and hasattr(item, "callspec")
    ]
    return sorted({call["name"] for call in calls})


def finish(*processes, timeout=400):
    """Wait for all; fail with what the first that failed wrote."""
    try:
        texts = [p.communicate(timeout=timeout)[0] for p in processes]
    finally:
        for process in processes:
            process.kill()
    for process, text in zip(processes, texts, strict=True):
        if process.returncode:
            pytest.fail(text[-3000:])
