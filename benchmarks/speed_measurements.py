"""What measuring costs, K-FAC's parts, PathProx and compacted inference.

The floor is that of the products of matrices (for those who multiply), at the
rate of one large product on the same machine, or of reading the weights once.
"""

import keras
import numpy as np
from keras import layers
from keras import ops
from stepping import compiled
from stepping import compiled_step
from timing import alternate
from timing import milliseconds
from timing import ratios

from keras_wd import callbacks
from keras_wd import decays
from keras_wd import graph
from keras_wd import metrics
from keras_wd import optimizers

INPUTS = 784
CLASSES = 10
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(width, classes=CLASSES, hidden=2):
    return keras.Sequential(
        [
            keras.Input((INPUTS,)),
            *(layers.Dense(width, "relu") for _ in range(hidden)),
            layers.Dense(classes),
        ]
    )


def batch_of(size, classes=CLASSES):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(size, INPUTS)).astype("float32")
    return x, generator.integers(0, classes, size)


def training(optimizer, width, x, y):
    """A compiled model, and a function that takes one step."""
    model = network(width, classes=int(y.max()) + 1)
    model.compile(optimizer, LOSS, jit_compile=True)
    x, y = map(ops.convert_to_tensor, (x, y))

    def step():
        model.train_on_batch(x, y)

    return model, step


def layer_sizes(width, classes=CLASSES, hidden=2):
    sizes = [INPUTS, *[width] * hidden, classes]
    return list(zip(sizes[:-1], sizes[1:], strict=True))


def forward_flops(width, batch):
    return sum(2 * batch * a * b for a, b in layer_sizes(width))


def step_flops(width, batch):
    """Forward, both gradients of a layer, but not that of the inputs."""
    first = 2 * batch * INPUTS * width
    return 3 * forward_flops(width, batch) - first


def kfac_flops(width, batch):
    """Of the curvature, the inverses and the products with them."""
    factors = [(a + 1, b) for a, b in layer_sizes(width)]
    # Half of a symmetric product is the mirror image of the other.
    moments = sum(batch * (a * a + b * b) for a, b in factors)
    first = 2 * batch * INPUTS * width
    backward = forward_flops(width, batch) - first
    return {
        "curvature": forward_flops(width, batch) + backward + moments,
        # Cholesky, the inverse of its factor, and their product: n^3 / 3 each.
        "inverses": sum(a**3 + b**3 for a, b in factors),
        "step": step_flops(width, batch)
        + sum(2 * a * b * (a + b) for a, b in factors),
    }


def multiplying(size=1024):
    """A large product, and how many operations it has."""
    generator = np.random.default_rng(0)
    a, b = (
        ops.convert_to_tensor(generator.normal(size=(size, size)), "float32")
        for _ in range(2)
    )
    program = compiled(lambda a, b: ops.matmul(a, b))
    return lambda: program(a, b), 2 * size**3


def measurements(width, batch, rounds):
    """Rows (what, ms, x a training step with SGD, x floor)."""
    x, y = batch_of(batch)
    model, sgd = training(keras.optimizers.SGD(0.01), width, x, y)
    units = graph.homogeneous_units(model)
    path_norm = decays.PathNorm(1e-3, units, coupling="coupled")
    forward = forward_flops(width, batch)
    weights = model.count_params()
    functions = {
        "training step, SGD": (sgd, step_flops(width, batch), None),
        "`jacobian_norm`, exact": (
            lambda: metrics.jacobian_norm(model, x),
            (1 + CLASSES) * forward,
            None,
        ),
        "`jacobian_norm`, 8 projections": (
            lambda: metrics.jacobian_norm(model, x, "random"),
            9 * forward,
            None,
        ),
        "`gauss_newton_norm`": (
            lambda: metrics.gauss_newton_norm(model, x),
            2 * forward,
            None,
        ),
        "`weight_norm`": (lambda: metrics.weight_norm(model), None, weights),
        "`sparsity`": (lambda: metrics.sparsity(model), None, weights),
        "path norm": (lambda: path_norm.value(model), None, weights),
    }
    functions.update(_kfac(width, x, y))
    multiply, operations = multiplying()
    # Three numbers per weight, as in the table of steps.
    values = [np.asarray(w) for w in model.get_weights()]
    copy = compiled_step(
        keras.optimizers.SGD(1e-3),
        values,
        [ops.convert_to_tensor(value) for value in values],
    )
    seconds = alternate(
        {
            **{name: function for name, (function, _, _) in functions.items()},
            "multiply": multiply,
            "copy": copy,
        },
        rounds,
    )
    by_step = ratios(seconds, "training step, SGD")
    by_product = ratios(seconds, "multiply")
    by_copy = ratios(seconds, "copy")
    rows = []
    for name, (_, flops, numbers) in functions.items():
        if flops is None:
            floor = by_copy[name] * 3 * weights / numbers
        else:
            floor = by_product[name] * operations / flops
        rows.append(
            (
                name,
                milliseconds(seconds[name]),
                f"{by_step[name]:.2f}",
                f"{floor:.1f}",
            )
        )
    return rows


def _kfac(width, x, y):
    optimizer = optimizers.KFAC(0.01, damping=1e-3, kl_clip=None)
    model, step = training(optimizer, width, x, y)
    tensor = ops.convert_to_tensor(x)
    optimizer.update_curvature(model, tensor)
    flops = kfac_flops(width, len(x))
    return {
        "`KFAC`, training step": (step, flops["step"], None),
        "`KFAC`, curvature": (
            lambda: optimizer.update_curvature(model, tensor, invert=False),
            flops["curvature"],
            None,
        ),
        "`KFAC`, inverses": (
            optimizer.update_inverses,
            flops["inverses"],
            None,
        ),
    }


def compaction(width, batch, rounds, kept=0.25):
    """Rows (model, ms, x the whole model, x the share of multiplications)."""
    keras.utils.set_random_seed(0)
    whole = network(width, hidden=3)
    hidden = whole.layers[:-1]
    for layer in hidden:
        kernel, bias = layer.get_weights()
        kernel[:, int(kept * width) :] = 0
        layer.set_weights([kernel, bias])
    small = graph.compact(whole)
    x = ops.convert_to_tensor(batch_of(batch)[0])

    def calling(model):
        model.compile(jit_compile=True)
        return lambda: model.predict_on_batch(x)

    seconds = alternate(
        {"whole": calling(whole), "compacted": calling(small)}, rounds
    )
    ratio = ratios(seconds, "whole")["compacted"]
    share = _multiplications(small) / _multiplications(whole)
    return [
        ("whole", milliseconds(seconds["whole"]), "1.00", ""),
        (
            f"{kept:.0%} of the hidden units",
            milliseconds(seconds["compacted"]),
            f"{ratio:.2f}",
            f"{ratio / share:.1f}",
        ),
    ]


def _multiplications(model):
    return sum(
        int(np.prod(layer.kernel.shape))
        for layer in model.layers
        if isinstance(layer, layers.Dense)
    )


def logging(batch, rounds):
    """Rows (callback, ms an epoch of `fit`, x without)."""
    x, y = batch_of(20 * batch)

    def fitting(chosen):
        model, _ = training(optimizers.SGDW(0.01, weight_decay=1e-3), 256, x, y)
        return lambda: model.fit(
            x,
            y,
            batch_size=batch,
            epochs=10,
            shuffle=False,
            verbose=0,
            callbacks=chosen,
        )

    probe = (x[:128], y[:128])
    functions = {
        "none": fitting([]),
        "`Mechanisms`": fitting([callbacks.Mechanisms(probe[0])]),
        "`AutoL2`": fitting([callbacks.AutoL2(probe)]),
        "`ReduceDecayOnPlateau`": fitting(
            [callbacks.ReduceDecayOnPlateau("loss")]
        ),
    }
    seconds = alternate(functions, rounds)
    by_none = ratios(seconds, "none")
    return [
        (name, milliseconds(times), f"{by_none[name]:.2f}")
        for name, times in seconds.items()
    ]
