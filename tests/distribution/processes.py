"""Processes that a test starts."""

import os
import socket
import subprocess
import sys

import pytest


def free_addresses(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for one in sockets:
        one.close()
    return ",".join(addresses)


def start(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
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
    return sorted({call["name"] for call in calls if "name" in call})


def finish(*processes, timeout=400):
    """Wait for all; give what they wrote, or fail with what one wrote."""
    try:
        texts = [p.communicate(timeout=timeout)[0] for p in processes]
    finally:
        for process in processes:
            process.kill()
    for process, text in zip(processes, texts, strict=True):
        if process.returncode:
            pytest.fail(text[-3000:])
    return texts
