"""Sparsity and accuracy over the exponent p: pAdam's claim, on digits.

    python benchmarks/digits_sparsity.py [--steps 6000] [--seeds 1]

Trains a bias-free MLP 64-256-256-10 with Adam (learning rate 3e-3, cosine to
zero, batch 128) on scikit-learn's digits and prints, for every decay, the
test accuracy and the share of kernel weights below 1e-13.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.datasets import load_digits

from keras_wd import decays
from keras_wd import metrics
from keras_wd import optimizers
from keras_wd.study.digits import indices_of

BATCH = 128
LEARNING_RATE = 3e-3
DECAYS = {
    "p = 2": lambda: decays.Lp(0.1, p=2),
    "p = 1.5": lambda: decays.Lp(0.1, p=1.5),
    "p = 1.2": lambda: decays.Lp(0.1, p=1.2),
    "p = 1": lambda: decays.Lp(0.03, p=1),
    "p = 0.8": lambda: decays.Lp(0.03, p=0.8),
    "p = 0.8, stronger": lambda: decays.Lp(0.1, p=0.8),
    "p = 0.5": lambda: decays.Lp(0.03, p=0.5),
    "L1 (proximal)": lambda: decays.L1(0.1),
    "p = 1, coupled": lambda: decays.Lp(0.001, p=1, coupling="coupled"),
    "p = 0.8, coupled": lambda: decays.Lp(0.01, p=0.8, coupling="coupled"),
}


def digits():
    """Images `(n, 64)` in [0, 1] and labels, for training and for test."""
    images, labels = load_digits(return_X_y=True)
    test = indices_of("test", labels)
    train = np.setdiff1d(np.arange(len(labels)), test)
    images = (images / 16).astype("float32")
    return (images[train], labels[train]), (images[test], labels[test])


def run(decay, steps, seed):
    """Test accuracy and share of weights below 1e-13 after training."""
    keras.utils.set_random_seed(seed)
    (x, y), test = digits()
    model = keras.Sequential([keras.Input((64,))])
    for units in (256, 256):
        model.add(keras.layers.Dense(units, "relu", use_bias=False))
    model.add(keras.layers.Dense(10, use_bias=False))
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    model.compile(
        optimizers.WeightDecay(keras.optimizers.Adam(schedule), decay),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=True,
    )
    per_epoch = len(x) // BATCH
    epochs = -(-steps // per_epoch)
    for _ in range(epochs):
        order = np.random.permutation(len(x))[: per_epoch * BATCH]
        for batch in np.split(order, per_epoch):
            model.train_on_batch(x[batch], y[batch])
    _, accuracy = model.evaluate(*test, verbose=0)
    return accuracy, metrics.sparsity(model, threshold=1e-13)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{'decay':20s}{'rate':>7s}{'accuracy':>10s}{'below 1e-13':>13s}")
    for name, make in DECAYS.items():
        results = [
            run(make(), arguments.steps, seed)
            for seed in range(arguments.seeds)
        ]
        accuracy, sparse = np.mean(results, axis=0)
        print(
            f"{name:20s}{make().weight_decay:7g}{accuracy:10.3f}{sparse:13.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
