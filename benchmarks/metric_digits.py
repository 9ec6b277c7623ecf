"""Zeros and accuracy on digits: L1 after Adam, plainly and in Adam's metric.

    python -m benchmarks metric_digits [--seeds 5] [--epochs 60]

Trains a network of two hidden layers of width 64 on scikit-learn's digits
with Adam and a proximal L1 step, `L1(rate)` and `L1(rate,
metric="optimizer")`, each at several rates, and prints test accuracy and the
share of zeros among the weights of the kernels, means over seeds with the
standard error of the accuracy. The rates of the two differ by what Adam
divides its steps by, so rows with as many zeros are to be compared, and not
rows of one rate.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import markdown_tables
import numpy as np
import training
from digits import digits

from keras_wd import decays
from keras_wd import metrics
from keras_wd import optimizers

RATES = {
    None: (0.03, 0.1, 0.2, 0.3, 0.5),
    "optimizer": (1e-4, 3e-4, 1e-3, 2e-3, 4e-3),
}


def run(metric, rate, seed, epochs):
    """Test accuracy and share of zeros."""
    keras.utils.set_random_seed(seed)
    (x, y), test = digits()
    hidden = [keras.layers.Dense(64, "relu") for _ in range(2)]
    model = keras.Sequential(
        [keras.Input((64,)), *hidden, keras.layers.Dense(10)]
    )
    batches = len(x) // 50
    rates = keras.optimizers.schedules.CosineDecay(3e-3, epochs * batches)
    decay = decays.L1(rate, metric=metric)
    optimizer = optimizers.WeightDecay(keras.optimizers.Adam(rates), decay)
    training.compiled(model, optimizer, batches)
    whole = batches * 50
    model.fit(x[:whole], y[:whole], 50, epochs, verbose=0)
    _, accuracy = training.evaluated(model, test)
    return accuracy, metrics.sparsity(model)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=60)
    given = parser.parse_args()
    columns = ("proximal step", "rate", "test accuracy, %", "zeros, %")
    print(markdown_tables.header(columns))
    for metric, rates in RATES.items():
        for rate in rates:
            runs = (
                run(metric, rate, seed, given.epochs)
                for seed in range(given.seeds)
            )
            found = np.array(list(runs))
            accuracy, zeros = 100 * found.mean(axis=0)
            error = 100 * found[:, 0].std(ddof=1) / given.seeds**0.5
            name = "in Adam's metric" if metric else "plain"
            shown = f"{accuracy:.1f} +-{error:.1f}"
            cells = (name, f"{rate:g}", shown, f"{zeros:.0f}")
            print(markdown_tables.row(cells), flush=True)


if __name__ == "__main__":
    main()
