"""The cost of PathProx in `fit`, beside plain SGD and the authors' algorithm.

    python -m benchmarks path_prox_step [--width 1024] [--batch 128]
        [--steps 100] [--rounds 7]

Trains an MLP 784-width-width-width-width-10 on random images, compiled, with
`keras.optimizers.SGD` and with `optimizers.PathProx`, and, if PyTorch is
installed, with the authors' algorithm written there from its formulas (SGD,
layerwise balance, normalized input weights, soft threshold of the output
weights). Prints the seconds of `--steps` steps as ratios to SGD's, medians of
alternating rounds. Runs on the TensorFlow and JAX backends.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from timing import alternate
from timing import ratios

from keras_wd import optimizers

LEARNING_RATE = 0.01
WEIGHT_DECAY = 1e-4


def network(width):
    hidden = [keras.layers.Dense(width, "relu") for _ in range(4)]
    return keras.Sequential(
        [keras.Input((784,)), *hidden, keras.layers.Dense(10)]
    )


def fitting(make_optimizer, width, x, y, batch):
    """A function of no arguments that takes the steps of one epoch."""
    keras.utils.set_random_seed(0)
    model = network(width)
    model.compile(
        make_optimizer(model),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )
    return lambda: model.fit(
        x, y, batch_size=batch, epochs=1, shuffle=False, verbose=0
    )


def torch_steps(width, x, y, batch):
    """Plain SGD and PathProx in PyTorch, each over the same batches."""
    import torch

    images = torch.from_numpy(x).split(batch)
    labels = torch.from_numpy(y).split(batch)
    loss = torch.nn.CrossEntropyLoss()

    def build():
        torch.manual_seed(0)
        sizes = [784, *[width] * 4, 10]
        linear = [
            torch.nn.Linear(a, b)
            for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        ]
        stack = [part for layer in linear for part in (layer, torch.nn.ReLU())][
            :-1
        ]
        model = torch.nn.Sequential(*stack)
        return linear, model, torch.optim.SGD(model.parameters(), LEARNING_RATE)

    def epoch(after_step):
        linear, model, optimizer = build()
        pairs = list(zip(linear[0:4:2], linear[1:4:2], strict=True))

        def run():
            for image, label in zip(images, labels, strict=True):
                optimizer.zero_grad()
                objective = loss(model(image), label)
                if after_step:
                    rest = linear[-1].weight.square().sum()
                    objective = objective + WEIGHT_DECAY / 2 * rest
                objective.backward()
                optimizer.step()
                if after_step:
                    with torch.no_grad():
                        after_step(pairs)

        return run

    def proximal_step(pairs):
        norms = [
            (first.weight.norm(dim=1) * second.weight.norm(dim=0)).sum()
            for first, second in pairs
        ]
        mean = torch.stack(norms).clamp(min=1e-6).log().mean().exp()
        product = 1.0
        for (first, second), norm in zip(pairs, norms, strict=True):
            first.bias.mul_(product)
            scale = mean / norm
            product = product * scale
            second.weight.mul_(scale)
            second.bias.mul_(product)
        threshold = LEARNING_RATE * WEIGHT_DECAY
        for first, second in pairs:
            size = first.weight.norm(dim=1).clamp(min=1e-6)
            first.weight.div_(size[:, None])
            first.bias.div_(size)
            size = second.weight.norm(dim=0)
            second.weight.mul_((1 - threshold / size).clamp(min=0))

    return {
        "torch SGD": epoch(None),
        "torch PathProx": epoch(proximal_step),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    width, batch = arguments.width, arguments.batch

    generator = np.random.default_rng(0)
    count = batch * arguments.steps
    x = generator.normal(size=(count, 784)).astype("float32")
    y = generator.integers(0, 10, count)
    functions = {
        "SGD": fitting(
            lambda _: keras.optimizers.SGD(LEARNING_RATE), width, x, y, batch
        ),
        "PathProx": fitting(
            lambda model: optimizers.PathProx(
                model, LEARNING_RATE, WEIGHT_DECAY
            ),
            width,
            x,
            y,
            batch,
        ),
    }
    try:
        functions.update(torch_steps(width, x, y, batch))
    except ImportError:
        print("PyTorch is not installed: `pip install '.[bench]'`")

    seconds = alternate(functions, arguments.rounds, warmup=2)
    table = ratios(seconds, "SGD")
    print(
        f"784-{width} x 4-10, batch {batch}, backend {keras.backend.backend()}"
    )
    print(f"{'fit with':16s}{'ms/step':>10s}{'x SGD':>8s}")
    for name, times in seconds.items():
        milliseconds = 1e3 * float(np.median(times)) / arguments.steps
        print(f"{name:16s}{milliseconds:10.2f}{table[name]:8.2f}")
    if "torch PathProx" in table:
        speedup = ratios(seconds, "PathProx")["torch PathProx"]
        print(f"PathProx is {speedup:.2f} times faster than torch's")


if __name__ == "__main__":
    main()
