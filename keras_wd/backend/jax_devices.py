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
