"""The cost of a decay inside a compiled Adam step, beside its peers.

    python benchmarks/optimizer_step.py [--parameters 20000000] [--rounds 15]

Prints the time of one compiled step on one float32 tensor as a ratio to that
of `keras.optimizers.AdamW`, for every p, in alternating rounds of one run;
and, if PyTorch is installed, the pAdam authors' algorithm written there from
its formula. Runs on the TensorFlow and JAX backends.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from timing import alternate
from timing import ratios

from keras_wd import decays
from keras_wd import optimizers
from keras_wd import where

EXPONENTS = (0.5, 1.0, 1.5, 2.0, 0.8, 1.2, 1.37, 2.7)


def compiled_step(optimizer, weights, gradient):
    """A function of no arguments that takes one step and waits for it."""
    variable = keras.Variable(weights, name="kernel")
    optimizer.build([variable])
    if keras.backend.backend() == "tensorflow":
        return _tensorflow_step(optimizer, variable, gradient)
    return _jax_step(optimizer, variable, gradient)


def _tensorflow_step(optimizer, variable, gradient):
    import tensorflow as tf

    gradient = tf.constant(gradient)

    @tf.function(jit_compile=True)
    def step():
        optimizer.apply([gradient], [variable])

    return step


def _jax_step(optimizer, variable, gradient):
    import jax

    state = [variable.value, [v.value for v in optimizer.variables]]
    gradient = jax.numpy.asarray(gradient)

    def update(weights, slots, gradient):
        (weights,), slots = optimizer.stateless_apply(
            slots, [gradient], [weights]
        )
        return weights, slots

    update = jax.jit(update, donate_argnums=(0, 1))

    def step():
        state[:] = update(*state, gradient)
        jax.block_until_ready(state)

    return step


def torch_steps(weights, gradient):
    """Fused AdamW, and pAdam as its authors wrote it: after AdamW's step."""
    import torch

    def parameter():
        tensor = torch.nn.Parameter(torch.from_numpy(weights.copy()))
        tensor.grad = torch.from_numpy(gradient)
        return tensor

    fused = torch.optim.AdamW([parameter()], lr=1e-3, fused=True)
    decayed = parameter()
    inner = torch.optim.AdamW([decayed], lr=1e-3, weight_decay=0.0)

    @torch.no_grad()
    def padam(p=0.8, penalty=1e-3, learning_rate=1e-3):
        before = decayed.clone()
        inner.step()
        x = before.abs().pow(2 - p)
        decayed.copy_(decayed * x / (x + p * learning_rate * penalty))

    return {"torch AdamW, fused": fused.step, "torch pAdam, p=0.8": padam}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parameters", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()

    generator = np.random.default_rng(0)
    size = arguments.parameters
    weights = generator.normal(0, 0.05, size).astype("float32")
    gradient = generator.normal(0, 1e-3, size).astype("float32")

    adam = keras.optimizers.Adam
    everywhere = where.everything()
    optimizers_ = {
        "keras Adam": adam(1e-3),
        "keras AdamW": keras.optimizers.AdamW(1e-3, weight_decay=4e-3),
        "L2": optimizers.WeightDecay(
            adam(1e-3), decays.L2(4e-3, where=everywhere)
        ),
        **{
            f"Lp, p={p:g}": optimizers.WeightDecay(
                adam(1e-3), decays.Lp(4e-3, p=p, where=everywhere)
            )
            for p in EXPONENTS
        },
    }
    steps = {
        name: compiled_step(optimizer, weights, gradient)
        for name, optimizer in optimizers_.items()
    }
    try:
        steps.update(torch_steps(weights, gradient))
    except ImportError:
        print("PyTorch is not installed: `pip install '.[bench]'`")

    seconds = alternate(steps, arguments.rounds)
    table = ratios(seconds, "keras AdamW")
    slots = {
        name: sum(v.shape == (size,) for v in optimizer.variables)
        for name, optimizer in optimizers_.items()
    }
    print(f"{size:,} parameters, backend {keras.backend.backend()}")
    print(f"{'step':22s}{'ms':>8s}{'x AdamW':>10s}{'slots/weight':>14s}")
    for name, times in seconds.items():
        print(
            f"{name:22s}{1e3 * float(np.median(times)):8.1f}"
            f"{table[name]:10.2f}{slots.get(name, ''):>14}"
        )
    if "torch pAdam, p=0.8" in table:
        speedup = ratios(seconds, "Lp, p=0.8")["torch pAdam, p=0.8"]
        print(f"Lp, p=0.8 is {speedup:.1f} times faster than torch's pAdam")


if __name__ == "__main__":
    main()
