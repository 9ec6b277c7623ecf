"""`python -m tests.peers keras PATH`."""

import argparse
import os
import pathlib
import sys


def main() -> int:
    """Run a peer's suite; 1 if something failed that is not explained."""
    parser = argparse.ArgumentParser(prog="python -m tests.peers")
    parser.add_argument("peer", choices=["keras"])
    parser.add_argument("path", type=pathlib.Path, help="a checkout of it")
    parser.add_argument("-k", default="", help="only the tests that match")
    parser.add_argument("--group", action="append", help="only these groups")
    parser.add_argument(
        "--record",
        action="store_true",
        help="write the rows of docs/versions.md",
    )
    arguments = parser.parse_args()
    checkout = arguments.path.resolve()
    # Before Keras is imported: its tests belong to the checkout's Keras.
    sys.path.insert(1, str(checkout))
    os.chdir(checkout)
    from tests import tables
    from tests.peers import comparison
    from tests.peers.differences import KNOWN

    outcomes = comparison.compare(
        checkout, KNOWN, groups=arguments.group, select=arguments.k
    )
    import keras

    backend = keras.backend.backend()
    print(comparison.report(outcomes, backend))
    if arguments.record:
        rows = comparison.rows(outcomes, backend)
        tables.record(tables.VERSIONS, comparison.HEADER, 2, rows)
    return int(any(one.kind == "failed" for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
