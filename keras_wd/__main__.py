"""The command line: `keras-wd` and `python -m keras_wd`."""

import importlib
import os
import sys
from collections.abc import Sequence

import keras_wd
from keras_wd.errors import did_you_mean

# Name: (module with `main(arguments) -> exit status`, what it does).
COMMANDS = {
    "compare": (
        "keras_wd.cli.compare",
        "Compare optimizers and weight decays; write a report.",
    ),
    "train": ("keras_wd.cli.train", "Train a network with a weight decay."),
    "tune": (
        "keras_wd.cli.tune",
        "Predict the best weight decay for a number of steps.",
    ),
    "compact": ("keras_wd.cli.compact", "Remove the dead units of a model."),
    "prune": (
        "keras_wd.cli.prune",
        "Remove the units of a model that matter least.",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; return the exit status, 2 for a mistake in usage.

    Args:
        arguments: what follows the name of the program; `sys.argv[1:]` if
            None.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["--version"]:
        print(f"keras-wd {keras_wd.__version__}")
        return 0
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(_usage())
        return 0 if arguments else 2
    command, *rest = arguments
    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS)
        return _fail(
            "keras-wd",
            f"there is no command {command!r}. Choose one of: "
            f"{', '.join(COMMANDS)}{hint}",
        )
    _prepare_environment()
    from keras_wd.cli.usage_errors import UsageError

    module, _ = COMMANDS[command]
    try:
        return importlib.import_module(module).main(rest)
    except UsageError as error:
        return _fail(f"keras-wd {command}", str(error))
    except KeyboardInterrupt:
        return 130


def _prepare_environment() -> None:
    """Set what the numerical libraries read when they are first used."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # A run that is resumed equals one that is not only if every operation
    # gives the same bits each time, which on a GPU has to be asked for.
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_gpu_deterministic_ops" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true"


def _fail(program: str, message: str) -> int:
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _usage() -> str:
    lines = ["usage: keras-wd COMMAND [--flag=value ...]", "", "Commands:"]
    lines += [f"  {name:<10}{text}" for name, (_, text) in COMMANDS.items()]
    lines += ["", "keras-wd COMMAND --help lists the flags of a command."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
