"""What `callbacks.Mechanisms` costs in a run of `keras-wd train`.

    python -m benchmarks mechanisms [--rounds 3]
    KERAS_BACKEND=jax python -m benchmarks mechanisms

Whole runs as `keras-wd train` does them by default, with the callback on 128
validation images, with `--model=mlp`, `--batch_norm` and `--model=cnn`. Prints
the seconds inside the callback, compiling its programs included, by the rest of
the seconds from the first epoch to the last of the same run: the median over
rounds. (The difference of two runs is lost in the noise of a shared machine.)
"""

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from keras_wd import callbacks
from keras_wd.cli import config
from keras_wd.cli import datasets
from keras_wd.cli import train

FLAGS = {
    "mlp": [],
    "mlp, batch norm": ["--batch_norm"],
    "cnn": ["--model=cnn"],
}


class Timed(callbacks.Mechanisms):
    """Counts the seconds of its own and those of the run."""

    inside = 0.0

    def _timed(self, method, *args):
        start = time.perf_counter()
        method(*args)
        self.inside += time.perf_counter() - start

    def on_train_begin(self, logs=None):
        self.start = time.perf_counter()
        self._timed(super().on_train_begin, logs)

    def on_epoch_begin(self, epoch, logs=None):
        self._timed(super().on_epoch_begin, epoch, logs)

    def on_train_batch_end(self, batch, logs=None):
        self._timed(super().on_train_batch_end, batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self._timed(super().on_epoch_end, epoch, logs)

    def on_train_end(self, logs=None):
        total = time.perf_counter() - self.start
        self.share = self.inside / (total - self.inside)


def share_of(flags, data, images):
    """What the callback adds to one run."""
    probe = Timed(images)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "run")
        settings = config.from_command_line([*flags, f"--output_dir={path}"])
        with contextlib.redirect_stdout(io.StringIO()):
            train.run(settings, data, [probe], picture=False)
    return probe.share


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"backend {keras.backend.backend()}")
    data = datasets.load("digits", None)
    images = data.standardise(data.validation.take(slice(128)).inputs)
    for name, flags in FLAGS.items():
        shares = [
            share_of(flags, data, images) for _ in range(arguments.rounds)
        ]
        print(f"{name:16s} {statistics.median(shares):.1%}", flush=True)


if __name__ == "__main__":
    main()
