"""Training killed at random moments, and what it ends with.

    python -m benchmarks kills [--kills 20] [--seed 0]
    KERAS_BACKEND=jax python -m benchmarks kills

A process trains one network after another, each with another optimizer,
schedule or callback, under Keras's `BackupAndRestore`; it is killed (SIGKILL)
after a random number of epochs and a random part of a second, started again,
and so on. In the end every weight, every
variable of the optimizers and every rate is compared, bit for bit, with those
of a process that was left alone. Prints where the kills fell and what differs.
"""

import argparse
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from digits import digits
from keras import layers

from keras_wd import callbacks
from keras_wd import decays
from keras_wd import optimizers
from keras_wd import schedules

EPOCHS, BATCH = 40, 64
LINES = 8 * EPOCHS  # that a whole run prints


def network():
    return keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(32, "relu", use_bias=False),
            layers.BatchNormalization(),
            layers.Dense(32, "relu", use_bias=False),
            layers.Dense(10),
        ]
    )


def pairs():
    """Two layers of homogeneous units, which PathProx needs."""
    return keras.Sequential(
        [
            keras.Input((64,)),
            *(layers.Dense(32, "relu", use_bias=False) for _ in range(2)),
            layers.Dense(10, use_bias=False),
        ]
    )


def cosine(value):
    return keras.optimizers.schedules.CosineDecay(value, EPOCHS * 20)


def cases(x, y):
    """Per name: the model, its optimizer, and callbacks."""
    adam = keras.optimizers.Adam

    def case(model, optimizer, *more):
        return model, optimizer, list(more)

    model = pairs()
    return {
        "SGDW": case(network(), optimizers.SGDW(0.1, 1e-2, momentum=0.9)),
        "PAdam": case(network(), optimizers.PAdam(cosine(1e-2), 0.1)),
        "schedules": case(
            network(),
            optimizers.WeightDecay(
                adam(cosine(1e-2)),
                [
                    decays.L2(cosine(0.1), name="l2"),
                    decays.L1(
                        schedules.WarmupHold(1e-3, 100),
                        coupling="independent",
                        name="l1",
                    ),
                ],
                use_ema=True,
            ),
        ),
        "PathProx": case(model, optimizers.PathProx(model, 0.1, 1e-3)),
        "KFAC": case(
            network(),
            optimizers.WeightDecay(
                optimizers.KFAC(0.01, damping=0.01, kl_clip=1e-3, seed=0),
                decays.L2(0.1),
            ),
            callbacks.Curvature(x, 5, 10),
        ),
        "AutoL2": case(
            network(),
            optimizers.WeightDecay(adam(1e-2), decays.L2(1.0)),
            callbacks.AutoL2((x, y), every=5, delay=5),
        ),
        "ReduceDecayOnPlateau": case(
            network(),
            optimizers.WeightDecay(adam(1e-2), decays.L2(1.0)),
            callbacks.ReduceDecayOnPlateau("loss", patience=1),
        ),
        "Lion, accumulation": case(
            network(),
            optimizers.WeightDecay(
                keras.optimizers.Lion(1e-3, gradient_accumulation_steps=3),
                decays.Lp(0.1, p=0.8),
            ),
        ),
    }


def work(folder):
    """Train what is not done; a line for every network and epoch."""
    (x, y), _ = digits()
    keras.utils.set_random_seed(0)
    for name, (model, optimizer, more) in cases(x, y).items():
        done = folder / f"{name}.npz"
        if done.exists():
            continue
        model.compile(
            optimizer,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=True,
        )
        tell = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs, name=name: print(
                name, epoch, flush=True
            )
        )
        backup = keras.callbacks.BackupAndRestore(
            folder / name, double_checkpoint=True
        )
        model.fit(x, y, BATCH, EPOCHS, 0, [*more, tell, backup], shuffle=False)
        state = [*model.variables, *optimizer.variables]
        arrays = {
            str(i): keras.ops.convert_to_numpy(v) for i, v in enumerate(state)
        }
        arrays["rates"] = np.array(
            list(optimizer.current_weight_decay().values())
        )
        draft = folder / "draft.npz"
        np.savez(draft, **arrays)
        draft.rename(done)
    print("done", flush=True)


def start(folder):
    return subprocess.Popen(
        [sys.executable, __file__, "--work", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def killed(folder, kills, seed):
    """Kill the work as often as that; returns what it was at."""
    chance, moments = random.Random(seed), []
    while len(moments) < kills:
        process = start(folder)
        line = "the start"
        for _ in range(chance.randint(1, LINES * 3 // (2 * kills))):
            line = process.stdout.readline().strip()
            if line == "done":
                raise SystemExit(f"Done after {len(moments)} kills: take more.")
        time.sleep(chance.uniform(0.0, 0.3))
        process.kill()
        process.communicate()
        moments.append(line)
        print(f"kill {len(moments):2d} at {line}", flush=True)
    process = start(folder)
    process.communicate()
    if process.returncode:
        raise SystemExit("The work failed when it was left alone.")
    return moments


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=pathlib.Path, help="what is killed")
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work)
        return
    with tempfile.TemporaryDirectory() as name:
        whole, broken = (pathlib.Path(name, part) for part in ("a", "b"))
        for folder in (whole, broken):
            folder.mkdir()
        start(whole).communicate()
        moments = killed(broken, arguments.kills, arguments.seed)
        different = []
        for path in sorted(whole.glob("*.npz")):
            one, other = np.load(path), np.load(broken / path.name)
            same = all(
                one[key].tobytes() == other[key].tobytes() for key in one.files
            )
            print(f"{path.stem:22s} {'the same' if same else 'DIFFERENT'}")
            if not same:
                different.append(path.stem)
    print(f"{len(moments)} kills, {len(different)} of the runs differ")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
