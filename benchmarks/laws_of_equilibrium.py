"""Laws of where growth by gradients and shrinking by decay balance."""

import keras
import numpy as np
from digits import drawn
from laws_networks import normalized
from laws_page import summary
from laws_page import verdict
from training import Trainer

from keras_wd import constraints
from keras_wd import decays
from keras_wd import metrics
from keras_wd import optimizers

SGD, ADAM, LION = (
    getattr(keras.optimizers, n) for n in ("SGD", "Adam", "Lion")
)
KOSSON, VAN_LAARHOVEN = "Kosson et al., 2024", "van Laarhoven, 2017"


class Noise(keras.layers.Layer):
    """Weights whose gradient is noise, white on the tangent of the sphere."""

    def build(self, shape):
        self.kernel = self.add_weight(
            shape=self.size, initializer="random_normal", name="kernel"
        )
        self.noise = keras.random.SeedGenerator(0)

    def call(self, x):
        w = self.kernel
        noise = keras.random.normal(self.size, seed=self.noise)
        norms = keras.ops.sqrt(keras.ops.sum(w**2, axis=0))
        return keras.ops.mean(x) + keras.ops.sum(noise * w / norms)


def noise(seeds):
    """Growth by noise and decay balance at a norm and an angle per step.

    A weight of 200 components whose gradient is white noise orthogonal to
    it, one weight per seed, from norm 3 on; means over the last half of the
    steps (norm) and over 300 steps (angle).
    """
    size = 200
    root = (size - 1) ** 0.5
    adam_noise = (1 - 0.9) / (1 + 0.9)
    table = (
        # name, optimizer, decay, coupling, steps, norm, angle
        (
            "SGD",
            SGD(0.1),
            0.01,
            "decoupled",
            8000,
            (0.1 * root**2 / 0.02) ** 0.25,
            None,
        ),
        (
            "SGD, momentum 0.9",
            SGD(0.1, 0.9),
            0.01,
            "coupled",
            8000,
            (0.1 * root**2 / 0.002) ** 0.25,
            None,
        ),
        (
            "AdamW",
            ADAM(0.01),
            0.1,
            "decoupled",
            12000,
            (0.01 * size / 0.2) ** 0.5,
            None,
        ),
        ("Lion", LION(0.003), 0.1, "decoupled", 30000, None, None),
        (
            "Adam, coupled L2",
            ADAM(0.003),
            0.01,
            "coupled",
            40000,
            (0.003 * size**0.5 * root / 0.02) ** (1 / 3),
            lambda rho: 0.003 * (size * adam_noise) ** 0.5 / rho,
        ),
    )
    for name, inner, rate, coupling, steps, norm, angle in table:
        optimizer = optimizers.WeightDecay(
            inner, decays.L2(rate, coupling=coupling)
        )
        # The formula is for a network that is known to be scale-invariant.
        known = normalized()
        known.compile(optimizer)
        predicted = metrics.equilibrium_rotation(known)[
            known.layers[0].kernel.path
        ]
        layer = Noise()
        layer.size = (size, seeds)
        model = keras.Sequential([keras.Input((1,)), layer])
        model.compile(
            optimizer,
            lambda y, output: output,
            jit_compile=True,
            steps_per_execution=100,
        )
        rng = np.random.default_rng(0)
        start = rng.normal(size=layer.size)
        start *= 3 / np.linalg.norm(start, axis=0)
        layer.kernel.assign(start.astype("float32"))
        norms, angles = [], []
        read = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs, norms=norms, kernel=layer.kernel: (
                norms.append(np.linalg.norm(np.array(kernel.value), axis=0))
            )
        )
        data = np.zeros((steps // 40, 1), "float32")
        model.fit(data, data, 1, 40, 0, [read])
        for _ in range(300):
            before = np.array(layer.kernel.value)
            model.train_on_batch(data[:1], data[:1])
            after = np.array(layer.kernel.value)
            angles.append(
                [
                    metrics.rotation(before[:, i], after[:, i])
                    for i in range(seeds)
                ]
            )
        norms = np.mean(norms[20:], axis=0)
        if predicted is None:
            predicted = angle(norm)
        angles = np.mean(angles, axis=0)
        if norm is not None:
            yield (
                f"norm at equilibrium, {name}",
                f"{VAN_LAARHOVEN}, 3",
                f"{norm:.3f} within 3 %",
                summary(norms, ".3f"),
                verdict(norms / norm, 0.97, 1.03),
            )
        yield (
            f"angle per step at equilibrium, {name}",
            KOSSON,
            f"{predicted:.5f} within 3 %",
            summary(angles, ".5f"),
            verdict(angles / predicted, 0.97, 1.03),
        )


BATCH, PER_EPOCH = 20, 25


def invariant():
    """Every layer normalised: no weight has a scale that is felt."""
    return normalized(last_normalized=True)


class Norms(keras.callbacks.Callback):
    """The norm of every kernel after every epoch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        kernels = [np.array(v.value) for v in self.model.trainable_variables]
        self.seen.append([np.linalg.norm(kernel) for kernel in kernels])


def slopes(seeds):
    """The norm at equilibrium goes with a power of learning rate over decay.

    500 digits, an MLP with every layer normalised, batches of 20, so that
    the gradients stay noise; 5 / (lr * decay) steps at four pairs of learning
    rate and decay, of which three have about the same product; the slope of
    the logarithm of the norm (geometric mean of the layers, mean of the last
    fifth) in that of learning rate / decay.
    """
    for name, inner, pairs, expected in (
        (
            "SGD",
            SGD(0.1),
            ((0.03, 0.1), (0.1, 0.03), (0.1, 0.1), (0.3, 0.01)),
            0.25,
        ),
        (
            "AdamW",
            ADAM(0.1),
            ((1e-3, 1.0), (3e-3, 0.3), (3e-3, 1.0), (0.01, 0.1)),
            0.5,
        ),
    ):
        optimizer = optimizers.WeightDecay(inner, decays.L2(0.0))
        trainer = Trainer(invariant, optimizer, BATCH, PER_EPOCH)
        logs = []
        for seed in range(seeds):
            train, _ = drawn(seed)
            for lr, decay in pairs:
                trainer.start(seed, lr, decay=decay)
                norms = Norms()
                epochs = round(5 / (lr * decay) / PER_EPOCH)
                trainer.fit(train, epochs, norms, seed=seed)
                logs.append(np.log(norms.seen[-epochs // 5 :]).mean())
        found = np.polyfit(
            [np.log(lr / decay) for lr, decay in pairs],
            np.reshape(logs, (seeds, -1)).T,
            1,
        )[0]
        yield (
            f"slope of log norm in log(lr / decay), {name}",
            VAN_LAARHOVEN,
            f"{expected} +-0.05",
            summary(found, ".3f"),
            verdict(found, expected - 0.05, expected + 0.05),
        )


def sphere(seeds):
    """Decay is a learning rate: norms held where it leads do the same.

    The network and data of `slopes`, SGD at 0.1 with decay 0.03, 4000 steps;
    "held" starts from the same weights, every kernel at the norm it has in
    that run at the end (of the mean 1 / norm^2 in its second half), without
    decay and with `FixedNorm`, which keeps it there. Training losses are
    means of the second half of the steps. "Without decay" has neither. The
    time is that from twice the norms of equilibrium to a tenth above them (of
    the geometric mean of the layers), of which only the order is expected.
    """
    lr, decay, epochs = 0.1, 0.03, 160
    decaying = Trainer(
        invariant,
        optimizers.WeightDecay(SGD(lr), decays.L2(0.0)),
        BATCH,
        PER_EPOCH,
    )
    losses, times = [], []
    for seed in range(seeds):
        train, _ = drawn(seed)

        def second_half(trainer, *watches, seed=seed, train=train):
            losses = trainer.fit(train, epochs, *watches, seed=seed)
            return losses[epochs // 2 :].mean()

        decaying.start(seed, lr, decay=0.0)
        start = decaying.norms()
        without = second_half(decaying)
        decaying.start(seed, lr, decay=decay)
        norms = Norms()
        found = second_half(decaying, norms)
        # Of the same mean effective learning rate.
        half = np.array(norms.seen[epochs // 2 :])
        ends = np.mean(half**-2, axis=0) ** -0.5

        decaying.start(seed, lr, decay=decay)
        decaying.scale(2 * ends / start)
        falling = Norms()
        trainer = decaying
        trainer.fit(train, epochs, falling, seed=seed)
        excess = np.log(falling.seen / ends).mean(axis=1)
        reached = 1 + np.argmax(excess < np.log(1.1))
        times.append(lr * decay * PER_EPOCH * reached)

        held = Trainer(
            lambda ends=ends: normalized(
                [constraints.FixedNorm(None, radius) for radius in ends[:2]],
                last_normalized=True,
                last=constraints.FixedNorm(None, ends[2]),
            ),
            SGD(lr),
            BATCH,
            PER_EPOCH,
        )
        held.start(seed, lr)
        held.scale(ends / start)
        losses.append((without, found, second_half(held)))
    without, found, held = np.array(losses).T
    yield (
        "training loss: norms held / decay",
        VAN_LAARHOVEN,
        "0.9 to 1.1",
        summary(held / found, ".3f"),
        verdict(held / found, 0.9, 1.1),
    )
    yield (
        "the same, without decay / decay",
        VAN_LAARHOVEN,
        "not 1",
        summary(without / found, ".3f"),
        verdict(abs(np.log(without / found)), 0.1),
    )
    yield (
        "lr * decay * steps from twice the norm to 1.1 times",
        VAN_LAARHOVEN,
        "0.5 to 2",
        summary(times, ".2f"),
        verdict(times, 0.5, 2),
    )
