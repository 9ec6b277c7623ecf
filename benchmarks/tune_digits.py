"""The predicted decay beside a grid of decays, for three budgets, on digits.

    python -m benchmarks tune_digits [--budgets 1000 2000 4000] [--seeds 8]

For every budget: `tune.predict_weight_decay` from its short runs, then a grid
of seven decays around no particular place (1e-4 to 0.1, half a decade apart)
and the predicted one, each trained for the whole budget from the same seeds.
Prints the test losses, whether that of the predicted decay is within one
standard error of the best of the grid (that of the mean over the seeds; the
error of the paired difference is printed too), and what the prediction cost as
a part of one pass over the grid. The grid is judged on the
test images, which favours its best: it is an upper bound.
"""

import argparse
import functools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
import training
from digits import digits
from laws_networks import plain

from keras_wd import decays
from keras_wd import optimizers
from keras_wd import tune

GRID = 10.0 ** np.arange(-4.0, -0.75, 0.5)
TRAINING, BATCH, LEARNING_RATE = 400, 64, 0.3
# Steps in one compiled call: every budget is a multiple.
AT_ONCE = 20


def model_fn(weight_decay):
    """The bias-free network 64-256-256-10 of the law."""
    optimizer = optimizers.SGDW(LEARNING_RATE, weight_decay)
    return training.compiled(plain(256), optimizer, AT_ONCE)


@functools.cache
def trainer():
    inner = keras.optimizers.SGD(LEARNING_RATE)
    optimizer = optimizers.WeightDecay(inner, decays.L2(0.0))
    return training.Trainer(lambda: plain(256), optimizer, BATCH, AT_ONCE)


def losses(weight_decay, steps, seeds, train, test):
    """The test loss at the end of the budget, for every seed."""
    found = []
    for seed in range(seeds):
        trainer().start(1000 + seed, LEARNING_RATE, decay=weight_decay)
        rng = np.random.default_rng(seed)
        order = rng.permuted(
            np.tile(np.arange(TRAINING), (-(-steps * BATCH // TRAINING), 1)),
            axis=1,
        ).ravel()[: steps * BATCH]
        model = trainer().model
        training.fit_in_order(model, train, order, BATCH)
        found.append(training.evaluated(model, test)[0])
    return np.array(found)


def compare(steps, seeds, train, validation, test):
    """One budget: print its rows; return whether the prediction held."""
    prediction = tune.predict_weight_decay(
        model_fn, train, steps, validation, batch_size=BATCH
    )
    print(f"\n{steps} steps\n{prediction}", flush=True)
    grid = {rate: losses(rate, steps, seeds, train, test) for rate in GRID}
    best = min(grid, key=lambda rate: grid[rate].mean())
    for rate, values in grid.items():
        mark = "  best of the grid" if rate == best else ""
        print(f"  decay {rate:<9.2g} test loss {values.mean():.4f}{mark}")
    if prediction.weight_decay is None:
        return False
    chosen = losses(prediction.weight_decay, steps, seeds, train, test)
    difference = chosen - grid[best]
    error = grid[best].std(ddof=1) / np.sqrt(seeds)
    paired = difference.std(ddof=1) / np.sqrt(seeds)
    cost = sum(probe.steps[-1] for probe in prediction.probes)
    within = difference.mean() <= error
    print(
        f"  decay {prediction.weight_decay:<9.2g} test loss "
        f"{chosen.mean():.4f}  predicted: {difference.mean():+.4f} from the "
        f"best +-{paired:.4f}, whose standard error is {error:.4f}: "
        f"{'within' if within else 'not within'} one; cost "
        f"{cost / (len(GRID) * steps):.2f} of one pass over the grid"
    )
    return within


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--budgets", type=int, nargs="+", default=[1000, 2000, 4000]
    )
    parser.add_argument("--seeds", type=int, default=8)
    arguments = parser.parse_args()
    (x, y), (x_test, y_test) = digits()
    center, spread = x.mean(), x.std()
    x = (x - center) / spread
    test = (x_test - center) / spread, y_test
    train = x[:TRAINING], y[:TRAINING]
    validation = x[TRAINING:], y[TRAINING:]
    held = [
        compare(steps, arguments.seeds, train, validation, test)
        for steps in arguments.budgets
    ]
    print(f"\n{sum(held)} of {len(held)} budgets within one standard error")


if __name__ == "__main__":
    main()
