"""Seconds of K-FAC's first update of a large network, compiling included.

    python -m benchmarks kfac_first_update [--networks ResNet50] [--no_jit]

For each network of keras.applications, on 64 x 64 images and a batch of 4: the
first `train_on_batch` with Adam, and then, on the same weights, everything
until K-FAC has taken its first step: finding the layers, measuring the
curvature, inverting it, and the step. Wall and processor seconds, and the
ratio to Adam's; the memory of the factors and inverses.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_wd.optimizers.kfac import KFAC

NETWORKS = ("MobileNetV2", "ResNet50", "DenseNet121")
SHAPE = (64, 64, 3)
CLASSES = 10
BATCH = 4


def timed(parts, name, function):
    """Run `function`; note its wall and processor seconds."""
    start = time.perf_counter(), time.process_time()
    function()
    end = time.perf_counter(), time.process_time()
    parts[name] = (end[0] - start[0], end[1] - start[1])


def measured(name, jit_compile):
    """Seconds by part of the first update with Adam and with K-FAC."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, *SHAPE)).astype("float32")
    y = rng.integers(0, CLASSES, BATCH)
    model = getattr(keras.applications, name)(
        weights=None, input_shape=SHAPE, classes=CLASSES
    )
    parts = {}

    def compiled(optimizer):
        model.compile(
            optimizer,
            "sparse_categorical_crossentropy",
            jit_compile=jit_compile,
        )
        return optimizer

    compiled(keras.optimizers.Adam(1e-4))
    timed(parts, "adam", lambda: model.train_on_batch(x, y))
    optimizer = compiled(KFAC(1e-4, damping=1e-2, seed=0))
    timed(parts, "registration", lambda: optimizer.register(model, x))
    timed(
        parts,
        "curvature",
        lambda: optimizer.update_curvature(model, x, invert=False),
    )
    timed(parts, "inverses", optimizer.update_inverses)
    timed(parts, "step", lambda: model.train_on_batch(x, y))
    memory = sum(block.memory for block in optimizer._curvature.state.blocks)
    return parts, memory


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--no_jit", action="store_true")
    arguments = parser.parse_args()
    print(f"on {keras.backend.backend()}, jit_compile={not arguments.no_jit}")
    for name in arguments.networks:
        keras.backend.clear_session()
        parts, memory = measured(name, not arguments.no_jit)
        adam = parts.pop("adam")
        total = [sum(column) for column in zip(*parts.values(), strict=True)]
        print(
            f"{name}: K-FAC {total[0]:.1f} s ({total[1]:.1f} s of processor), "
            f"{total[0] / adam[0]:.1f} x Adam's {adam[0]:.1f} s "
            f"({adam[1]:.1f} s); factors and inverses {memory / 1e9:.2f} GB"
        )
        for part, (wall, processor) in parts.items():
            print(f"    {part:12s} {wall:7.1f} s ({processor:.1f} s)")


if __name__ == "__main__":
    main()
