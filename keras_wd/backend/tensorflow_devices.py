"""Several devices with TensorFlow."""

import contextlib
from collections.abc import Sequence

import keras
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


def holding(variables: Sequence[keras.Variable]) -> list:
    """The devices of this process that have a copy of all variables each.

    `[None]` where there is one device.
    """
    held = [_devices_of(variable) for variable in variables]
    return held[0] if all(one == held[0] for one in held) else [None]


def _devices_of(variable):
    if not isinstance(variable.value, tf.distribute.DistributedValues):
        return [None]
    copies = variable.value.values
    return [copy.device for copy in copies] if len(copies) > 1 else [None]


def on(device) -> contextlib.AbstractContextManager[object]:
    """A context in which `device`, one of `holding`, computes."""
    return contextlib.nullcontext() if device is None else tf.device(device)


def read(variable: keras.Variable, device):
    """The value as a tensor that lies on `device`, one of `holding`."""
    if device is None:
        return tf.convert_to_tensor(variable.value)
    copies = {copy.device: copy for copy in variable.value.values}
    return tf.convert_to_tensor(copies[device])


def assign(variable: keras.Variable, value) -> None:
    """Assign a value, which any device has, to the copies of all.

    In the scope of the strategy.
    """
    variable.assign(value)
