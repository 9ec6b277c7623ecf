"""Every flag of every command: one row each.

A row says what the flag is called, where it stands in the help, its type,
default, limits and choices, and with which other flag it has a meaning.
`train`'s are also those of each run of `compare` and `tune`.
"""

import dataclasses
import os
from collections.abc import Callable
from collections.abc import Sequence

from absl import flags

from keras_wd.study import executors
from keras_wd.study import grid
from keras_wd.study import networks


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a flag has a meaning with.

    Attributes:
        flag: the other flag.
        test: whether a value of the other flag is such a one.
        words: what is needed, for messages.
    """

    flag: str
    test: Callable[[str], bool]
    words: str


@dataclasses.dataclass(frozen=True)
class Option:
    """A flag.

    Attributes:
        name: without the dashes.
        group: its heading in the help.
        kind: `str`, `int`, `float` or `bool`.
        default: its value if it is not given.
        help: what it means.
        choices: all its values, if they can be listed.
        least, most: the limits of a number.
        needs: without which it has no meaning: None is stored for it then.
        short: a name of one letter.
    """

    name: str
    group: str
    kind: type
    default: object
    help: str
    choices: Sequence[str] = ()
    least: float | None = None
    most: float | None = None
    needs: Needs | None = None
    short: str | None = None


_DEFINE = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_boolean,
}


def define(table: Sequence[Option]) -> flags.FlagValues:
    """The flags of a table with their defaults, apart from all others."""
    values = flags.FlagValues()
    for row in table:
        limits = {}
        if row.kind in (int, float):
            limits = {"lower_bound": row.least, "upper_bound": row.most}
        _DEFINE[row.kind](
            row.name,
            row.default,
            row.help,
            flag_values=values,
            short_name=row.short,
            **limits,
        )
    return values


def groups(table: Sequence[Option]) -> dict[str, list[str]]:
    """Names of flags by the headings of the help."""
    found = {}
    for row in table:
        found.setdefault(row.group, []).append(row.name)
    return found


def _is_built_here(model):
    return not networks.is_file(model)


def _is_kfac(optimizer):
    return optimizer.lower() == "kfac"


def _one_of(*values):
    return values.__contains__


def _none_of(*values):
    return lambda value: value not in values


MLP = Needs("model", _one_of("mlp"), "--model=mlp")
BUILT_HERE = Needs("model", _is_built_here, "a network built here")
WARMING = Needs(
    "lr_schedule",
    _one_of("constant", "cosine"),
    "--lr_schedule=constant or cosine",
)
WITH_P = Needs(
    "decay", _one_of("lp", "proximal_lp"), "--decay=lp or proximal_lp"
)
CPR = Needs("decay", _one_of("cpr"), "--decay=cpr")
DECAYING = Needs("decay", _none_of("none"), "a decay")
SELECTING = Needs(
    "decay", _none_of("none", "path_norm"), "a decay other than path_norm"
)
WARMUP_HOLD = Needs(
    "decay_schedule", _one_of("warmup_hold"), "--decay_schedule=warmup_hold"
)
STEPWISE = Needs(
    "decay_schedule", _one_of("stepwise"), "--decay_schedule=stepwise"
)
KFAC = Needs("optimizer", _is_kfac, "--optimizer=kfac")
SHARED = Needs("distribute", _one_of("data"), "--distribute=data")

TRAIN = (
    Option(
        "dataset",
        "Data",
        str,
        "digits",
        "What to learn: digits (bundled, 8 x 8 pixels); a TensorFlow Datasets "
        "set of images with a class label, such as mnist, cifar10; or data of "
        "your own: a folder with a folder of images for each class (./photos), "
        "a .csv or .npy table with --target, an .npz with x and y, or "
        "module:function, which returns arrays or a tf.data.Dataset.",
    ),
    Option(
        "target",
        "Data",
        str,
        None,
        "For a table: the column to predict, by name (.csv) or number (.npy).",
    ),
    Option(
        "task",
        "Data",
        str,
        "auto",
        "For data of your own: classification, regression, or auto "
        "(classification of words and of at most 20 different whole numbers).",
        choices=("auto", "classification", "regression"),
    ),
    Option(
        "image_size",
        "Data",
        str,
        None,
        "Height,width, or one number: images are resized to it. Default: "
        "their size, or the median of different ones.",
    ),
    Option(
        "standardise",
        "Data",
        bool,
        True,
        "Give inputs and numbers to regress mean 0 and deviation 1 "
        "(--nostandardise: as they are stored).",
    ),
    Option(
        "data_dir",
        "Data",
        str,
        None,
        "Folder for prepared data sets. Default: TensorFlow Datasets' "
        "own, $TFDS_DATA_DIR or ~/tensorflow_datasets.",
    ),
    Option(
        "train_examples",
        "Data",
        int,
        None,
        "Train on this many of the training images, drawn by the seed; "
        "the others are added to the test images. Default: all.",
        least=1,
    ),
    Option(
        "augment",
        "Data",
        str,
        "auto",
        "Shift by up to 4 pixels and mirror the training images at "
        "random: true, false, or auto (colour images only).",
        choices=("auto", "true", "false"),
    ),
    Option(
        "model",
        "Network",
        str,
        "mlp",
        "The network: mlp, cnn, vgg16, resnet32, or the path of a "
        ".keras file, whose weights are the starting point.",
    ),
    Option(
        "hidden_units",
        "Network",
        str,
        "256,256",
        "Widths of the hidden layers of the mlp, first to last.",
        needs=MLP,
    ),
    Option(
        "bias",
        "Network",
        bool,
        True,
        "Give the layers biases (--nobias: none).",
        needs=BUILT_HERE,
    ),
    Option(
        "batch_norm",
        "Network",
        bool,
        False,
        "Batch normalization, without scale and shift, after every "
        "hidden layer.",
        needs=BUILT_HERE,
    ),
    Option(
        "kernel_constraint",
        "Network",
        str,
        "none",
        "Keep the weights of every hidden unit at norm 1: fixed_norm, "
        "with --batch_norm; or none.",
        choices=("none", "fixed_norm"),
        needs=BUILT_HERE,
    ),
    Option(
        "dtype_policy",
        "Network",
        str,
        "float32",
        "Keras dtype policy: float32, mixed_bfloat16, mixed_float16, "
        "bfloat16, float16, float64.",
        choices=(
            "float32",
            "mixed_bfloat16",
            "mixed_float16",
            "bfloat16",
            "float16",
            "float64",
        ),
        needs=BUILT_HERE,
    ),
    Option(
        "optimizer",
        "Training",
        str,
        "adam",
        "Name of a Keras optimizer such as sgd, adam, rmsprop, lion; "
        "momentum (sgd with momentum 0.9), or kfac.",
    ),
    Option(
        "learning_rate",
        "Training",
        float,
        None,
        "Highest learning rate of the run. Default: what is usual for "
        "the optimizer (adam 0.001, momentum 0.03).",
        least=0,
    ),
    Option(
        "lr_schedule",
        "Training",
        str,
        "cosine",
        "Course of the learning rate: constant, cosine (to zero), or "
        "step (divided by 10 after 30, 60 and 90 % of the epochs).",
        choices=("constant", "cosine", "step"),
    ),
    Option(
        "warmup_epochs",
        "Training",
        float,
        0.0,
        "Epochs over which the learning rate first rises from zero; "
        "with the constant and cosine schedules.",
        least=0,
        needs=WARMING,
    ),
    Option(
        "epochs",
        "Training",
        int,
        60,
        "Passes through the training images.",
        least=1,
    ),
    Option(
        "batch_size",
        "Training",
        int,
        32,
        "Images per step. Each epoch leaves out the images, a "
        "different subset each time, that do not fill a batch.",
        least=1,
    ),
    Option(
        "seed",
        "Training",
        int,
        0,
        "Decides the initial weights, the order of the images and all "
        "other randomness: same seed, same run.",
        least=0,
        most=2**32 - 1,
    ),
    Option(
        "jit",
        "Training",
        str,
        "auto",
        "Compile the training step with XLA: true, false, or auto "
        "(wherever it is faster: on a CPU with TensorFlow for dense "
        "networks alone, in runs of 1,000 steps and more).",
        choices=("auto", "true", "false"),
    ),
    Option(
        "decay",
        "Weight decay",
        str,
        "lp",
        "The rule that shrinks weights: none, l2 (classic weight "
        "decay), l1, lp and proximal_lp (p-norm decay), group_lasso "
        "(whole units), norm_control (norms held where they start), cpr "
        "(norms bounded at those after a warm-up; takes "
        "--coupling=independent), hyperball and radial_brake (research; "
        "the latter takes --coupling=independent), path_norm (PathProx: "
        "on pairs of layers, coupled l2 on the rest).",
        choices=(
            "none",
            "l2",
            "l1",
            "lp",
            "proximal_lp",
            "group_lasso",
            "norm_control",
            "cpr",
            "hyperball",
            "radial_brake",
            "path_norm",
        ),
    ),
    Option(
        "weight_decay",
        "Weight decay",
        float,
        None,
        "Rate of the decay. A decoupled l2 step takes learning rate x "
        "rate off every weight, as a fraction. Default: 0.1, or 0.001 "
        "for sgd and momentum.",
        least=0,
        needs=DECAYING,
    ),
    Option(
        "decay_schedule",
        "Weight decay",
        str,
        "constant",
        "Course of the rate: constant, constant_timescale (same "
        "shrinkage at any learning rate), proportional (to the learning "
        "rate), warmup_hold (rises, then stays), stepwise "
        "(--decay_factors), auto_l2 (divided by 10 when training "
        "stalls).",
        choices=(
            "constant",
            "constant_timescale",
            "proportional",
            "warmup_hold",
            "stepwise",
            "auto_l2",
        ),
        needs=DECAYING,
    ),
    Option(
        "decay_warmup_epochs",
        "Weight decay",
        float,
        5.0,
        ("Epochs over which --decay_schedule=warmup_hold rises from zero."),
        least=0,
        needs=WARMUP_HOLD,
    ),
    Option(
        "decay_factors",
        "Weight decay",
        str,
        "1,0.1,0.01",
        "For --decay_schedule=stepwise: the rate is multiplied by each "
        "in turn, for equal parts of the run.",
        needs=STEPWISE,
    ),
    Option(
        "cpr_warmup_epochs",
        "Weight decay",
        float,
        1.0,
        "Epochs after which --decay=cpr takes the norms as bounds.",
        least=0,
        needs=CPR,
    ),
    Option(
        "p",
        "Weight decay",
        float,
        0.8,
        "Exponent of the norm in lp and proximal_lp, above 0. Below 1 "
        "most weights vanish; 2 is close to l2.",
        needs=WITH_P,
    ),
    Option(
        "coupling",
        "Weight decay",
        str,
        "decoupled",
        "How the decay meets the learning rate: decoupled (times it, as "
        "AdamW in Keras), independent (not), coupled (a penalty in the "
        "gradient).",
        choices=("decoupled", "independent", "coupled"),
        needs=DECAYING,
    ),
    Option(
        "where",
        "Weight decay",
        str,
        "kernels",
        "Which weights decay: kernels (no biases), everything, "
        "embeddings, attention, normalizations, tokens, or globs on "
        "their paths such as 'hidden_*/kernel', separated by commas; a "
        "leading ~ leaves out.",
        needs=SELECTING,
    ),
    Option(
        "damping",
        "K-FAC",
        float,
        0.03,
        "For --optimizer=kfac: what is added to the curvature before it "
        "is inverted.",
        least=0,
        needs=KFAC,
    ),
    Option(
        "kl_clip",
        "K-FAC",
        float,
        0.001,
        "For --optimizer=kfac: steps are shortened to this bound on "
        "what they change in the predictions; 0: not.",
        least=0,
        needs=KFAC,
    ),
    Option(
        "estimator",
        "K-FAC",
        str,
        "fisher",
        "For --optimizer=kfac, the curvature: fisher (labels drawn from "
        "the predictions), gauss_newton (of the outputs alone), their "
        "exact forms with one backward pass per class, or empirical "
        "(the true labels).",
        choices=(
            "fisher",
            "fisher_exact",
            "gauss_newton",
            "gauss_newton_exact",
            "empirical",
        ),
        needs=KFAC,
    ),
    Option(
        "curvature_every",
        "K-FAC",
        int,
        10,
        ("For --optimizer=kfac: steps between two measurements of curvature."),
        least=1,
        needs=KFAC,
    ),
    Option(
        "invert_every",
        "K-FAC",
        int,
        50,
        "For --optimizer=kfac: steps between two inversions.",
        least=1,
        needs=KFAC,
    ),
    Option(
        "distribute",
        "Devices",
        str,
        "none",
        "Train on several devices of this machine: data (each takes its "
        "part of every batch; results as on one device, but for "
        "rounding), or none. A run may be resumed on other devices.",
        choices=("none", "data"),
    ),
    Option(
        "devices",
        "Devices",
        int,
        None,
        "For --distribute=data: how many devices. Default: all GPUs or "
        "TPU cores. On a machine without, the CPU is made into that "
        "many, to try it.",
        least=1,
        needs=SHARED,
    ),
    Option(
        "output_dir",
        "The run",
        str,
        None,
        "New or empty folder for the results. Default: a fresh folder "
        "below runs/.",
    ),
    Option(
        "resume",
        "The run",
        bool,
        False,
        "Continue the interrupted run in --output_dir; its own flags "
        "are used again.",
    ),
    Option(
        "config",
        "The run",
        str,
        None,
        "Start from the config.json of another run; flags given beside it win.",
    ),
)
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
        "suits digits for each optimizer and decay.",
    ),
    Option(
        "seeds",
        "The comparison",
        int,
        5,
        "Runs of each, from seeds 0, 1, ...",
        least=1,
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
    _TIMED,
)

# Flags that say how to start a run, not what is run: not stored with it.
LAUNCH = ("output_dir", "resume", "config")
# Flags that say what a run is computed on, which may change where it resumes.
DEVICES = ("distribute", "devices")
