"""Adam's step with some rules, as one would write it for one model.

What a general step of the same rule cannot be expected to beat: the same
passes over memory, and nothing around them.
"""

import keras
from keras import ops
from stepping import assigned
from stepping import donated

STRENGTH = 4e-6
TURN = 4e-6


def _l2(before, after, gradient):
    return after - STRENGTH * before


def _touched_rows(before, after, gradient):
    touched = ops.any(gradient != 0, axis=1, keepdims=True)
    return ops.where(touched, after - STRENGTH * before, after)


def _norm_control(before, after, gradient):
    norm = ops.sqrt(ops.sum(before * before))
    return after - STRENGTH * (1 - 1.0 / norm) * before


def _radial_brake(before, after, gradient):
    old = ops.sqrt(ops.sum(before * before))
    new = ops.sqrt(ops.sum(after * after))
    brake = ops.where(new > old, 0.5, 0.0)
    return after * (1 - brake * (new - old) / new)


def _hyperball(before, after, gradient):
    norm = ops.sqrt(ops.sum(before * before))
    step = after - before
    size = ops.sqrt(ops.sum(step * step))
    moved = before + TURN * norm / size * step
    return moved * (norm / ops.sqrt(ops.sum(moved * moved)))


RULES = {
    "L2": _l2,
    "L2, touched rows": _touched_rows,
    "NormControl": _norm_control,
    "RadialBrake": _radial_brake,
    "Hyperball": _hyperball,
}


def plain_step(name, weights, gradients):
    """A function of no arguments that takes one step and waits for it."""

    def one(w, m, v, g, count):
        rate = 1e-3 * ops.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        m = m + (g - m) * 0.1
        v = v + (g * g - v) * 0.001
        return RULES[name](w, w - rate * m / (ops.sqrt(v) + 1e-7), g), m, v

    def update(weights, state, gradients):
        *slots, count = state
        count = count + 1
        found = [
            one(*arrays, count)
            for arrays in zip(weights, *slots, gradients, strict=True)
        ]
        weights, *slots = map(list, zip(*found, strict=True))
        return weights, [*slots, count]

    weights = [ops.convert_to_tensor(array) for array in weights]
    slots = [[ops.zeros_like(w) for w in weights] for _ in range(2)]
    count = ops.convert_to_tensor(0.0)
    if keras.backend.backend() == "tensorflow":
        return assigned(update, weights, [*slots, count], gradients)
    return donated(update, weights, [*slots, count], gradients)
