"""The flags of `keras-wd train`, on a `FlagValues` of their own."""

from absl import flags

from keras_wd.study.method_flags import define_decay
from keras_wd.study.method_flags import define_kfac
from keras_wd.study.method_flags import definers

CHOICES = {
    "augment": ("auto", "true", "false"),
    "lr_schedule": ("constant", "cosine", "step"),
    "decay": (
        *("none", "l2", "l1", "lp", "proximal_lp", "group_lasso"),
        "path_norm",
    ),
    "kernel_constraint": ("none", "fixed_norm"),
    "decay_schedule": (
        "constant",
        "constant_timescale",
        "proportional",
        "warmup_hold",
        "stepwise",
        "auto_l2",
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
    "distribute": ("none", "data"),
    "estimator": (
        "fisher",
        "fisher_exact",
        "gauss_newton",
        "gauss_newton_exact",
        "empirical",
    ),
}

# Flags that say how to start a run, not what is run: not stored with it.
LAUNCH = ("output_dir", "resume", "config")
# Flags that say what a run is computed on, which may change where it resumes.
DEVICES = ("distribute", "devices")

GROUPS = {
    "Data": ("dataset", "data_dir", "train_examples", "augment"),
    "Network": (
        "model",
        "hidden_units",
        "bias",
        "batch_norm",
        "kernel_constraint",
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
    "K-FAC": (
        "damping",
        "kl_clip",
        "estimator",
        "curvature_every",
        "invert_every",
    ),
    "Devices": DEVICES,
    "The run": LAUNCH,
}


def define() -> flags.FlagValues:
    """The flags of `keras-wd train` with their defaults."""
    values = flags.FlagValues()
    _define_data_and_network(values)
    _define_training(values)
    define_decay(values)
    define_kfac(values)
    _define_run(values)
    return values


def _define_data_and_network(values):
    text, yes_no = definers(values)
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
    flags.DEFINE_integer(
        "train_examples",
        None,
        "Train on this many of the training images, drawn by the seed; the "
        "others are added to the test images. Default: all.",
        lower_bound=1,
        flag_values=values,
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
        "kernel_constraint",
        "none",
        "Keep the weights of every hidden unit at norm 1: fixed_norm, with "
        "--batch_norm; or none.",
    )
    text(
        "dtype_policy",
        "float32",
        "Keras dtype policy: " + ", ".join(CHOICES["dtype_policy"]) + ".",
    )


def _define_training(values):
    text, _ = definers(values)
    text(
        "optimizer",
        "adam",
        "Name of a Keras optimizer such as sgd, adam, rmsprop, lion; "
        "momentum (sgd with momentum 0.9), or kfac.",
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
        "it is faster: on a CPU with TensorFlow for dense networks alone, in "
        "runs of 1,000 steps and more).",
    )


def _define_run(values):
    text, yes_no = definers(values)
    text(
        "distribute",
        "none",
        "Train on several devices of this machine: data (each takes its part "
        "of every batch; results as on one device, but for rounding), or "
        "none. A run may be resumed on other devices.",
    )
    flags.DEFINE_integer(
        "devices",
        None,
        "For --distribute=data: how many devices. Default: all GPUs or TPU "
        "cores. On a machine without, the CPU is made into that many, to try "
        "it.",
        lower_bound=1,
        flag_values=values,
    )
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
