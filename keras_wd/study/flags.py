"""The flags of `keras-wd train`, on a `FlagValues` of their own."""

from absl import flags

CHOICES = {
    "augment": ("auto", "true", "false"),
    "lr_schedule": ("constant", "cosine", "step"),
    "decay": ("none", "l2", "l1", "lp", "proximal_lp", "group_lasso"),
    "decay_schedule": (
        "constant",
        "constant_timescale",
        "proportional",
        "warmup_hold",
        "stepwise",
    ),
    "coupling": ("decoupled", "independent", "coupled"),
    "dtype_policy": (
        "float32",
        "mixed_bfloat16",
        "mixed_float16",
        "bfloat16",
        "float16",
        "float64",
    ),
    "jit": ("auto", "true", "false"),
}

# Flags that say how to start a run, not what is run: not stored with it.
LAUNCH = ("output_dir", "resume", "config")

GROUPS = {
    "Data": ("dataset", "data_dir", "augment"),
    "Network": (
        "model",
        "hidden_units",
        "bias",
        "batch_norm",
        "dtype_policy",
    ),
    "Training": (
        "optimizer",
        "learning_rate",
        "lr_schedule",
        "warmup_epochs",
        "epochs",
        "batch_size",
        "seed",
        "jit",
    ),
    "Weight decay": (
        "decay",
        "weight_decay",
        "decay_schedule",
        "decay_warmup_epochs",
        "decay_factors",
        "p",
        "coupling",
        "where",
    ),
    "The run": LAUNCH,
}


def define() -> flags.FlagValues:
    """The flags of `keras-wd train` with their defaults."""
    values = flags.FlagValues()
    _define_data_and_network(values)
    _define_training(values)
    _define_decay(values)
    _define_run(values)
    return values


def _define_data_and_network(values):
    text, yes_no = _definers(values)
    text(
        "dataset",
        "digits",
        "What to learn: digits (comes along, 8 x 8 pixels), or any "
        "TensorFlow Datasets set of images of one size with a class label, "
        "such as mnist, fashion_mnist, cifar10, svhn_cropped.",
    )
    text(
        "data_dir",
        None,
        "Folder for prepared data sets. Default: TensorFlow Datasets' own, "
        "$TFDS_DATA_DIR or ~/tensorflow_datasets.",
    )
    text(
        "augment",
        "auto",
        "Shift by up to 4 pixels and mirror the training images at random: "
        "true, false, or auto (colour images only).",
    )
    text(
        "model",
        "mlp",
        "The network: mlp, cnn, vgg16, resnet32, or the path of a .keras "
        "file, whose weights are the starting point.",
    )
    text(
        "hidden_units",
        "256,256",
        "Widths of the hidden layers of the mlp, first to last.",
    )
    yes_no("bias", True, "Give the layers biases (--nobias: none).")
    yes_no(
        "batch_norm",
        False,
        "Batch normalization, without scale and shift, after every hidden "
        "layer.",
    )
    text(
        "dtype_policy",
        "float32",
        "Keras dtype policy: " + ", ".join(CHOICES["dtype_policy"]) + ".",
    )


def _define_training(values):
    text, _ = _definers(values)
    text(
        "optimizer",
        "adam",
        "Name of a Keras optimizer such as sgd, adam, rmsprop, lion, or "
        "momentum (sgd with momentum 0.9).",
    )
    flags.DEFINE_float(
        "learning_rate",
        None,
        "Highest learning rate of the run. Default: what is usual for the "
        "optimizer (adam 0.001, momentum 0.03).",
        lower_bound=0,
        flag_values=values,
    )
    text(
        "lr_schedule",
        "cosine",
        "Course of the learning rate: constant, cosine (to zero), or step "
        "(divided by 10 after 30, 60 and 90 % of the epochs).",
    )
    flags.DEFINE_float(
        "warmup_epochs",
        0.0,
        "Epochs over which the learning rate first rises from zero; with the "
        "constant and cosine schedules.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "epochs",
        60,
        "Passes through the training images.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "batch_size",
        32,
        "Images per step. Each epoch leaves out the images, other ones each "
        "time, that do not fill a batch.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "seed",
        0,
        "Decides the initial weights, the order of the images and all other "
        "randomness: same seed, same run.",
        lower_bound=0,
        upper_bound=2**32 - 1,
        flag_values=values,
    )
    text(
        "jit",
        "auto",
        "Compile the training step with XLA: true, false, or auto (wherever "
        "it is faster: not for convolutions on a CPU with TensorFlow).",
    )


def _define_decay(values):
    text, _ = _definers(values)
    text(
        "decay",
        "lp",
        "The rule that shrinks weights: none, l2 (classic weight decay), l1, "
        "lp and proximal_lp (p-norm decay), group_lasso (whole units).",
    )
    flags.DEFINE_float(
        "weight_decay",
        None,
        "Rate of the decay. A decoupled l2 step takes learning rate x rate "
        "off every weight, as a fraction. Default: 0.1, or 0.001 for sgd and "
        "momentum.",
        lower_bound=0,
        flag_values=values,
    )
    text(
        "decay_schedule",
        "constant",
        "Course of the rate: constant, constant_timescale (same shrinkage "
        "at any learning rate), proportional (to the learning rate), "
        "warmup_hold (rises, then stays), stepwise (--decay_factors).",
    )
    flags.DEFINE_float(
        "decay_warmup_epochs",
        5.0,
        "Epochs over which --decay_schedule=warmup_hold rises from zero.",
        lower_bound=0,
        flag_values=values,
    )
    text(
        "decay_factors",
        "1,0.1,0.01",
        "For --decay_schedule=stepwise: the rate is multiplied by each in "
        "turn, for equal parts of the run.",
    )
    flags.DEFINE_float(
        "p",
        0.8,
        "Exponent of the norm in lp and proximal_lp, above 0. Below 1 most "
        "weights vanish; 2 is close to l2.",
        flag_values=values,
    )
    text(
        "coupling",
        "decoupled",
        "How the decay meets the learning rate: decoupled (times it, as "
        "AdamW in Keras), independent (not), coupled (a penalty in the "
        "gradient).",
    )
    text(
        "where",
        "kernels",
        "Which weights decay: kernels (no biases), everything, or globs on "
        "their paths such as 'hidden_*/kernel', separated by commas; a "
        "leading ~ leaves out.",
    )


def _define_run(values):
    text, yes_no = _definers(values)
    text(
        "output_dir",
        None,
        "New or empty folder for the results. Default: a fresh folder below "
        "runs/.",
    )
    yes_no(
        "resume",
        False,
        "Continue the interrupted run in --output_dir; its own flags are "
        "used again.",
    )
    text(
        "config",
        None,
        "Start from the config.json of another run; flags given beside it win.",
    )


def _definers(values):
    def text(name, default, help_line):
        flags.DEFINE_string(name, default, help_line, flag_values=values)

    def yes_no(name, default, help_line):
        flags.DEFINE_boolean(name, default, help_line, flag_values=values)

    return text, yes_no
