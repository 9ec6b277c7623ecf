"""What `callbacks.Mechanisms` costs in a run of `keras-wd train`.

    python benchmarks/mechanisms.py [--rounds 5]
    KERAS_BACKEND=jax python benchmarks/mechanisms.py

Whole runs as `keras-wd train` does them by default, with the callback on 128
validation images and without it, in alternating rounds, with `--model=mlp`,
`--batch_norm` and `--model=cnn`. Prints the ratio of the medians of the times
from the first epoch to the last, in which the programs are compiled.
"""

import argparse
import contextlib
import io
import os
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from timing import ratios

from keras_wd import callbacks
from keras_wd.study import config
from keras_wd.study import datasets
from keras_wd.study import train

FLAGS = {
    "mlp": [],
    "mlp, batch norm": ["--batch_norm"],
    "cnn": ["--model=cnn"],
}


class Clock(keras.callbacks.Callback):
    """The seconds from the first epoch to the last."""

    def on_train_begin(self, logs=None):
        self.start = time.perf_counter()

    def on_train_end(self, logs=None):
        self.seconds = time.perf_counter() - self.start


def seconds_of(flags, data, more):
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "run")
        settings = config.from_command_line([*flags, f"--output_dir={path}"])
        with contextlib.redirect_stdout(io.StringIO()):
            train.run(settings, data, [*more, clock], picture=False)
    return clock.seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"backend {keras.backend.backend()}")
    data = datasets.load("digits", None)
    images = data.standardise(data.validation.take(slice(128)).images)
    for name, flags in FLAGS.items():
        seconds = {"with": [], "without": []}
        for _ in range(arguments.rounds):
            probe = callbacks.Mechanisms(images)
            seconds["with"].append(seconds_of(flags, data, [probe]))
            seconds["without"].append(seconds_of(flags, data, []))
        ratio = ratios(seconds, "without")["with"]
        print(f"{name:16s} {ratio:.3f} of the time without it", flush=True)


if __name__ == "__main__":
    main()
