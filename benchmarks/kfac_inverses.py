"""Seconds of K-FAC's inversions on one device and divided between two.

    python -m benchmarks kfac_inverses [--networks mlp ResNet50] [--turns 3]

On TensorFlow, where a device can be one thread of the CPU, so that two of them
have two cores; a CPU device of JAX takes all cores. They invert by programs, as
a GPU does. For each network: a process with one device and one with two, in
turn, and the median of several inversions in each; the first, which compiles,
does not count. Prints the medians over the turns, their ratio, and the least
ratio that the largest block allows, as one block is on one device.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time

SINGLE = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_NUM_INTRAOP_THREADS": "1",
    "KERAS_BACKEND": "tensorflow",
}
NETWORKS = ("mlp", "ResNet50")
SHAPE = (64, 64, 3)
REPEATS = 3


def network(name):
    import keras

    if name != "mlp":
        return getattr(keras.applications, name)(
            weights=None, input_shape=SHAPE, classes=10
        )
    hidden = [keras.layers.Dense(1024, "relu") for _ in range(6)]
    return keras.Sequential(
        [keras.Input((1023,)), *hidden, keras.layers.Dense(10)]
    )


def child(name, count):
    """Invert on `count` devices; print the seconds, and the largest share."""
    from keras_wd.backend import devices

    if count > 1:
        devices.split_cpu(count)
    import numpy as np
    from keras import ops

    from keras_wd.kfac import block_inversion
    from keras_wd.optimizers.kfac import KFAC

    block_inversion.most_by_numpy = lambda held: 256**3
    several = devices.sharing(count, count) if count > 1 else None
    with several or contextlib.nullcontext():
        model = network(name)
        optimizer = KFAC()
        model.compile(optimizer, "sparse_categorical_crossentropy")
        x = np.zeros((count, *model.input_shape[1:]), "float32")
        optimizer.register(model, x)
        state = optimizer._curvature.state
        # Factors of zeros: what they are does not change the time.
        state.updates.assign(ops.ones(state.updates.shape))
    seconds = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        optimizer.update_inverses()
        for variable in state.variables():
            device = devices.holding([variable])[0]
            ops.convert_to_numpy(devices.read(variable, device))
        seconds.append(time.perf_counter() - start)
    invert = optimizer._curvature._inversion[1]._invert
    costs = [invert.cost(index) for index in range(len(state.blocks))]
    print(statistics.median(seconds[1:]), max(costs) / sum(costs))


def measured(name, count):
    found = subprocess.run(
        [sys.executable, __file__, "--child", name, str(count)],
        env={**os.environ, **SINGLE},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [*map(float, found.stdout.split()[-2:])]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, count = arguments.child
        child(name, int(count))
        return
    for name in arguments.networks:
        turns = [
            [measured(name, count) for count in (1, 2)]
            for _ in range(arguments.turns)
        ]
        one, two = (
            statistics.median(turn[side][0] for turn in turns)
            for side in (0, 1)
        )
        ratio = statistics.median(turn[1][0] / turn[0][0] for turn in turns)
        least = max(turns[0][1][1], 0.5)
        print(
            f"{name}: one device {one:.2f} s, two {two:.2f} s, "
            f"ratio {ratio:.2f} (at least {least:.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
