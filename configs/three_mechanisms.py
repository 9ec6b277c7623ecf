"""Writes `three_mechanisms/*.json`: the settings of the paper's table.

    python configs/three_mechanisms.py
    keras-wd train --config=configs/three_mechanisms/cifar10-vgg16-adam-wd.json

Settings of the authors' released code: batches of 128, decay of all layers,
biases included; SGD with momentum 0.9, where the decay is part of the
gradient. 200 epochs with a tenth of the learning rate after 60, 120 and 180;
for K-FAC 100 epochs, after 40 and 80, damping 1e-3 but where it says
otherwise, a KL clip without normalization alone, curvature every 10 and
inverses every 100 steps. Adam's epsilon is Keras's 1e-7, theirs is 1e-8; their
Gauss-Newton matrix has twice the scale of ours.

Source: Zhang, Wang, Xu and Grosse, 2019, "Three Mechanisms of Weight Decay
Regularization".
"""

import json
import pathlib

FOLDER = pathlib.Path(__file__).with_suffix("")
OPTIMIZERS = {
    "sgd": {"optimizer": "momentum"},
    "adam": {"optimizer": "adam"},
    "kfac-f": {"optimizer": "kfac", "estimator": "fisher"},
    "kfac-g": {"optimizer": "kfac", "estimator": "gauss_newton"},
}
# (data, network, normalization, augmentation): for each of OPTIMIZERS the
# learning rate without decay; with it, and the decay.
ROWS = {
    ("cifar10", "vgg16", False, False): (
        (0.03, 0.03, 3e-4),
        (3e-4, 3e-4, 0.3),
        (3e-4, 1e-3, 1.0),
        (0.03, 0.03, 0.03),
    ),
    ("cifar10", "vgg16", True, False): (
        (0.03, 0.1, 1e-3),
        (1e-3, 1e-3, 0.3),
        (1e-3, 3e-3, 1.0),
        (0.1, 0.03, 0.03),
    ),
    ("cifar10", "vgg16", True, True): (
        (0.01, 0.1, 1e-3),
        (1e-3, 3e-4, 1.0),
        (1e-3, 1e-3, 0.3),
        (0.03, 0.03, 0.01),
    ),
    ("cifar10", "resnet32", False, False): (
        (0.003, 0.003, 1e-3),
        (3e-4, 3e-4, 1.0),
        (1e-3, 1e-3, 1.0),
        (0.01, 0.03, 0.03),
    ),
    ("cifar10", "resnet32", True, False): (
        (0.03, 0.03, 3e-3),
        (1e-3, 1e-3, 1.0),
        (1e-3, 1e-3, 1.0),
        (0.03, 0.03, 0.01),
    ),
    ("cifar10", "resnet32", True, True): (
        (0.03, 0.01, 3e-3),
        (1e-3, 1e-3, 0.3),
        (1e-3, 3e-4, 1.0),
        (0.01, 0.03, 0.03),
    ),
    ("cifar100", "vgg16", True, True): (
        (0.03, 0.03, 3e-3),
        (3e-4, 3e-4, 1.0),
        (3e-3, 1e-3, 1.0),
        (0.1, 0.1, 0.01),
    ),
    ("cifar100", "resnet32", True, True): (
        (0.03, 0.03, 3e-3),
        (3e-4, 3e-4, 1.0),
        (1e-3, 1e-3, 1.0),
        (0.05, 0.05, 0.01),
    ),
}
# Without normalization: (network, optimizer, with decay): clip and damping.
CLIPS = {
    ("vgg16", "kfac-f", False): (1e-5, 1e-3),
    ("vgg16", "kfac-f", True): (1e-5, 1e-3),
    ("vgg16", "kfac-g", False): (1e-4, 0.01),
    ("vgg16", "kfac-g", True): (1e-3, 0.01),
    ("resnet32", "kfac-f", False): (1e-5, 1e-3),
    ("resnet32", "kfac-f", True): (1e-5, 1e-3),
    ("resnet32", "kfac-g", False): (1e-4, 1e-3),
    ("resnet32", "kfac-g", True): (1e-4, 1e-3),
}


def configurations() -> dict[str, dict]:
    """The flags of every run, by the name of its file."""
    found = {}
    for (data, network, batch_norm, augment), rates in ROWS.items():
        for optimizer, (without, rate, decay) in zip(
            OPTIMIZERS, rates, strict=True
        ):
            for decays in (False, True):
                parts = [data, network]
                parts += ["bn"] if batch_norm else []
                parts += ["aug"] if augment else []
                parts += [optimizer, "wd" if decays else "none"]
                flags = {
                    "dataset": data,
                    "model": network,
                    "batch_norm": batch_norm,
                    "augment": str(augment).lower(),
                    "batch_size": 128,
                    "lr_schedule": "step",
                    "learning_rate": rate if decays else without,
                    "decay": "l2" if decays else "none",
                    **OPTIMIZERS[optimizer],
                    **_of_kfac(network, optimizer, batch_norm, decays),
                }
                if decays:
                    coupled = optimizer == "sgd"
                    flags["weight_decay"] = decay
                    flags["coupling"] = "coupled" if coupled else "decoupled"
                    flags["where"] = "everything"
                found["-".join(parts)] = flags
    return found


def _of_kfac(network, optimizer, batch_norm, decays):
    if not optimizer.startswith("kfac"):
        return {"epochs": 200, "lr_steps": "0.3,0.6,0.9"}
    clip, damping = 0.0, 1e-3
    if not batch_norm:
        clip, damping = CLIPS[network, optimizer, decays]
    return {
        "epochs": 100,
        "lr_steps": "0.4,0.8",
        "damping": damping,
        "kl_clip": clip,
        "curvature_every": 10,
        "invert_every": 100,
    }


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, flags in configurations().items():
        document = {"format": 1, "flags": flags, "environment": {}}
        text = json.dumps(document, indent=2) + "\n"
        (FOLDER / f"{name}.json").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
