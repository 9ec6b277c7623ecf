"""What is said, and found out, before a data set is downloaded."""

import socket
import urllib.parse
import urllib.request
from collections.abc import Iterable

from keras_wd.cli.usage_errors import UsageError

_SECONDS = 10  # for a host to answer
_PORTS = {"http": 80, "https": 443, "ftp": 21}
_OTHERWISE = (
    "Prepare it where there is a network and name its folder (--data_dir), or "
    "give data of your own, such as --dataset=./photos or --dataset=table.csv "
    "--target=COLUMN"
)


def announce(name: str, builder) -> None:
    """Say what is downloaded, how much, from where and to where.

    Hosts are tried first, of which TensorFlow Datasets would say nothing for
    a minute and more.

    Args:
        name: of the set.
        builder: of TensorFlow Datasets.

    Raises:
        UsageError: if no host can be reached.
    """
    files = builder.url_infos or {}
    hosts = sorted({urllib.parse.urlsplit(url)[:2] for url in files})
    if not hosts or builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        print(
            f"Preparing the data set {name} in {builder.data_dir}", flush=True
        )
        return
    size = sum(file.size for file in files.values())
    names = list(dict.fromkeys(host for _, host in hosts))
    more = f" and {len(names) - 3} more hosts" if len(names) > 3 else ""
    print(
        f"Downloading {name}, up to {size / 2**20:.0f} MiB, from "
        f"{', '.join(names[:3])}{more} to {builder.data_dir}",
        flush=True,
    )
    problem = unreachable(hosts)
    if problem is not None:
        raise UsageError(
            f"--dataset={name} cannot be downloaded: {problem}. {_OTHERWISE}"
        )


def unreachable(hosts: Iterable[tuple[str, str]]) -> str | None:
    """What is wrong with the last host; None if one can be reached.

    Args:
        hosts: protocol, and name with or without a port, of each. Those that
            a proxy is set for are not tried.
    """
    problem = None
    for protocol, host in hosts:
        if protocol not in _PORTS or _has_proxy(protocol, host):
            return None
        address = urllib.parse.urlsplit(f"//{host}")
        port = address.port or _PORTS[protocol]
        try:
            socket.create_connection((address.hostname, port), _SECONDS).close()
        except OSError as error:
            problem = f"{host} cannot be reached ({error.strerror or error})"
        else:
            return None
    return problem


def _has_proxy(protocol, host):
    proxies = urllib.request.getproxies()
    return bool(
        {protocol, "all"} & set(proxies)
    ) and not urllib.request.proxy_bypass(host)
