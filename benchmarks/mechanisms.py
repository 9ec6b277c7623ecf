"""What `callbacks.Mechanisms` costs in a run.

    python benchmarks/mechanisms.py [--rounds 5] [--epochs 20]
    KERAS_BACKEND=jax python benchmarks/mechanisms.py

`fit` on digits at the settings of `keras-wd train` (its MLP with and without
batch normalization and its CNN, batches of 64), with the callback on 128 test
images and otherwise as it comes, and without it; in alternating rounds,
each with compiled programs that are there already. Prints the ratio of the
medians, and that of the first `fit`, in which the programs are compiled.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from digits import digits
from timing import alternate
from timing import ratios

from keras_wd import callbacks
from keras_wd import decays
from keras_wd import optimizers
from keras_wd.study import networks

NETWORKS = {
    "mlp": ("mlp", networks.Design()),
    "mlp, batch norm": ("mlp", networks.Design(batch_norm=True)),
    "cnn": ("cnn", networks.Design()),
}


def runs(name, epochs):
    """`fit` with the callback, and without it, of networks of their own."""
    kind, design = NETWORKS[name]
    (x, y), (x_test, _) = digits()
    x, x_test = (part.reshape(-1, 8, 8, 1) for part in (x, x_test))

    def run(*watches):
        keras.utils.set_random_seed(0)
        model = networks.build(kind, x.shape[1:], 10, design)
        model.compile(
            optimizers.WeightDecay(
                keras.optimizers.Adam(1e-3), decays.L2(1e-2)
            ),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=True,
        )
        return lambda: model.fit(
            x, y, 64, epochs, verbose=0, callbacks=list(watches)
        )

    return {
        "with": run(callbacks.Mechanisms(x_test[:128])),
        "without": run(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    print(f"backend {keras.backend.backend()}")
    for name in NETWORKS:
        functions = runs(name, arguments.epochs)
        first = {}
        for kind, function in functions.items():
            start = time.perf_counter()
            function()
            first[kind] = time.perf_counter() - start
        found = ratios(alternate(functions, arguments.rounds, 0), "without")
        print(
            f"{name:16s} {found['with']:.3f} of the time without it; first "
            f"fit, with compiling: {first['with'] / first['without']:.3f}"
        )


if __name__ == "__main__":
    main()
