"""Laws of how long training with L2 decay takes, and what it forgets."""

import functools

import keras
import numpy as np
from digits import drawn
from laws_networks import plain
from laws_page import summary
from laws_page import verdict
from training import Trainer

from keras_wd import decays
from keras_wd import optimizers

SOURCE = "Lewkowycz and Gur-Ari, 2020"
LR, BATCH, TRAIN, PASSES = 0.3, 50, 400, 3
EVERY = PASSES * TRAIN // BATCH  # steps between two measurements
# The longest run is cut short of its peak for the smallest decay, which
# serves the laws of the accuracy alone.
DECAYS = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 0.0)
BUDGETS = (1000, 4000)
PEAK, PLATEAU = 6.0, 2.0  # lr * decay * steps


def steps_of(decay):
    """How long to train: as long as the laws that use this decay need."""
    horizon = PEAK if decay > 5e-4 else PLATEAU
    return max(BUDGETS[-1], round(horizon / (LR * decay)) if decay else 0)


class Watch(keras.callbacks.Callback):
    """The loss and the accuracy on the test images after every epoch."""

    def __init__(self, data):
        super().__init__()
        self.data, self.seen = data, []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(self.model.test_on_batch(*self.data))


def smoothed(values, width=5):
    return np.convolve(values, np.ones(width) / width, "valid")


@functools.cache
def curves(seed, decay):
    """Test losses and accuracies, running means, every EVERY steps."""
    train, test = drawn(seed, TRAIN)
    trainer = trainer_of()
    trainer.start(seed, LR, decay=decay)
    watch = Watch(test)
    # Several passes at once: an epoch of one would be too short to be fast.
    data = [np.concatenate([part] * PASSES) for part in train]
    trainer.fit(data, steps_of(decay) // EVERY, watch, seed=seed)
    return [smoothed(values) for values in np.array(watch.seen).T]


@functools.cache
def trainer_of():
    sgd = keras.optimizers.SGD(LR)
    rule = optimizers.WeightDecay(sgd, decays.L2(0.0))
    return Trainer(plain, rule, BATCH, EVERY)


def step_at(index):
    """The middle of the window of a running mean."""
    return (index + 3) * EVERY


def until(decay):
    """How many of the means are within the time of the law."""
    return round(PEAK / (LR * decay) / EVERY)


def peak(seeds):
    """The best step is c / (learning rate * decay).

    400 digits, an MLP 64-128-128-10 without biases, SGD at 0.3 with batches
    of 50, decays 3e-2, 1e-2, 3e-3, 1e-3, up to lr * decay * steps = 6; the
    step of the least test loss and of the best test accuracy, of means over
    5 measurements 24 steps apart; the slope of its logarithm in the decay's.
    """
    chosen = DECAYS[:4]
    for law, part, best in (
        ("least test loss", 0, np.argmin),
        ("best test accuracy", 1, np.argmax),
    ):
        peaks = np.array(
            [
                [
                    step_at(best(curves(seed, decay)[part][: until(decay)]))
                    for decay in chosen
                ]
                for seed in range(seeds)
            ]
        )
        constants = LR * np.array(chosen) * peaks
        print(f"  lr * decay * step, {law}:")
        print("   ", constants.mean(axis=0).round(2))
        slopes = np.polyfit(np.log(chosen), np.log(peaks).T, 1)[0]
        yield (
            f"slope of log t* in log decay, {law}",
            SOURCE,
            "-1 +-0.25",
            summary(slopes, ".2f", "+"),
            verdict(slopes, -1.25, -0.75),
        )


def best_accuracy(seed, decay, steps):
    window = curves(seed, decay)[1][: max(steps // EVERY - 4, 1)]
    return 100 * window.max()


def budget(seeds):
    """For a number of steps one decay is best; it falls as the number grows.

    The runs of `peak`, and one without decay: the best test accuracy within
    1000 and within 4000 steps.
    """
    found = {
        steps: np.array(
            [[best_accuracy(s, d, steps) for d in DECAYS] for s in range(seeds)]
        )
        for steps in BUDGETS
    }
    tops = []
    for steps, scores in found.items():
        means = scores.mean(axis=0)
        print(f"  {steps} steps:", means.round(2), "%, decays", DECAYS)
        top = int(np.argmax(means))
        tops.append(np.log(DECAYS)[np.argmax(scores[:, :-1], axis=1)])
        for other in (0, len(DECAYS) - 1):
            gains = scores[:, top] - scores[:, other]
            yield (
                f"accuracy after {steps} steps: best decay "
                f"({DECAYS[top]:g}) - {DECAYS[other]:g}",
                SOURCE,
                "> 0",
                summary(gains, ".2f", "+") + " %",
                verdict(gains, 0),
            )
    falls = (tops[1] - tops[0]) / np.log(10)
    yield (
        f"log10 of the best decay, {BUDGETS[1]} - {BUDGETS[0]} steps",
        SOURCE,
        "< 0",
        summary(falls, ".2f", "+"),
        verdict(falls, high=0),
    )


def plateau(seeds):
    """With steps in proportion to 1 / decay a small decay costs nothing.

    The runs of `peak`, and decay 3e-4: the best test accuracy until
    lr * decay * steps = 2.
    """
    scores = np.array(
        [
            [
                best_accuracy(seed, decay, round(PLATEAU / (LR * decay)))
                for decay in DECAYS[:-1]
            ]
            for seed in range(seeds)
        ]
    )
    print("  accuracies:", scores.mean(axis=0).round(2), DECAYS[:-1])
    for left, right in ((0, 2), (1, 2), (2, 3), (3, 4)):
        gains = scores[:, right] - scores[:, left]
        flat = left >= 2
        yield (
            f"accuracy, decay {DECAYS[right]:g} - {DECAYS[left]:g}",
            SOURCE,
            "-0.5 to 0.5 %" if flat else "> 0",
            summary(gains, ".2f", "+") + " %",
            verdict(gains, -0.5, 0.5) if flat else verdict(gains, 0),
        )
