"""Laws of weights whose scale a normalization removes."""

import math

import keras
import numpy as np
from digits import drawn
from laws_networks import normalized
from laws_networks import two_decays
from laws_page import summary
from laws_page import verdict
from training import LOSS
from training import Trainer

from keras_wd import callbacks
from keras_wd import optimizers

BATCH, PER_EPOCH = 50, 10
SGD = keras.optimizers.SGD
ZHANG = "Zhang et al., 2019"


def transfer(seeds):
    """Decay of normalised layers acts by the effective learning rate.

    500 digits, 400 epochs of batch 50, SGD at 0.1, a tenth of it after 60 %,
    decay 1e-2 of some layers. "Transfer" is no decay of the normalised
    layers, but, after every epoch, the norms they had in the run with it.
    """
    epochs, lr, rate = 400, 0.1, 1e-2
    trainer = Trainer(normalized, two_decays(SGD(lr)), BATCH, PER_EPOCH)
    schedule = keras.callbacks.LearningRateScheduler(
        lambda epoch: lr if epoch < 0.6 * epochs else lr / 10
    )
    scores, rises = [], []
    for seed in range(seeds):
        train, test = drawn(seed)

        def run(hidden, last, norms=None, seed=seed, train=train, test=test):
            trainer.start(seed, lr, hidden=hidden, last=last)
            norm = callbacks.NormTransfer(norms)
            trainer.fit(train, epochs, schedule, norm, seed=seed)
            return trainer.accuracy(test), norm.norms

        none, hidden, both = run(0, 0), run(rate, 0), run(rate, rate)
        moved, moved_last = run(0, 0, hidden[1]), run(0, rate, both[1])
        runs = none, run(0, rate), hidden, both, moved, moved_last
        scores.append([100 * score for score, _ in runs])
        # The learning rate itself is left out: 1 / norm^2, end over start.
        ends = [
            (n[-1]["hidden0/kernel"], n[0]["hidden0/kernel"])
            for n in (none[1], hidden[1])
        ]
        rises.append([(first / last) ** 2 for last, first in ends])
    none, last, hidden, both, moved, moved_last = np.array(scores).T
    print("  test accuracy in %:", np.mean(scores, axis=0).round(2))
    without, with_decay = np.array(rises).T
    source = f"{ZHANG}, 4.1"
    for law, values, low, high in (
        ("accuracy: decay of normalised layers - none", hidden - none, 0, None),
        ("accuracy: decay of the last layer - none", last - none, -0.3, 0.3),
        ("accuracy: transfer - that decay", moved - hidden, -0.3, 0.3),
        (
            "accuracy: transfer and decay of the last layer - decay of all",
            moved_last - both,
            -0.3,
            0.3,
        ),
    ):
        expected = "> 0" if high is None else f"{low} to {high} %"
        yield (
            law,
            source,
            expected,
            summary(values, ".2f", "+") + " %",
            verdict(values, low, np.inf if high is None else high),
        )
    yield (
        "effective learning rate without decay, end / start",
        source,
        "< 1",
        summary(without, ".3f"),
        verdict(without, 0, 1),
    )
    yield (
        "the same with decay",
        source,
        "> 1",
        summary(with_decay, ".1f"),
        verdict(with_decay, 1),
    )


def damping(seeds):
    """The effective damping of a normalised layer is its squared norm times d.

    The first layer at norms rho such that rho^2 d is a multiple of the
    largest eigenvalue of the curvature of its direction (exact Fisher):
    the cosine between the step of K-FAC and that of SGD.
    """
    d, ratios = 1e-3, np.geomspace(1e-6, 1e6, 25)
    curves = []
    for seed in range(seeds):
        x, y = drawn(seed)[0]
        keras.utils.set_random_seed(seed)
        model = normalized()
        weights = model.get_weights()
        kfac = optimizers.KFAC(
            1e6,
            d,
            momentum=0.0,
            curvature_decay=0.0,
            kl_clip=None,
            estimator="fisher_exact",
        )

        def step(
            optimizer, norm, model=model, weights=weights, x=x, y=y, kfac=kfac
        ):
            """The direction of a step; so long that rounding is lost."""
            model.set_weights(weights)
            kernel = model.layers[0].kernel
            before = np.array(kernel.value, "float64")
            before *= norm / np.linalg.norm(before)
            kernel.assign(before.astype("float32"))
            if getattr(model, "optimizer", None) is not optimizer:
                model.compile(optimizer, LOSS)
            if optimizer is kfac:
                kfac.update_curvature(model, x)
            model.train_on_batch(x, y)
            moved = np.array(kernel.value, "float64") - before
            return moved / np.linalg.norm(moved)

        gradient = step(SGD(1e6), 1.0)
        step(kfac, 1.0)
        factors = kfac.factors()[model.layers[0].kernel.path]
        largest = math.prod(np.linalg.norm(f, 2) for f in factors.values())
        curves.append(
            [
                np.vdot(step(kfac, math.sqrt(r * largest / d)), gradient)
                for r in ratios
            ]
        )
    curves = np.array(curves)
    print("  cosines:", curves.mean(axis=0)[::4].round(3))
    source = f"{ZHANG}, 4.3"
    least = np.diff(curves, axis=1).min(axis=1)
    yield (
        "cosine of the K-FAC step and the gradient, rho^2 d at 1e-6 and 1e6 "
        "times the largest curvature",
        source,
        "rises to > 0.99",
        f"{curves[:, 0].mean():.3f} to {summary(curves[:, -1], '.4f')}",
        verdict(curves[:, -1], 0.99) if least.min() > -1e-3 else "contradicted",
    )
    equal = curves[:, len(ratios) // 2]
    yield (
        "the same where rho^2 d is the largest curvature",
        source,
        "> 0.9",
        summary(equal, ".4f"),
        verdict(equal, 0.9),
    )
