"""The time of a K-FAC step, beside kfac-jax's and plain SGD's.

    python -m benchmarks kfac_step --peer PYTHON [--network mlp-1024]
        [--batch_size 512] [--curvature 1] [--inverses 10] [--cycles 9]

PYTHON is an interpreter with kfac-jax 0.0.8 and jax < 0.7; without it only
SGD is compared. Every side trains the same network on one batch, compiled, in
alternating cycles of as many steps as there are between two inversions.
Prints the median of each side's time by that of ours, and by SGD's.
"""

import argparse
import os
import pathlib
import statistics
import subprocess

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import kfac_networks
from keras import layers
from keras import ops
from timing import alternate
from timing import ratios

from keras_wd.optimizers.kfac import KFAC

HERE = pathlib.Path(__file__).parent


def network(name, optimizer, jit_compile):
    _, shape, widths = kfac_networks.NETWORKS[name]
    stack = [keras.Input(shape)]
    for kind, width in widths:
        stack.append(
            layers.Dense(width, activation="relu")
            if kind == "dense"
            else layers.Conv2D(
                width, 3, strides=2, padding="same", activation="relu"
            )
        )
    stack += [layers.Flatten(), layers.Dense(kfac_networks.CLASSES)]
    model = keras.Sequential(stack)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=jit_compile)
    return model


def ours(name, arguments, jit_compile):
    optimizer = KFAC(
        kfac_networks.LEARNING_RATE,
        damping=kfac_networks.DAMPING,
        momentum=kfac_networks.MOMENTUM,
        curvature_decay=kfac_networks.EMA,
        kl_clip=None,
    )
    model = network(name, optimizer, jit_compile)
    x, y = map(
        ops.convert_to_tensor, kfac_networks.batch(name, arguments.batch_size)
    )
    optimizer.update_curvature(model, x)

    def cycle():
        for step in range(arguments.inverses):
            if step % arguments.curvature == 0:
                optimizer.update_curvature(model, x, invert=False)
            if step == 0:
                optimizer.update_inverses()
            model.train_on_batch(x, y)

    return cycle


def sgd(name, arguments, jit_compile):
    optimizer = keras.optimizers.SGD(
        kfac_networks.LEARNING_RATE, momentum=kfac_networks.MOMENTUM
    )
    model = network(name, optimizer, jit_compile)
    x, y = map(
        ops.convert_to_tensor, kfac_networks.batch(name, arguments.batch_size)
    )

    def cycle():
        for _ in range(arguments.inverses):
            model.train_on_batch(x, y)

    return cycle


def peer(name, arguments):
    process = subprocess.Popen(
        [
            arguments.peer,
            str(HERE / "kfac_jax_peer.py"),
            name,
            str(arguments.curvature),
            str(arguments.inverses),
            str(arguments.batch_size),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def cycle():
        process.stdin.write(f"{arguments.inverses}\n")
        process.stdin.flush()
        if not process.stdout.readline():
            raise RuntimeError("The peer ended; see its message above.")

    return cycle


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer")
    parser.add_argument(
        "--network", default="mlp-1024", choices=kfac_networks.NETWORKS
    )
    parser.add_argument("--batch_size", type=int)
    parser.add_argument("--curvature", type=int, default=1)
    parser.add_argument("--inverses", type=int, default=10)
    parser.add_argument("--cycles", type=int, default=9)
    parser.add_argument("--no_jit", action="store_true")
    arguments = parser.parse_args()
    if arguments.batch_size is None:
        arguments.batch_size = kfac_networks.NETWORKS[arguments.network][0]
    jit_compile = not arguments.no_jit
    sides = {
        "keras_wd": ours(arguments.network, arguments, jit_compile),
        "sgd": sgd(arguments.network, arguments, jit_compile),
    }
    if arguments.peer:
        sides["kfac-jax"] = peer(arguments.network, arguments)
    seconds = alternate(sides, rounds=arguments.cycles, warmup=2)
    print(
        f"{arguments.network} on {keras.backend.backend()}, batches of "
        f"{arguments.batch_size}, curvature every {arguments.curvature}, "
        f"inverses every {arguments.inverses}"
    )
    by_sgd = ratios(seconds, "sgd")
    by_peer = ratios(seconds, "kfac-jax") if arguments.peer else {}
    for name, times in seconds.items():
        step = 1000 * statistics.median(times) / arguments.inverses
        line = f"{name:10s} {step:8.2f} ms a step  {by_sgd[name]:5.2f} x sgd"
        if by_peer:
            line += f"  {by_peer[name]:5.2f} x kfac-jax"
        print(line)


if __name__ == "__main__":
    main()
