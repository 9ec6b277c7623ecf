"""One run of a comparison, in a process of its own."""

import contextlib
import json
import os
import pathlib
import sys
import traceback
from collections.abc import Mapping

from keras_wd.callbacks import Mechanisms
from keras_wd.cli import config
from keras_wd.cli import datasets
from keras_wd.cli import distribute
from keras_wd.cli import report
from keras_wd.cli import train
from keras_wd.cli.executors import ANSWER
from keras_wd.cli.usage_errors import UsageError

LOG = "log.txt"
PROBES = 128  # validation images the Jacobian is measured on
PAUSE = 10.0  # seconds from checkpoint to checkpoint: a disk serves all runs

_data = {}


def run(settings: Mapping, folder: str, until: int | None = None) -> str:
    """Train in a folder, or go on there; returns what was wrong, or nothing.

    Args:
        settings: of the run.
        folder: of the run; what is complete in it stays.
        until: the epoch after which a trial of a search stops, to go on
            later; its mechanisms are not measured.
    """
    if report.read(folder) is not None:
        return ""
    os.makedirs(folder, exist_ok=True)
    started = os.path.exists(os.path.join(folder, config.NAME))
    settings = {**settings, "output_dir": folder, "resume": started}
    log = pathlib.Path(folder, LOG)
    with open(log, "a", encoding="utf-8") as file:
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            try:
                with distribute.sharing(settings):
                    _train(settings, until)
            except UsageError as error:
                return str(error)
            except Exception as error:  # the other runs go on
                traceback.print_exc()
                return f"{type(error).__name__}: {error}. See {log}"
    return ""


def _train(settings, until):
    key = tuple(settings[name] for name in datasets.SOURCE)
    if key not in _data:
        _data[key] = datasets.load(*key)
    data = datasets.for_run(settings, _data[key])
    chosen = data.validation.take(slice(PROBES))
    every = max(1, settings["epochs"] // 10)
    probes = []
    if until is None:
        inputs = data.standardise(chosen.inputs)
        probes.append(Mechanisms(inputs, every))
    train.run(settings, data, probes, picture=False, until=until, pause=PAUSE)


def main() -> int:
    """Runs as JSON lines on standard input; an answer line for each."""
    for line in sys.stdin:
        print(ANSWER + json.dumps(run(*json.loads(line))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
