"""Several devices with TensorFlow."""

import contextlib

import tensorflow as tf


def available() -> tuple[str, int]:
    """The kind of device that computes, "gpu" or "cpu", and how many."""
    for kind in ("GPU", "CPU"):
        physical = tf.config.list_physical_devices(kind)
        if len(physical) > 1 or (physical and kind == "GPU"):
            return kind.lower(), len(physical)
    configured = tf.config.get_logical_device_configuration(physical[0])
    return "cpu", len(configured or [None])


def join() -> None:
    """Not possible."""
    raise NotImplementedError(
        "Several processes need the jax backend: Keras cannot `fit` with "
        "those of TensorFlow."
    )


def split_cpu(count: int) -> None:
    """Make `count` devices of the CPU.

    Raises:
        RuntimeError: if TensorFlow has computed something already.
    """
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * count,
    )


def sharing(
    count: int, batch_size: int
) -> contextlib.AbstractContextManager[object]:
    """A scope in which models are trained by the first `count` devices.

    Args:
        count: of devices.
        batch_size: of a training step; TensorFlow divides any.
    """
    kind, _ = available()
    names = [f"{kind.upper()}:{index}" for index in range(count)]
    return tf.distribute.MirroredStrategy(names).scope()
