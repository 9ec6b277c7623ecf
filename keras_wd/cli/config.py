"""The exact configuration of a run, as the JSON it can be repeated from."""

import json
import os
import platform
from collections.abc import Mapping
from collections.abc import Sequence
from importlib import metadata

import keras

import keras_wd
from keras_wd.cli import command_line
from keras_wd.cli import optimizer_factory
from keras_wd.cli import options
from keras_wd.cli.files import write_json
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import first_line

NAME = "config.json"
FORMAT = 1


def from_command_line(arguments: Sequence[str]) -> dict:
    """All settings of a new run, or of the run that is to be resumed.

    A flag given on the command line wins over the file of `--config`, and
    that over the default. A flag without a meaning for this run is None.

    Raises:
        UsageError: naming the flag, in one line.
    """
    launch = options.define(options.TRAIN)
    command_line.parse(launch, arguments)
    if launch.resume:
        return _resumed(arguments, launch)
    return _settings(arguments, launch.config)


def _settings(arguments, path):
    values = options.define(options.TRAIN)
    stored = set()
    if path is not None:
        stored = _parse_stored(values, path)
    given = command_line.parse(values, arguments)
    settings = values.flag_values_dict()
    for row in options.TRAIN:
        if row.needs is None:
            continue
        name, parent, wanted = row.name, row.needs.flag, row.needs.words
        if settings[parent] is not None and row.needs.test(settings[parent]):
            continue
        if name in given or (name in stored and parent not in given):
            raise UsageError(
                f"--{name} applies only with {wanted}. "
                f"Received: --{name}={settings[name]} with "
                f"--{parent}={settings[parent]}"
            )
        settings[name] = None
    return optimizer_factory.complete(settings)


def _resumed(arguments, launch):
    if launch.output_dir is None:
        raise UsageError("--resume needs --output_dir, the folder of the run")
    if launch.config is not None:
        raise UsageError(
            "--config cannot be used with --resume: the run in --output_dir "
            "has a configuration of its own"
        )
    path = os.path.join(launch.output_dir, NAME)
    if not os.path.exists(path):
        raise UsageError(
            f"--resume: there is no run in --output_dir={launch.output_dir} "
            f"({NAME} is missing)"
        )
    stored = _settings((), path)
    settings = _settings(arguments, path)
    differing = sorted(
        f"--{name}"
        for name in stored
        if name not in (*options.LAUNCH, *options.DEVICES, *options.WHERE)
        and stored[name] != settings[name]
    )
    if differing:
        raise UsageError(
            f"--resume: {', '.join(differing)} differs from the run in "
            f"--output_dir={launch.output_dir}. Leave it out, or start a new "
            f"run with --config={path}"
        )
    made_with = read(path)["environment"].get("backend")
    if made_with != keras.backend.backend():
        raise UsageError(
            f"--resume: the run was made on the {made_with} backend, this is "
            f"{keras.backend.backend()}. Set KERAS_BACKEND={made_with}"
        )
    return settings


def read(path: str) -> dict:
    """The contents of a configuration file, checked for its form.

    Raises:
        UsageError: if it is missing or is not one.
    """
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except OSError as error:
        raise UsageError(
            f"--config={path} cannot be read: {error.strerror}"
        ) from error
    except ValueError as error:
        raise UsageError(
            f"--config={path} is not JSON: {first_line(error)}"
        ) from error
    fits = (
        isinstance(document, dict)
        and document.get("format") == FORMAT
        and isinstance(document.get("flags"), dict)
        and isinstance(document.get("environment"), dict)
    )
    if not fits:
        raise UsageError(
            f"--config={path} is not the configuration of a run: it needs "
            f'"format": {FORMAT}, "flags" and "environment"'
        )
    return document


def refuse_other_run(run: str, wanted: Mapping, output_dir: str) -> None:
    """Refuse a folder in which a run has other settings.

    Args:
        run: folder of the run, which may not be there.
        wanted: settings it is to have.
        output_dir: of the comparison, for the message.

    Raises:
        UsageError: naming the flags.
    """
    path = os.path.join(run, NAME)
    if not os.path.exists(path):
        return
    stored = read(path)["flags"]
    differing = sorted(
        f"--{name}"
        for name in wanted
        if name not in options.WHERE and stored.get(name) != wanted[name]
    )
    if differing:
        raise UsageError(
            f"--output_dir={output_dir} has runs with other flags: "
            f"{', '.join(differing)}. Choose another folder"
        )


def _parse_stored(values, path):
    arguments = []
    for name, value in read(path)["flags"].items():
        if value is None:
            continue
        if name in options.LAUNCH or not isinstance(value, str | int | float):
            raise UsageError(
                f"--config={path}: {name!r} cannot be set to {value!r} there"
            )
        if isinstance(value, bool):
            value = str(value).lower()
        arguments.append(f"--{name}={value}")
    try:
        return command_line.parse(values, arguments)
    except UsageError as error:
        raise UsageError(f"--config={path}: {error}") from error


def write(settings: Mapping, folder: str) -> None:
    """Store the settings and what they ran on as `config.json`."""
    document = {
        "format": FORMAT,
        "command": "train",
        "flags": {
            name: value
            for name, value in settings.items()
            if name not in options.LAUNCH
        },
        "environment": environment(),
    }
    write_json(os.path.join(folder, NAME), document)


def environment() -> dict[str, str]:
    """The backend and the versions that the numbers of a run depend on."""
    backend = keras.backend.backend()
    return {
        "backend": backend,
        "python": platform.python_version(),
        "keras_wd": keras_wd.__version__,
        **{name: metadata.version(name) for name in ("keras", backend)},
    }
