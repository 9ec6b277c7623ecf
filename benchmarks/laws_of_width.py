"""Laws of wide networks under L2 decay."""

import functools

import keras
import numpy as np
from laws_page import summary
from laws_page import verdict
from scipy import integrate

from keras_wd import optimizers

SOURCE = "Lewkowycz and Gur-Ari, 2020"
RATE, LR, REPEATS = 0.01, 0.5, 50


def scaled(widths):
    """Bias-free ReLU network whose kernels have entries of variance 1."""
    stack = [keras.Input((widths[0],))]
    for fan_in, units in zip(widths[:-1], widths[1:], strict=True):
        last = units == widths[-1]
        stack += [
            keras.layers.Dense(
                units,
                use_bias=False,
                kernel_initializer=keras.initializers.RandomNormal(stddev=1.0),
            ),
            keras.layers.Rescaling((1 if last else 2) ** 0.5 / fan_in**0.5),
        ]
        if not last:
            stack.append(keras.layers.ReLU())
    return keras.Sequential(stack)


def tangent_kernel(kernels, x):
    """Inner products of the gradients of the output, of a pair of inputs."""
    scales = [2 / k.shape[0] for k in kernels[:-1]]
    scales.append(1 / kernels[-1].shape[0])
    inputs = [x]
    for matrix, scale in zip(kernels[:-1], scales[:-1], strict=True):
        inputs.append(np.maximum(inputs[-1] @ matrix * scale**0.5, 0))
    total, back = 0.0, np.ones((len(x), 1))
    for matrix, scale, h in zip(
        kernels[::-1], scales[::-1], inputs[::-1], strict=True
    ):
        total = total + scale * (h @ h.T) * (back @ back.T)
        back = scale**0.5 * (back @ matrix.T) * (h > 0)
    return total


def inputs_and_targets():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 10)).astype("float32")
    x /= np.linalg.norm(x, axis=1, keepdims=True) / 10**0.5
    return x, rng.normal(size=(12, 1)).astype("float32")


@functools.cache
def trained(depth, width, seeds):
    """What becomes of the kernel and the outputs.

    Returns, for every seed: the size of K at decay * time = 1 over that at the
    start, the cosine between both, how far the outputs at decay * time 1/4,
    1/2, 3/4 and 1 are from `solution`, and the size of the last of them over
    that of the first.
    """
    x, y = inputs_and_targets()
    widths = (10, *[width] * (depth - 1), 1)
    model = scaled(widths)
    model.compile(
        optimizers.SGDW(LR, RATE),
        lambda y, f: keras.ops.square(f - y) / 2,
        jit_compile=True,
        steps_per_execution=REPEATS,
    )
    many = np.tile(x, (REPEATS, 1)), np.tile(y, (REPEATS, 1))
    epochs = round(1 / (RATE * LR * REPEATS))
    found = []
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        model.set_weights(scaled(widths).get_weights())
        start = tangent_kernel(model.get_weights(), x)
        outputs = [model.predict_on_batch(x)]
        for _ in range(4):
            model.fit(*many, len(x), epochs // 4, 0, shuffle=False)
            outputs.append(model.predict_on_batch(x))
        end = tangent_kernel(model.get_weights(), x)
        norms = np.linalg.norm(start), np.linalg.norm(end)
        cosine = np.vdot(start, end) / np.prod(norms)
        expected = solution(depth, start, outputs[0][:, 0], y[:, 0])
        found.append(
            (
                norms[1] / norms[0],
                cosine,
                np.sqrt(np.mean((np.array(outputs)[1:, :, 0] - expected) ** 2)),
                np.linalg.norm(outputs[-1]) / np.linalg.norm(outputs[1]),
            )
        )
    return np.array(found).T


def solution(depth, kernel, start, targets):
    """The outputs at decay * time 1/4, 1/2, 3/4 and 1 by the equation

    df/dt = -exp(-2 (depth - 1) decay t) K (f - y) / N - depth * decay * f.
    """

    def slope(time, f):
        fading = np.exp(-2 * (depth - 1) * RATE * time)
        pull = kernel @ (f - targets) / len(targets)
        return -fading * pull - depth * RATE * f

    times = np.arange(1, 5) / 4 / RATE
    return integrate.solve_ivp(
        slope, (0, 1 / RATE), start, "LSODA", times, rtol=1e-8, atol=1e-10
    ).y.T


def kernel(seeds):
    """Under decay the kernel of a wide network fades, and does not turn.

    Bias-free ReLU networks of k layers, kernels of variance 1 over the root
    of the fan-in, 12 inputs of 10 features, squared error, full batches at
    learning rate 0.5, decay 0.01, until decay * time = 1.
    """
    for depth, narrow, wide in ((2, 512, 4096), (3, 128, 512)):
        expected = np.exp(-2 * (depth - 1))
        ratios, cosines, *_ = trained(depth, wide, seeds)
        coarse = trained(depth, narrow, seeds)[0]
        name = f"{depth} layers"
        if wide == 4096:
            yield (
                f"size of K, end / start, {name} of width {wide}",
                SOURCE,
                f"{expected:.4f} within 1 %",
                summary(ratios, ".4f"),
                verdict(ratios / expected, 0.99, 1.01),
            )
            yield (
                f"1 - cosine of K at the end and the start, {name}",
                SOURCE,
                "< 1e-4",
                summary(1 - cosines, ".1e"),
                verdict(1 - cosines, high=1e-4),
            )
        errors = np.abs(np.array([coarse, ratios]) / expected - 1)
        yield (
            f"error of that size, {name}, width {narrow} and {wide}",
            SOURCE,
            "falls",
            " and ".join(summary(100 * e, ".2f") for e in errors) + " %",
            verdict(errors[1] - errors[0], high=0),
        )


def function(seeds):
    """The outputs of a wide network follow a linear equation, to zero.

    The runs of `kernel`; the root of the mean squared difference between the
    outputs and the solution of the equation in `solution`, over the inputs
    and four times; a network of one layer has a kernel that does not fade
    and is the control.
    """
    for depth, narrow, wide in ((2, 512, 4096), (3, 128, 512)):
        errors = [trained(depth, width, seeds)[2] for width in (narrow, wide)]
        name = f"error of the outputs, {depth} layers"
        if wide == 4096:
            yield (
                f"{name} of width {wide}",
                SOURCE,
                "< 0.01",
                summary(errors[1], ".4f"),
                verdict(errors[1], high=0.01),
            )
        yield (
            f"{name}, width {narrow} and {wide}",
            SOURCE,
            "falls",
            " and ".join(summary(error, ".4f") for error in errors),
            verdict(errors[1] - errors[0], high=0),
        )
    two, one = (
        trained(depth, width, seeds)[3] for depth, width in ((2, 4096), (1, 1))
    )
    yield (
        "size of the outputs at decay * time 1 over that at 1/4, 2 layers",
        SOURCE,
        "< 1",
        summary(two, ".3f"),
        verdict(two, high=1),
    )
    yield (
        "the same, 1 layer - 2 layers",
        SOURCE,
        "> 0",
        summary(one - two, ".3f", "+"),
        verdict(one - two, 0),
    )
