"""The exact Jacobian norm of the digits CNN, beside the backend's own way.

    python -m benchmarks jacobian [--batch 512] [--rounds 9]
    KERAS_BACKEND=jax python -m benchmarks jacobian

On JAX the peer is `jax.jacrev` of the summed outputs, compiled; on TensorFlow
`GradientTape.batch_jacobian` in a `tf.function`. All compute the same number,
in alternating rounds; prints the ratio of the medians, and with `--memory` (on
Linux) the most memory a call adds, each side in a process of its own.
"""

import argparse
import os
import pathlib
import resource
import subprocess
import sys
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from digits import digits
from timing import alternate
from timing import ratios

from keras_wd import metrics
from keras_wd.cli import networks


def model_and_images(batch):
    """The CNN of `keras-wd train` and a batch of digits."""
    keras.utils.set_random_seed(0)
    (x, _), _ = digits()
    images = x[np.arange(batch) % len(x)].reshape(-1, 8, 8, 1)
    return networks.build("cnn", (8, 8, 1), 10), images


def peer(model, images):
    """The same number by the backend's own Jacobian."""
    if keras.backend.backend() == "jax":
        return _jacrev(model, images)
    import tensorflow as tf

    x = tf.constant(images)

    @tf.function
    def program(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = model(x, training=False)
        jacobian = tape.batch_jacobian(outputs, x)
        return tf.reduce_sum(tf.square(jacobian)) / tf.cast(len(x), "float32")

    return lambda: float(program(x))


def _jacrev(model, images):
    import jax
    from jax import numpy as jnp

    variables = model.variables
    x = jnp.asarray(images)

    def outputs(x, values):
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return model(x, training=False)

    @jax.jit
    def program(x, values):
        # Summed over the batch: examples do not see each other.
        jacobian = jax.jacrev(lambda x: outputs(x, values).sum(0))(x)
        return jnp.sum(jnp.square(jacobian)) / len(x)

    return lambda: float(program(x, [v.value for v in variables]))


def added_by(function):
    """Mebibytes that a call has at most besides what was there before."""
    page = resource.getpagesize() / 2**20

    def resident():
        fields = pathlib.Path("/proc/self/statm").read_text().split()
        return int(fields[1]) * page

    before, seen, done = resident(), [], threading.Event()

    def watch():
        while not done.is_set():
            seen.append(resident())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(3):
        function()
    done.set()
    watcher.join()
    return max(seen) - before


def memory_of(side, batch):
    """`added_by` in a fresh process."""
    command = [sys.executable, __file__, f"--batch={batch}", f"--side={side}"]
    output = subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stdout
    return float(output.split()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--side", choices=("ours", "peer"))
    arguments = parser.parse_args()
    model, images = model_and_images(arguments.batch)
    sides = {
        "ours": lambda: float(metrics.jacobian_norm(model, images)),
        "peer": peer(model, images),
    }
    if arguments.side:
        sides[arguments.side]()  # compiling takes memory of its own
        print(added_by(sides[arguments.side]))
        return
    numbers = {name: side() for name, side in sides.items()}
    if not np.isclose(numbers["ours"], numbers["peer"], rtol=1e-4):
        raise RuntimeError(f"the sides do not agree: {numbers}")
    ratio = ratios(alternate(sides, rounds=arguments.rounds), "peer")["ours"]
    backend = keras.backend.backend()
    own = {"jax": "jax.jacrev", "tensorflow": "batch_jacobian"}[backend]
    print(f"{backend}: {ratio:.2f} times {own}, batch {arguments.batch}")
    if arguments.memory:
        ours, theirs = (memory_of(s, arguments.batch) for s in sides)
        print(f"peak memory: {ours:.0f} MiB, {own} {theirs:.0f} MiB")


if __name__ == "__main__":
    main()
