"""Compiled programs on both backends, for the benchmarks."""

import platform
import time

import keras


def compiled(function):
    """`function` of tensors, compiled by XLA; a call waits for the result."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    import jax

    program = jax.jit(function)
    return lambda *args: jax.block_until_ready(program(*args))


def compiled_step(optimizer, weights, gradients):
    """A function of no arguments that takes one step and waits for it.

    Args:
        optimizer: a Keras optimizer, not built.
        weights: arrays, which become the kernels of layers.
        gradients: one tensor for each.
    """
    variables = []
    for index, array in enumerate(weights):
        with keras.name_scope(f"layer_{index}"):
            variables.append(keras.Variable(array, name="kernel"))
    optimizer.build(variables)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        @tf.function(jit_compile=True)
        def step():
            optimizer.apply(gradients, variables)

        return step

    def update(weights, slots, gradients):
        return optimizer.stateless_apply(slots, gradients, weights)

    slots = [v.value for v in optimizer.variables]
    return donated(update, [v.value for v in variables], slots, gradients)


def optax_step(transformation, weights, gradients):
    """The same for an optax transformation, on the JAX backend."""
    import jax
    import optax

    weights = [jax.numpy.asarray(array) for array in weights]

    def update(weights, state, gradients):
        updates, state = transformation.update(gradients, state, weights)
        return optax.apply_updates(weights, updates), state

    state = transformation.init(weights)
    return donated(update, weights, state, gradients)


def donated(update, weights, slots, gradients):
    """A step of JAX that writes weights and slots where they were."""
    import jax

    update = jax.jit(update, donate_argnums=(0, 1))
    state = [weights, slots]

    def step():
        state[:] = update(*state, gradients)
        jax.block_until_ready(state)

    return step


def assigned(update, weights, slots, gradients):
    """A step of TensorFlow that writes weights and slots where they were."""
    import tensorflow as tf

    weights, slots = tf.nest.map_structure(tf.Variable, (weights, slots))

    @tf.function(jit_compile=True)
    def step():
        read = tf.nest.map_structure(tf.convert_to_tensor, (weights, slots))
        tf.nest.map_structure(
            lambda variable, value: variable.assign(value),
            (weights, slots),
            update(*read, gradients),
        )

    return step


def torch_steps(weights, gradients):
    """Fused AdamW, and pAdam as its authors wrote it: after AdamW's step."""
    import torch

    def parameters():
        made = [torch.nn.Parameter(torch.tensor(array)) for array in weights]
        for tensor, gradient in zip(made, gradients, strict=True):
            tensor.grad = torch.tensor(gradient)
        return made

    fused = torch.optim.AdamW(parameters(), lr=1e-3, fused=True)
    decayed = parameters()
    inner = torch.optim.AdamW(decayed, lr=1e-3, weight_decay=0.0)

    @torch.no_grad()
    def padam(p=0.8, penalty=1e-3, learning_rate=1e-3):
        before = [tensor.clone() for tensor in decayed]
        inner.step()
        for tensor, previous in zip(decayed, before, strict=True):
            x = previous.abs().pow(2 - p)
            tensor.copy_(tensor * x / (x + p * learning_rate * penalty))

    return {"torch AdamW, fused": fused.step, "torch pAdam, p=0.8": padam}


def device_name():
    """The device that the programs run on, in words."""
    if keras.backend.backend() == "jax":
        import jax

        device = jax.devices()[0]
        if device.platform != "cpu":
            return device.device_kind
    else:
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            details = tf.config.experimental.get_device_details(gpus[0])
            return details.get("device_name", "GPU")
    return f"{_processor()}, {_cores()} cores"


def clock():
    """The time that counts: the processor's, where it does the work."""
    alone = device_name().endswith("cores")
    return time.process_time if alone else time.perf_counter


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores():
    import os

    return len(os.sched_getaffinity(0))
