"""How the cost grows: with weights, layers, examples, outputs and width."""

import keras
import speed_measurements as measured
from keras import optimizers as of_keras
from speed_steps import around
from speed_steps import arrays
from stepping import compiled_step
from timing import alternate
from timing import milliseconds
from timing import ratios

from keras_wd import decays
from keras_wd import metrics
from keras_wd import optimizers


def growth(size, batch, rounds):
    """Rows (what, from, to, x as large, x as long)."""
    rows = []
    for name, sizes, functions in _cases(size, batch):
        seconds = alternate(dict(zip(sizes, functions, strict=True)), rounds)
        first = sizes[0]
        table = ratios(seconds, first)
        rows += [
            (
                name,
                f"{size:,}",
                milliseconds(seconds[size]),
                f"{size / first:.0f}",
                f"{table[size]:.2f}",
            )
            for size in sizes
        ]
    return rows


def _cases(size, batch):
    sizes = [size // 64, size // 16, size // 4]
    yield "weights, `Lp` around Adam", sizes, [_step(n) for n in sizes]
    tensors = [1, 16, 256]
    yield (
        "layers with as many weights in all, `Lp` around Adam",
        tensors,
        [_step(size // 8, count) for count in tensors],
    )
    pairs = [1, 4, 16]
    yield "pairs of layers, `PathProx`", pairs, [_paths(n) for n in pairs]
    examples = [batch // 4, batch, 4 * batch]
    yield (
        "examples, exact `jacobian_norm`",
        examples,
        [_jacobian(n, 10) for n in examples],
    )
    outputs = [4, 16, 32]
    yield (
        "outputs, exact `jacobian_norm`",
        outputs,
        [_jacobian(batch, n) for n in outputs],
    )
    widths = [128, 256, 512]
    yield "hidden units, step of `KFAC`", widths, [_kfac(n, 10) for n in widths]
    classes = [10, 100, 1000]
    yield "classes, step of `KFAC`", classes, [_kfac(256, n) for n in classes]


def _step(size, tensors=1):
    weights, gradients = arrays(size, tensors)
    return compiled_step(
        around(of_keras.Adam(1e-3), decays.Lp, p=0.8),
        weights,
        [keras.ops.convert_to_tensor(g) for g in gradients],
    )


def _paths(pairs, width=256):
    model = measured.network(width, hidden=2 * pairs - 1)
    optimizer = optimizers.PathProx(model, 0.01, 1e-4)
    model.compile(optimizer, measured.LOSS, jit_compile=True)
    x, y = map(keras.ops.convert_to_tensor, measured.batch_of(1))
    return lambda: model.train_on_batch(x, y)


def _jacobian(examples, outputs):
    model = measured.network(256, classes=outputs)
    x, _ = measured.batch_of(examples)
    return lambda: metrics.jacobian_norm(model, x, "exact", batch_size=examples)


def _kfac(width, classes):
    optimizer = optimizers.KFAC(0.01, damping=1e-3, kl_clip=None)
    x, y = measured.batch_of(128, classes)
    y[0] = classes - 1
    model, step = measured.training(optimizer, width, x, y)
    optimizer.update_curvature(model, keras.ops.convert_to_tensor(x))
    return step
