"""What a step of each optimizer costs, beside its peers and its floor."""

import keras
import numpy as np
import plain_steps
from keras import optimizers as of_keras
from stepping import clock
from stepping import compiled_step
from stepping import optax_step
from stepping import torch_steps
from timing import alternate
from timing import milliseconds
from timing import ratios

from keras_wd import decays
from keras_wd import optimizers
from keras_wd import where

RATE = 4e-3
COLUMNS = 1000
EXPONENTS = (0.5, 0.8, 1.0, 1.37, 1.5, 2.0, 2.7)

OF_KERAS = {
    "SGD": lambda **a: of_keras.SGD(1e-3, **a),
    "SGD, momentum": lambda **a: of_keras.SGD(1e-3, momentum=0.9, **a),
    "Adam": lambda **a: of_keras.Adam(1e-3, **a),
    "AdamW": lambda **a: of_keras.AdamW(1e-3, **{"weight_decay": 0.0} | a),
    "Adamax": lambda **a: of_keras.Adamax(1e-3, **a),
    "Nadam": lambda **a: of_keras.Nadam(1e-3, **a),
    "RMSprop": lambda **a: of_keras.RMSprop(1e-3, **a),
    "Adagrad": lambda **a: of_keras.Adagrad(1e-3, **a),
    "Adadelta": lambda **a: of_keras.Adadelta(1e-3, **a),
    "Adafactor": lambda **a: of_keras.Adafactor(1e-3, **a),
    "Lamb": lambda **a: of_keras.Lamb(1e-3, **a),
    "Lion": lambda **a: of_keras.Lion(1e-3, **a),
}


def arrays(size, tensors=1):
    """Weights and gradients of `size` numbers, in matrices."""
    generator = np.random.default_rng(0)
    shape = (size // COLUMNS // tensors, COLUMNS)
    weights = [
        generator.normal(0, 0.05, shape).astype("float32")
        for _ in range(tensors)
    ]
    gradients = [
        generator.normal(0, 1e-3, shape).astype("float32")
        for _ in range(tensors)
    ]
    return weights, gradients


def around(inner, decay, **arguments):
    everywhere = {"where": where.everything()}
    return optimizers.WeightDecay(inner, decay(RATE, **everywhere, **arguments))


def ours():
    """By name: an optimizer of ours, and the Keras one it is compared with."""
    adam, sgd = OF_KERAS["Adam"], OF_KERAS["SGD, momentum"]
    table = {
        "L2": (around(adam(), decays.L2), "Adam"),
        "L2, coupled": (
            around(adam(), decays.L2, coupling="coupled"),
            "Adam",
        ),
        "L1": (around(adam(), decays.L1), "Adam"),
        **{
            f"Lp, p={p:g}": (around(adam(), decays.Lp, p=p), "Adam")
            for p in EXPONENTS
        },
        "ProximalLp, p=0.5": (around(adam(), decays.ProximalLp, p=0.5), "Adam"),
        "GroupLasso": (
            around(adam(), decays.GroupLasso),
            "Adam",
        ),
        "PAdam": (optimizers.PAdam(1e-3, weight_decay=RATE), "Adam"),
        "SGDW": (
            optimizers.SGDW(1e-3, weight_decay=RATE, momentum=0.9),
            "SGD, momentum",
        ),
        "L2 and L1": (
            optimizers.WeightDecay(
                sgd(), [decays.L2(RATE), decays.L1(RATE, name="l1")]
            ),
            "SGD, momentum",
        ),
    }
    return table


# By rule: what makes it, and how often it passes over the weights beyond L2:
# reads and writes of as many numbers. A norm that is known before anything
# can be scaled by it is a pass of its own.
RULES = {
    "L2": (decays.L2, {}, 0),
    "L2, cautious": (decays.L2, {"cautious": True}, 0),
    "L2, layerwise": (decays.L2, {"layerwise": True}, 0),
    "L2, anchored": (decays.L2, {"anchor": "start"}, 1),
    "L2, touched rows": (decays.L2, {"touched_rows": True}, 1),
    "L1": (decays.L1, {}, 0),
    "L1 in the metric of Adam": (decays.L1, {"metric": "optimizer"}, 0),
    "Lp, p=0.8": (decays.Lp, {"p": 0.8}, 0),
    "Lp, p=0.8, late": (decays.Lp, {"p": 0.8, "late": True}, 0),
    "ProximalLp, p=0.7": (decays.ProximalLp, {"p": 0.7}, 0),
    "ProximalLp, p=0.9": (decays.ProximalLp, {"p": 0.9}, 0),
    "NormControl": (decays.NormControl, {}, 1),
    "CPR": (decays.CPR, {"coupling": "independent"}, 1),
    "GroupLasso": (decays.GroupLasso, {}, 3),
    "RadialBrake": (decays.RadialBrake, {"coupling": "independent"}, 4),
    "Hyperball": (decays.Hyperball, {}, 8),
}
MATRICES = 5


def rules(size, rounds):
    """Rows (rule, ms, x L2, more passes than L2, x L2 by the passes)."""
    weights, gradients = arrays(size, MATRICES)
    tensors = [keras.ops.convert_to_tensor(array) for array in gradients]
    adam = OF_KERAS["Adam"]
    functions = {
        name: compiled_step(around(adam(), kind, **arguments), weights, tensors)
        for name, (kind, arguments, _) in RULES.items()
    }
    seconds = alternate(functions, 2 * rounds, clock=clock())
    beside = ratios(seconds, "L2")
    # Adam's step with L2 reads weight, gradient and two slots, writes three.
    return [
        (
            name,
            milliseconds(seconds[name]),
            f"{beside[name]:.2f}",
            passes,
            f"{1 + passes / 7:.2f}",
        )
        for name, (_, _, passes) in RULES.items()
    ]


def beside_plain(size, rounds):
    """Rows (rule, ms, x the same step written plainly)."""
    weights, gradients = arrays(size, MATRICES)
    tensors = [keras.ops.convert_to_tensor(array) for array in gradients]
    adam = OF_KERAS["Adam"]
    rows = []
    for name in plain_steps.RULES:
        kind, arguments, _ = RULES[name]
        pair = {
            "plain": plain_steps.plain_step(name, weights, tensors),
            "ours": compiled_step(
                around(adam(), kind, **arguments), weights, tensors
            ),
        }
        seconds = alternate(pair, 2 * rounds, clock=clock())
        ratio = ratios(seconds, "plain")["ours"]
        rows.append((name, milliseconds(seconds["ours"]), f"{ratio:.2f}"))
    return rows


def numbers_moved(optimizer, size):
    """Per weight: read weight and gradient, write the weight; twice a slot."""
    slots = sum(int(np.prod(v.shape)) for v in optimizer.variables) / size
    return 3 + 2 * slots


def steps(size, rounds):
    """Rows (step, ms, x own decay of Keras, x floor, bytes per weight)."""
    weights, gradients = arrays(size)
    tensors = [keras.ops.convert_to_tensor(array) for array in gradients]
    own = {
        name: OF_KERAS[name](weight_decay=RATE)
        for name in ("Adam", "SGD, momentum")
    }
    wrapped = ours()
    everyone = {
        **{f"Keras {name}, its own decay": o for name, o in own.items()},
        **{name: optimizer for name, (optimizer, _) in wrapped.items()},
    }
    functions = {
        name: compiled_step(optimizer, weights, tensors)
        for name, optimizer in everyone.items()
    }
    peers = _peers(weights, gradients, tensors)
    # Reads two numbers and writes one, in place: the memory's bandwidth.
    plain = OF_KERAS["SGD"]()
    copy = {"copy": compiled_step(plain, weights, tensors)}
    seconds = alternate({**functions, **peers, **copy}, rounds)
    beside = {
        name: ratios(seconds, f"Keras {name}, its own decay") for name in own
    }
    by_copy = ratios(seconds, "copy")
    rows = []
    for name in [*functions, *peers]:
        baseline = wrapped[name][1] if name in wrapped else "Adam"
        if name == "Keras SGD, momentum, its own decay":
            baseline = "SGD, momentum"
        optimizer = everyone.get(name)
        moved = 7 if optimizer is None else numbers_moved(optimizer, size)
        floor = by_copy[name] * 3 / moved
        rows.append(
            (
                name,
                milliseconds(seconds[name]),
                f"{beside[baseline][name]:.2f}",
                f"{floor:.2f}",
                "" if optimizer is None else f"{4 * (moved - 3) / 2:.0f}",
            )
        )
    return rows


def _peers(weights, gradients, tensors):
    found = {}
    if keras.backend.backend() == "jax":
        try:
            import optax

            found["optax adamw"] = optax_step(
                optax.adamw(1e-3, weight_decay=RATE), weights, tensors
            )
        except ImportError:
            print("optax is not installed: `pip install '.[bench]'`")
    try:
        found.update(torch_steps(weights, gradients))
    except ImportError:
        print("PyTorch is not installed: `pip install '.[bench]'`")
    return found


def around_any(size, rounds):
    """Rows (Keras optimizer, ms, x of `WeightDecay` around it with `L2`)."""
    weights, gradients = arrays(size)
    tensors = [keras.ops.convert_to_tensor(array) for array in gradients]
    rows = []
    for name, make in OF_KERAS.items():
        pair = {
            "own": make(weight_decay=RATE),
            "ours": around(make(), decays.L2),
        }
        seconds = alternate(
            {
                side: compiled_step(optimizer, weights, tensors)
                for side, optimizer in pair.items()
            },
            8 * rounds,
        )
        ratio = ratios(seconds, "own")["ours"]
        rows.append((name, milliseconds(seconds["own"]), f"{ratio:.3f}"))
    return rows
