"""Files of a run that are cut short or garbage: told, and nothing is lost."""

import json
import shutil

import keras
import numpy as np
import pytest

from keras_wd.__main__ import main
from keras_wd.cli import checkpoint
from keras_wd.cli import config
from keras_wd.cli import history
from keras_wd.cli import train
from keras_wd.cli.usage_errors import UsageError
from tests.damage import damaged

pytestmark = pytest.mark.one_backend


class Stop(keras.callbacks.Callback):
    """Interrupts at the start of the last epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 3:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, digits, data_dir):
    """The folder of a run of which three epochs of four are done."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    flags = ["--epochs=4", "--hidden_units=8", "--jit=false"]
    given = [f"--output_dir={folder}", f"--data_dir={data_dir}"]
    settings = config.from_command_line([*flags, *given])
    assert train.run(settings, digits, [Stop()]) == train.INTERRUPTED
    assert (folder / checkpoint.PREVIOUS).exists()
    return folder


@pytest.fixture
def run(interrupted, tmp_path):
    """A copy of it to be damaged."""
    return shutil.copytree(interrupted, tmp_path / "run")


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_refused(arguments, message, folder, capsys):
    """One line says what is wrong, and no file is changed."""
    before = contents(folder)
    capsys.readouterr()
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert len(errors.splitlines()) == 1 and message in errors, errors
    assert contents(folder) == before


def half(data):
    return data[: len(data) // 2]


SUMMARY = {"test_accuracy": 0.5, "test_loss": 0.5, "zeros": 0.0}
BAD_JSON = {
    "empty": b"",
    "null": b"null",
    "a list": b"[1, 2]",
    "no text": b"\xff\xfe\x00",
    "half": half(json.dumps(SUMMARY).encode()),
    "parts": json.dumps(SUMMARY).encode(),
}


@pytest.mark.few_cases(3)
@pytest.mark.parametrize("damage", BAD_JSON.values(), ids=BAD_JSON)
@pytest.mark.parametrize("name", ["config.json", "summary.json"])
def test_a_damaged_description_stops_train_and_compare(
    name, damage, run, data_dir, capsys
):
    (run / name).write_bytes(damage)
    resume = ["train", "--resume", f"--output_dir={run}"]
    assert_refused(resume, name, run, capsys)
    # The same as a run of a comparison.
    folder = run.parent / "comparison"
    shutil.move(run, folder / "runs" / "sgd-none-seed0")
    compare = ["--optimizers=sgd", "--decays=none", "--seeds=1", "--epochs=1"]
    assert_refused(
        [
            "compare",
            *compare,
            f"--output_dir={folder}",
            f"--data_dir={data_dir}",
        ],
        name,
        folder,
        capsys,
    )


@pytest.mark.slow(reason="a whole run")
def test_a_run_goes_on_from_the_checkpoint_before(run, interrupted, capsys):
    newest = (run / checkpoint.NAME).read_bytes()
    (run / checkpoint.NAME).write_bytes(half(newest))
    assert main(["train", "--resume", f"--output_dir={run}"]) == 0
    captured = capsys.readouterr()
    assert "checkpoint.npz cannot be used" in captured.err
    assert "before it, after epoch 2" in captured.err
    assert f"Resuming {run} after epoch 2" in captured.out
    rows = history.read(str(run))
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    # What is done a second time gives the same numbers.
    assert rows[:3] == history.read(str(interrupted))
    assert not list(run.glob("*.npz"))


def test_without_a_sound_checkpoint_nothing_is_trained(run, capsys):
    for name in (checkpoint.NAME, checkpoint.PREVIOUS):
        (run / name).write_bytes(half((run / name).read_bytes()))
    resume = ["train", "--resume", f"--output_dir={run}"]
    assert_refused(resume, "cannot be used", run, capsys)


@pytest.mark.parametrize(
    "text, message",
    [
        ("epoch,loss\n0,3.0\n2,2.0\n", "must have the 2 epochs before"),
        ("epoch,loss\n0,3.0\n", "must have the 2 epochs before"),
        ("", "must have the 2 epochs before"),
        ("epoch,loss\n0,3.0\n1\n", "history.csv is damaged"),
        ("epoch,loss\n0,x\n1,1.0\n", "history.csv is damaged"),
        ("epoch,loss\n0,1.0,2.0\n1,1.0\n", "history.csv is damaged"),
    ],
)
def test_logs_that_do_not_reach_the_checkpoint(text, message, tmp_path):
    path = tmp_path / history.NAME
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        history.truncate(str(tmp_path), 2)
    assert path.read_text() == text


def test_a_row_that_a_kill_cut_short_is_ignored(tmp_path):
    (tmp_path / history.NAME).write_text("epoch,loss\n0,3.0\n1,2e-")
    assert history.read(str(tmp_path)) == [{"epoch": 0, "loss": 3.0}]


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_compact_keeps_what_is_there(part, tmp_path, capsys):
    source, target = tmp_path / "cut.keras", tmp_path / "small.keras"
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.save(source)
    whole = source.read_bytes()
    source.write_bytes(whole[: int(part * len(whole))])
    target.write_bytes(b"kept")
    command = ["compact", str(source), "-o", str(target)]
    assert_refused(command, "cut.keras cannot be loaded", tmp_path, capsys)


def test_a_checkpoint_is_used_whole_or_not_at_all(run, digits):
    """Cut anywhere, or with any one bit changed."""
    path = run / checkpoint.NAME
    whole = path.read_bytes()
    (run / checkpoint.PREVIOUS).unlink()
    flags = ["--resume", f"--output_dir={run}"]
    settings = config.from_command_line(flags)
    model = train.compiled_model(settings, digits)
    checkpoint.restore(model, str(run))
    expected = [np.asarray(v) for v in checkpoint.state(model)]
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(40):
        path.write_bytes(damaged(whole, rng))
        try:
            epochs, _ = checkpoint.restore(model, str(run))
        except UsageError:
            refused += 1
        else:
            # The bit was in what no reader looks at.
            assert epochs == 3
        for variable, value in zip(
            checkpoint.state(model), expected, strict=True
        ):
            np.testing.assert_array_equal(np.asarray(variable), value)
    assert refused > 30
