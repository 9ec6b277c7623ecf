"""Every flag of every command, one row each.

A row says what the flag is called, where it stands in the help, its type,
default, limits and choices, and with which other flag it has a meaning.
"""

from keras_wd.cli.command_options import COMPACT
from keras_wd.cli.command_options import COMPARE
from keras_wd.cli.command_options import IMPORTANCE
from keras_wd.cli.command_options import PRUNE
from keras_wd.cli.command_options import TUNE
from keras_wd.cli.method_options import METHODS
from keras_wd.cli.option import Option
from keras_wd.cli.option import define
from keras_wd.cli.option import groups
from keras_wd.cli.run_options import HOW
from keras_wd.cli.run_options import WHAT

__all__ = [
    "COMPACT",
    "COMPARE",
    "DEVICES",
    "IMPORTANCE",
    "LAUNCH",
    "Option",
    "PRUNE",
    "TRAIN",
    "TUNE",
    "WHERE",
    "define",
    "groups",
]

# Those of `train` are also those of each run of `compare` and `tune`.
TRAIN = (*WHAT, *METHODS, *HOW)
# Flags that say how to start a run, not what is run: not stored with it.
LAUNCH = ("output_dir", "resume", "config")
# Flags that say what a run is computed on, which may change where it resumes.
DEVICES = ("distribute", "devices")
# Flags that say where data are, not what they are.
WHERE = ("data_dir", "stream")
