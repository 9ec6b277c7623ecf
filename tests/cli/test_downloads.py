"""What is said of a download, and that a host that is not there is named."""

import contextlib
import socket
import types

import pytest

from keras_wd.cli import downloads
from keras_wd.cli.usage_errors import UsageError

pytestmark = [pytest.mark.one_backend, pytest.mark.eager]


@pytest.fixture
def port(monkeypatch):
    """A port of this machine that nothing listens to."""
    for protocol in ("http", "https", "all"):
        monkeypatch.delenv(f"{protocol}_proxy", raising=False)
        monkeypatch.delenv(f"{protocol.upper()}_PROXY", raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def builder(*urls, manual=None):
    file = types.SimpleNamespace(size=3 * 2**20)
    return types.SimpleNamespace(
        url_infos=dict.fromkeys(urls, file),
        data_dir="/sets/x",
        MANUAL_DOWNLOAD_INSTRUCTIONS=manual,
    )


def test_a_host_that_is_not_there_ends_at_once(port, capsys):
    url = f"http://127.0.0.1:{port}"
    wanted = builder(f"{url}/a.zip", f"{url}/b.zip")
    message = f"127.0.0.1:{port} cannot be reached .* --dataset=./photos"
    with pytest.raises(UsageError, match=message):
        downloads.announce("x", wanted)
    assert capsys.readouterr().out == (
        f"Downloading x, up to 6 MiB, from 127.0.0.1:{port} to /sets/x\n"
    )
    # Nothing is downloaded from it if it takes files of the user's.
    downloads.announce("x", builder(f"{url}/a.zip", manual="Get them."))
    assert capsys.readouterr().out == "Preparing the data set x in /sets/x\n"


def test_one_host_of_several_is_enough(port):
    gone = ("http", f"127.0.0.1:{port}")
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        there = ("http", f"127.0.0.1:{server.getsockname()[1]}")
        assert downloads.unreachable([gone, there]) is None
    assert "refused" in downloads.unreachable([gone])


def test_what_a_proxy_may_reach_is_not_tried(port, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy:80")
    assert downloads.unreachable([("http", f"there.invalid:{port}")]) is None
    monkeypatch.setenv("no_proxy", "there.invalid")
    assert downloads.unreachable([("http", f"there.invalid:{port}")])
