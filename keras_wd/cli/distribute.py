"""`--distribute`: the devices and processes that train a run together."""

import contextlib
import json
import os
from collections.abc import Iterator
from collections.abc import Mapping

import keras

from keras_wd.backend import devices
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import first_line

_VARIABLE = "KERAS_DISTRIBUTION_"
_COUNT = "NUM_PROCESSES"
# The environment of a run that trains alone.
ALONE = {_VARIABLE + _COUNT: "1"}


@contextlib.contextmanager
def sharing(settings: Mapping) -> Iterator[None]:
    """Train what is built inside on the devices that the flags name.

    Call it before anything is computed, which fixes the devices.

    Raises:
        UsageError: if there are not so many, or the flags do not go together.
    """
    if settings["distribute"] == "none":
        refuse_processes(
            "Add --distribute=data, with which they train one run, or unset it"
        )
        yield
        return
    _check_alone()
    _, processes = process(settings)
    if processes > 1:
        _join(settings)
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
    with devices.sharing(found, settings["batch_size"] // processes):
        yield


def refuse_processes(
    fix: str = "Unset it: only keras-wd train --distribute=data is for several",
) -> None:
    """Refuse to be one of several processes that do the same each.

    Args:
        fix: what the user may do, for the message.

    Raises:
        UsageError: naming the variable that says there are several.
    """
    count = _variable(_COUNT, 1)
    if count > 1:
        raise UsageError(
            f"{_VARIABLE}{_COUNT}={count} would have {count} processes do the "
            f"same. {fix}"
        )


def count(settings: Mapping) -> int:
    """The devices that train a run together."""
    if settings["distribute"] == "none":
        return 1
    return settings["devices"] or devices.available()[1]


def process(settings: Mapping) -> tuple[int, int]:
    """The number of this process, and how many train a run together.

    Raises:
        UsageError: if the variables that say so make no sense.
    """
    count = _variable(_COUNT, 1)
    if settings["distribute"] == "none" or count < 2:
        return 0, 1
    number = _variable("PROCESS_ID", None)
    if number not in range(count):
        raise UsageError(
            f"{_VARIABLE}PROCESS_ID must be from 0 to {count - 1}. Received: "
            f"{number}"
        )
    return number, count


def is_first(settings: Mapping) -> bool:
    """Whether this process is the one that writes and prints."""
    return process(settings)[0] == 0


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Create variables in this process only.

    Keras makes an optimizer to save one, whose variables other processes
    would have to make as well.
    """
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def _variable(name, default):
    text = os.environ.get(_VARIABLE + name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError as error:
        raise UsageError(
            f"{_VARIABLE}{name} must be a whole number. Received: {text!r}"
        ) from error


def _join(settings):
    """Meet the other processes."""
    if settings["devices"] is not None:
        raise UsageError(
            "--devices is for one process; several share all the devices they "
            f"have. Leave it out. Received: --devices={settings['devices']}"
        )
    try:
        devices.join()
    except NotImplementedError as error:
        raise UsageError(
            f"{_VARIABLE}{_COUNT} is set. {first_line(error)} Set "
            "KERAS_BACKEND=jax, or unset it"
        ) from error
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"the processes of {_VARIABLE}JOB_ADDRESSES do not meet: "
            f"{first_line(error)}"
        ) from error


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
            f"TF_CONFIG names {tasks} tasks, with which Keras cannot `fit`. "
            "Unset it. For several machines, use KERAS_BACKEND=jax; see the "
            "page on more devices in the documentation"
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
