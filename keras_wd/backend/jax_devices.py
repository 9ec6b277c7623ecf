"""Several devices with JAX."""

import contextlib
import os
from collections.abc import Sequence

import jax
import keras


def available() -> tuple[str, int]:
    """The kind of device that computes, such as "gpu", and how many."""
    devices = jax.devices()
    return devices[0].platform, len(devices)


def join() -> None:
    """Meet the other processes, if that has not been done.

    Raises:
        RuntimeError: if JAX has computed something already.
    """
    if not jax.distributed.is_initialized():
        keras.distribution.initialize()


def split_cpu(count: int) -> None:
    """Make `count` devices of the CPU.

    Raises:
        RuntimeError: if JAX has computed something already.
    """
    # JAX takes one of the two settings.
    if "xla_force_host_platform_device_count" not in os.environ.get(
        "XLA_FLAGS", ""
    ):
        jax.config.update("jax_num_cpu_devices", count)


def sharing(
    count: int, batch_size: int
) -> contextlib.AbstractContextManager[object]:
    """A scope in which models are trained by the first `count` devices.

    Args:
        count: of devices.
        batch_size: of the part of a training step that this process has. Every
            device gets the whole of a batch of another size.
    """
    devices = keras.distribution.list_devices()[:count]
    return _SharedSteps(devices, batch_size).scope()


def holding(variables: Sequence[keras.Variable]) -> list:
    """The devices of this process that have a copy of all variables each.

    `[None]` where there is one device, or where some variable is divided.
    """
    values = [variable.value for variable in variables]
    shared = [value for value in values if len(value.sharding.device_set) > 1]
    if not shared or len(shared) < len(values):
        return [None]
    if not all(value.is_fully_replicated for value in values):
        return [None]
    shards = shared[0].addressable_shards
    return sorted((shard.device for shard in shards), key=lambda d: d.id)


def on(device) -> contextlib.AbstractContextManager[object]:
    """A context in which `device`, one of `holding`, computes."""
    if device is None:
        return contextlib.nullcontext()
    return jax.default_device(device)


def read(variable: keras.Variable, device):
    """The value as a tensor that lies on `device`, one of `holding`."""
    if device is None:
        return variable.value
    for shard in variable.value.addressable_shards:
        if shard.device == device:
            return shard.data
    raise ValueError(
        f"`device` must hold {variable.path!r}. Received: device={device}."
    )


def assign(variable: keras.Variable, value) -> None:
    """Assign a whole value, which any device of this process has.

    Where processes train together, each has to have the same value.
    """
    sharding = variable.value.sharding
    if len(sharding.device_set) == 1 or _is_spread(value):
        variable.assign(value)
        return
    if not variable.value.is_fully_replicated:
        variable.assign(jax.device_put(value, sharding))
        return
    # Nothing else does it without asking the other processes.
    copies = [
        jax.device_put(value, device) for device in sharding.addressable_devices
    ]
    variable.assign(
        jax.make_array_from_single_device_arrays(
            tuple(variable.shape), sharding, copies
        )
    )


def _is_spread(value):
    return isinstance(value, jax.Array) and len(value.sharding.device_set) > 1


class _SharedSteps(keras.distribution.DataParallel):
    """Divides the batches of training, and no others.

    What is evaluated ends in a batch that may not divide.
    """

    def __init__(self, devices: Sequence[str], batch_size: int):
        super().__init__(devices=devices, auto_shard_dataset=False)
        self._training_batch_size = batch_size

    def get_data_layout(
        self, data_shape: Sequence[int]
    ) -> keras.distribution.TensorLayout:
        if data_shape[0] == self._training_batch_size:
            return super().get_data_layout(data_shape)
        whole = [None] * len(data_shape)
        return keras.distribution.TensorLayout(whole, self.device_mesh)
