"""Sparsity and accuracy over the exponent p: pAdam's claim, on digits.

    python -m benchmarks digits_sparsity [--steps 6000] [--seeds 3]

Trains a bias-free MLP 64-256-256-10 with Adam (learning rate 3e-3, cosine to
zero, batch 128) on scikit-learn's digits and prints, for every decay, the
test accuracy and the share of kernel weights below 1e-13, means over the
seeds with the smallest and largest.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import training
from digits import digits

from keras_wd import decays
from keras_wd import metrics
from keras_wd import optimizers

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


def run(decay, steps, seed):
    """Test accuracy and share of weights below 1e-13 after training."""
    keras.utils.set_random_seed(seed)
    data, test = digits()
    model = keras.Sequential([keras.Input((64,))])
    for units in (256, 256):
        model.add(keras.layers.Dense(units, "relu", use_bias=False))
    model.add(keras.layers.Dense(10, use_bias=False))
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    adam = keras.optimizers.Adam(schedule)
    training.compiled(model, optimizers.WeightDecay(adam, decay), 50)
    generator = np.random.default_rng(seed)
    rows = training.epochs_of(generator, len(data[0]), steps, BATCH)
    training.fit_in_order(model, data, rows, BATCH)
    _, accuracy = training.evaluated(model, test)
    return accuracy, metrics.sparsity(model, threshold=1e-13)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{arguments.steps} steps, {arguments.seeds} seeds")
    print(
        f"{'decay':20s}{'rate':>7s}{'accuracy':>10s}{'range':>16s}"
        f"{'below 1e-13':>13s}{'range':>16s}"
    )
    for name, make in DECAYS.items():
        results = [
            run(make(), arguments.steps, seed)
            for seed in range(arguments.seeds)
        ]
        mean = np.mean(results, axis=0)
        low, high = np.min(results, axis=0), np.max(results, axis=0)
        print(
            f"{name:20s}{make().weight_decay:7g}"
            + "".join(
                f"{value:{width}.3f}{f'{a:.3f} - {b:.3f}':>16s}"
                for value, width, a, b in zip(
                    mean, (10, 13), low, high, strict=True
                )
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
