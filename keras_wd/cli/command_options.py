"""The flags that compare, tune, compact and prune have of their own."""

import os

from keras_wd.cli import executors
from keras_wd.cli import grid
from keras_wd.cli.option import Needs
from keras_wd.cli.option import Option
from keras_wd.cli.option import one_of

SEARCHING = Needs("search", one_of("asha"), "--search=asha")
COMPARE = (
    Option(
        "optimizers",
        "The comparison",
        str,
        "sgd,adam,kfac",
        "Optimizers, separated by commas.",
    ),
    Option(
        "decays",
        "The comparison",
        str,
        "none,coupled,decoupled",
        "Ways of decaying, separated by commas: "
        + ", ".join(grid.METHODS)
        + ".",
    ),
    Option(
        "rates",
        "The comparison",
        str,
        None,
        "Rates of the decays, separated by commas: all are tried and "
        "the best in validation is reported. Default: one rate that "
        "suits digits for each optimizer and decay. With --search: the "
        "lowest and the highest, by default a thirtieth and thirty times it.",
    ),
    Option(
        "seeds",
        "The comparison",
        int,
        5,
        "Runs of each, from seeds 0, 1, ...",
        least=1,
        most=10**4,
    ),
    Option(
        "workers",
        "The comparison",
        int,
        max(1, min(os.cpu_count() or 1, 8)),
        "Runs at the same time, each with the threads of one core.",
        least=1,
    ),
    Option(
        "executor",
        "The comparison",
        str,
        "local",
        "Where to run: local, or ray (a cluster).",
        choices=tuple(executors.EXECUTORS),
    ),
    Option(
        "output_dir",
        "The comparison",
        str,
        "comparison",
        "Folder for the report and the runs; runs that are complete in "
        "it are not repeated.",
    ),
    Option(
        "search",
        "The search",
        str,
        "none",
        "Choose learning rate and decay of each optimizer and decay before "
        "they are compared: asha (successive halving, by Optuna: most trials "
        "end after a ninth of the epochs), or none.",
        choices=("none", "asha"),
    ),
    Option(
        "search_budget",
        "The search",
        int,
        6,
        "What each optimizer and decay may spend on the search, the same for "
        "all up to the last trial, in runs of --epochs.",
        least=1,
        needs=SEARCHING,
    ),
    Option(
        "learning_rates",
        "The search",
        str,
        None,
        "The lowest and the highest learning rate, separated by a comma. "
        "Default: a tenth of what is usual for the optimizer, and ten times.",
        needs=SEARCHING,
    ),
    Option(
        "search_seed",
        "The search",
        int,
        0,
        "Decides what is tried. Trials are trained from a seed of their own, "
        "which is none of those compared.",
        least=0,
        most=10**6,
        needs=SEARCHING,
    ),
)
TUNE = (
    Option(
        "runs",
        "The prediction",
        int,
        1,
        "Short runs per decay, from --seed, --seed + 1, ...",
        least=1,
    ),
    Option(
        "probe_weight_decays",
        "The prediction",
        str,
        None,
        "Decays of the short runs, three or more. Default: five, half a "
        "decade apart, and up to two more where the loss is least.",
    ),
    Option(
        "like",
        "The prediction",
        str,
        None,
        "Folder of a run of keras-wd train with a good decay, with another "
        "batch size, number of examples or learning rate: the short runs "
        "start from its decay, scaled so that weights remember the same "
        "share of an epoch (tune.scale_weight_decay).",
    ),
    Option(
        "probe_epochs",
        "The prediction",
        int,
        None,
        "Length of a short run. Default: a quarter of --epochs.",
        least=1,
    ),
    Option(
        "output_dir",
        "The prediction",
        str,
        None,
        "New or empty folder for the result. Default: a fresh folder "
        "below runs/.",
    ),
)
_OUTPUT = Option(
    "output",
    "The models",
    str,
    None,
    "File to write, replaced if it exists; a .keras file.",
    short="o",
)
_TIMED = Option(
    "batch_size",
    "The models",
    int,
    256,
    "Examples of the batch that both models are timed on; 0 for no timing.",
)
_LITERT = Option(
    "litert",
    "The models",
    bool,
    False,
    "Export both models to LiteRT, compare them there and report their sizes "
    "and times; needs pip install 'keras_wd[export]'.",
)
COMPACT = (
    _OUTPUT,
    Option(
        "threshold",
        "The models",
        float,
        0.0,
        "Also remove units whose path product (norm of the incoming times "
        "norm of the outgoing weights) is at most this.",
    ),
    _TIMED,
    _LITERT,
)
IMPORTANCE = ("path", "magnitude", "batch_norm")
PRUNE = (
    _OUTPUT,
    Option(
        "ratio",
        "What may remain",
        float,
        None,
        "The share of the units to remove; or",
    ),
    Option(
        "multiply_adds",
        "What may remain",
        float,
        None,
        "the multiply-adds that may remain, a share or a number; or",
    ),
    Option(
        "latency",
        "What may remain",
        float,
        None,
        "the share of the time that may remain, measured.",
    ),
    Option(
        "importance",
        "The models",
        str,
        "path",
        "What units are ordered by: path, magnitude or batch_norm.",
        choices=IMPORTANCE,
    ),
    Option(
        "round_to",
        "The models",
        int,
        8,
        "Layers keep a multiple of this many units.",
    ),
    Option(
        "max_ratio",
        "The models",
        float,
        None,
        "The largest share of its units that a layer loses; 0.9, or --ratio.",
    ),
    _TIMED,
    _LITERT,
)
