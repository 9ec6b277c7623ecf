"""The flags of a run: data, network, training, devices."""

from keras_wd.cli import networks
from keras_wd.cli.option import Needs
from keras_wd.cli.option import Option
from keras_wd.cli.option import one_of


def _is_built_here(model):
    return not networks.is_file(model)


MLP = Needs("model", one_of("mlp"), "--model=mlp")
BUILT_HERE = Needs("model", _is_built_here, "a network built here")
WARMING = Needs(
    "lr_schedule",
    one_of("constant", "cosine"),
    "--lr_schedule=constant or cosine",
)
STEPPING = Needs("lr_schedule", one_of("step"), "--lr_schedule=step")
SHARED = Needs("distribute", one_of("data"), "--distribute=data")

WHAT = (
    Option(
        "dataset",
        "Data",
        str,
        "digits",
        "What to learn: digits (bundled, 8 x 8 pixels); a TensorFlow Datasets "
        "set of images or texts with a class label, such as mnist, cifar10, "
        "imdb_reviews; or data of your own: a folder with a folder of images "
        "or .txt files for each class (./photos), "
        "a .csv or .npy table with --target, an .npz with x and y, or "
        "module:function, which returns arrays or a tf.data.Dataset.",
    ),
    Option(
        "target",
        "Data",
        str,
        None,
        "For a table: the column to predict, by name (.csv) or number (.npy; "
        "the first is 0, the last -1).",
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
        "their own size, or the median if they differ.",
    ),
    Option(
        "words",
        "Data",
        int,
        None,
        "Of texts: a network sees which of this many words, the most frequent "
        "ones of the training texts, a text has. Default: 2000.",
        least=1,
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
        "stream",
        "Data",
        str,
        "auto",
        "Read images, texts and rows as they are needed, which changes no "
        "number: true, false (hold them in memory), or auto (where they would "
        "take more than an eighth of this machine's memory).",
        choices=("auto", "true", "false"),
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
        "Schedule of the learning rate: constant, cosine (to zero), or step "
        "(divided by 10 at each of --lr_steps).",
        choices=("constant", "cosine", "step"),
    ),
    Option(
        "lr_steps",
        "Training",
        str,
        "0.3,0.6,0.9",
        "For --lr_schedule=step: the fractions of the epochs after which "
        "the rate is divided by 10.",
        needs=STEPPING,
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
        "Images per step. Images that do not fill a batch, others in "
        "every epoch, are left out.",
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
        "(wherever it is faster: on a CPU with TensorFlow only for "
        "dense networks, in runs of 1,000 steps and more).",
        choices=("auto", "true", "false"),
    ),
)
HOW = (
    Option(
        "distribute",
        "Devices",
        str,
        "none",
        "Train on several devices of this machine: data (each takes its "
        "part of every batch; the same results as on one device up to "
        "rounding), or none. A run may be resumed on other devices.",
        choices=("none", "data"),
    ),
    Option(
        "devices",
        "Devices",
        int,
        None,
        "For --distribute=data: how many devices. Default: all GPUs or "
        "TPU cores. On a machine with neither, the CPU is split into "
        "that many, to try it out.",
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
        "Start from the config.json of another run; flags given as well "
        "take precedence.",
    ),
)
