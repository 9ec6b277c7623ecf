"""A small GPT on the documentation of Python: AdamW, pAdam and PathNorm.

    python -m benchmarks small_gpt [--steps 1200] [--seeds 3]

Trains a transformer that reads characters (two blocks of width 48, context 48,
ReLU) on the docstrings of Python's standard library, the last tenth of them
for validation, with Adam (learning rate 3e-3, cosine to zero, batch 16) and
each decay at its rate; PathNorm on the pairs of dense layers, beside AdamW at
rate 1 on the rest. Prints, means over the seeds with the smallest and
largest: the loss per character in validation, the share of the kernel weights
below 1e-13, and the parameters left once `graph.compact` has removed the
hidden units that are dead.
"""

import argparse
import importlib
import inspect

import keras
import markdown_tables
import numpy as np
from keras import layers
from keras import ops

from keras_wd import decays
from keras_wd import graph
from keras_wd import metrics
from keras_wd import optimizers
from keras_wd import where

MODULES = (
    "argparse ast asyncio bdb calendar cmd codecs collections configparser "
    "contextlib copy csv ctypes datetime decimal difflib dis doctest email "
    "enum fileinput fractions ftplib functools gettext glob gzip heapq "
    "http.client inspect io ipaddress json locale logging mailbox mimetypes "
    "multiprocessing optparse os pathlib pdb pickle platform poplib pprint "
    "profile queue random re sched shelve shlex shutil smtplib socket "
    "socketserver sqlite3 ssl statistics string subprocess tarfile tempfile "
    "textwrap threading timeit token trace traceback turtle types typing "
    "unittest urllib.parse urllib.request uuid warnings weakref zipfile"
).split()
CONTEXT, WIDTH, BLOCKS, HEADS, BATCH = 48, 48, 2, 2, 16
CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))


def text():
    """What the modules say of themselves, in ASCII."""
    pieces = []
    for name in MODULES:
        module = importlib.import_module(name)
        members = [module, *(m for _, m in sorted(vars(module).items()))]
        for member in members:
            if getattr(member, "__module__", name) == name:
                pieces.append(inspect.getdoc(member) or "")
    pieces = [p for p in dict.fromkeys(pieces) if len(p) > 40]
    return "\n\n".join(pieces).encode("ascii", "ignore").decode()


def numbers(document):
    """Places of the characters in `CHARACTERS`."""
    places = {character: i for i, character in enumerate(CHARACTERS)}
    return np.array([places.get(c, 1) for c in document], "int32")


def windows(data, starts):
    """Inputs and targets, each of CONTEXT characters."""
    both = data[starts[:, None] + np.arange(CONTEXT + 1)]
    return both[:, :-1], both[:, 1:]


@keras.saving.register_keras_serializable("small_gpt")
class Characters(layers.Layer):
    """What a character is plus where it stands."""

    def build(self, shape):
        self.tokens = layers.Embedding(len(CHARACTERS), WIDTH, name="tokens")
        self.positions = layers.Embedding(CONTEXT, WIDTH, name="positions")
        self.tokens.build(shape)
        self.positions.build((CONTEXT,))

    def call(self, x):
        return self.tokens(x) + self.positions(ops.arange(CONTEXT))


def network():
    """Logits of the next character at every place."""
    inputs = keras.Input((CONTEXT,), dtype="int32")
    x = Characters(name="characters")(inputs)
    for block in range(BLOCKS):
        h = layers.LayerNormalization(name=f"norm_{block}_a")(x)
        mixed = layers.MultiHeadAttention(
            HEADS, WIDTH // HEADS, name=f"attention_{block}"
        )(h, h, use_causal_mask=True)
        x = layers.Add()([x, mixed])
        h = layers.LayerNormalization(name=f"norm_{block}_b")(x)
        h = layers.Dense(4 * WIDTH, "relu", name=f"hidden_{block}")(h)
        x = layers.Add()([x, layers.Dense(WIDTH, name=f"out_{block}")(h)])
    x = layers.LayerNormalization(name="norm")(x)
    outputs = layers.Dense(len(CHARACTERS), name="logits")(x)
    return keras.Model(inputs, outputs)


def methods(model):
    """Name: decays."""
    units = graph.homogeneous_units(model)
    paired = where.paths("hidden_*/kernel", "out_*/kernel")
    rest = decays.L2(1.0, where=where.kernels() & ~paired)
    return {
        "none": [],
        "AdamW, rate 0.1": decays.L2(0.1),
        "AdamW, rate 1": decays.L2(1.0),
        "pAdam, p = 0.8, rate 0.01": decays.Lp(0.01, p=0.8),
        "pAdam, p = 0.8, rate 0.03": decays.Lp(0.03, p=0.8),
        "PathNorm, rate 1; AdamW": [decays.PathNorm(1.0, units), rest],
        "PathNorm, rate 3; AdamW": [decays.PathNorm(3.0, units), rest],
    }


def train(model, decay, data, steps, seed):
    """Trains it; the batches are the same for every decay."""
    rng = np.random.default_rng(seed)
    x, y = windows(data, rng.integers(0, len(data) - CONTEXT, steps * BATCH))
    adam = keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(3e-3, steps)
    )
    model.compile(
        optimizers.WeightDecay(adam, decay) if decay else adam,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
        steps_per_execution=10,
    )
    model.fit(x, y, BATCH, shuffle=False, verbose=0)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seeds", type=int, default=3)
    flags = parser.parse_args()
    data = numbers(text())
    cut = len(data) * 9 // 10
    train_data, held_out = data[:cut], data[cut:]
    starts = np.arange(0, len(held_out) - CONTEXT, CONTEXT)
    x, y = windows(held_out, starts)
    print(f"{cut} characters to train on, {len(held_out)} held out")
    print(
        markdown_tables.header(
            ("decay", "loss per character", "weights gone", "parameters left")
        )
    )
    for name in methods(network()):
        found = []
        for seed in range(flags.seeds):
            keras.utils.set_random_seed(seed)
            model = network()
            train(model, methods(model)[name], train_data, flags.steps, seed)
            small = graph.compact(model, threshold=1e-13)
            found.append(
                (
                    model.evaluate(x, y, 256, verbose=0),
                    metrics.sparsity(model, threshold=1e-13),
                    small.count_params() / model.count_params(),
                )
            )
        loss, gone, left = np.transpose(found)
        spread = f"{loss.min():.3f} to {loss.max():.3f}"
        cells = (
            *(name, f"{loss.mean():.3f} ({spread})"),
            *(f"{gone.mean():.1%}", f"{left.mean():.1%}"),
        )
        print(markdown_tables.row(cells), flush=True)


if __name__ == "__main__":
    main()
