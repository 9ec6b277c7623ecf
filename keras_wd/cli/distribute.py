"""`--distribute`: the devices that train a run together."""

import contextlib
import json
import os
from collections.abc import Iterator
from collections.abc import Mapping

import keras

from keras_wd.backend import devices
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import first_line


@contextlib.contextmanager
def sharing(settings: Mapping) -> Iterator[None]:
    """Train what is built inside on the devices that the flags name.

    Call it before anything is computed, which fixes the devices.

    Raises:
        UsageError: if there are not so many, or the flags do not go together.
    """
    if settings["distribute"] == "none":
        yield
        return
    _check_alone()
    found = _checked(settings["devices"])
    if settings["batch_size"] % found:
        raise UsageError(
            f"--batch_size must be a multiple of {found}, the devices that "
            "share a batch. Received: "
            f"--batch_size={settings['batch_size']}"
        )
    if settings["jit"] == "true" and not _compiles():
        raise UsageError(
            "--jit=true is not possible with --distribute=data on TensorFlow, "
            "which cannot compile a step that several devices share. Leave "
            "it out, or set KERAS_BACKEND=jax"
        )
    with devices.sharing(found, settings["batch_size"]):
        yield


def count(settings: Mapping) -> int:
    """The devices that train a run together."""
    if settings["distribute"] == "none":
        return 1
    return settings["devices"] or devices.available()[1]


def _check_alone():
    """Refuse to train one copy of the model on each machine of a cluster."""
    text = os.environ.get("TF_CONFIG", "{}")
    try:
        cluster = json.loads(text).get("cluster", {})
        tasks = sum(len(addresses) for addresses in cluster.values())
    except (ValueError, AttributeError, TypeError) as error:
        raise UsageError(
            "TF_CONFIG must be a JSON object with lists of addresses in "
            f"'cluster', or not be set. Received: TF_CONFIG={text!r}"
        ) from error
    if tasks > 1:
        raise UsageError(
            "--distribute=data is for the devices of one machine, and "
            f"TF_CONFIG names {tasks} tasks. Unset it; for several machines, "
            "see the page on more devices in the documentation"
        )


def _compiles():
    return keras.backend.backend() != "tensorflow"


def _checked(wanted):
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        raise UsageError(
            "--distribute=data needs the tensorflow or the jax backend. "
            f"Received: KERAS_BACKEND={backend}"
        )
    if wanted == 1:
        raise UsageError(
            "--devices must be at least 2 with --distribute=data. Received: "
            "--devices=1"
        )
    error = _split_cpu(wanted)
    kind, there = devices.available()
    if wanted is None and there == 1:
        raise UsageError(
            f"--distribute=data needs several devices; this machine has one "
            f"{kind}. To try it on a CPU, add --devices=2, which makes two "
            "devices of it"
        )
    if wanted is not None and wanted > there:
        reason = f" ({first_line(error)})" if error else ""
        raise UsageError(
            f"--devices must be at most {there}, the {kind} devices that are "
            f"here. Received: --devices={wanted}{reason}"
        )
    return there if wanted is None else wanted


def _split_cpu(wanted):
    """Make devices of a CPU alone; returns what was against it."""
    if wanted is None:
        return None
    try:
        # Accelerators stay what they are.
        devices.split_cpu(wanted)
    except RuntimeError as error:
        return error
    return None


def jit_compile(settings: Mapping, choice: bool | str) -> bool | str:
    """What of `choice` is possible on the devices of a run."""
    if settings["distribute"] == "none" or _compiles():
        return choice
    return False


def synchronize(model: keras.Model, together: bool) -> None:
    """Let normalizations use the statistics of the whole batch, or not.

    With TensorFlow every device otherwise uses those of its part. JAX has the
    whole batch always, and refuses a layer that says so: take it back before
    the model is saved.
    """
    if _compiles():
        return
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            synchronize(layer, together)
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = together
