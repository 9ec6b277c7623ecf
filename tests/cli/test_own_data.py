"""Data of the user's own, of every kind."""

import csv
import shutil
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from keras_wd.cli import config
from keras_wd.cli import datasets
from keras_wd.cli import models
from keras_wd.cli.usage_errors import UsageError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 6, 5), dtype=np.uint8)
KINDS = np.arange(40) % 4
ROWS = RNG.normal(size=(40, 3))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def total(data):
    return sum(map(len, (data.train, data.validation, data.test)))


def test_arrays_with_splits_and_without(here):
    np.savez("one.npz", x=PIXELS, y=KINDS + 7)
    data = datasets.load("./one.npz")
    assert data.input_shape == (6, 5, 1) and data.classes == 4
    assert total(data) == 40 and data.carved == ("test", "validation")
    assert set(data.train.targets) == {0, 1, 2, 3}
    np.savez("two.npz", x_train=ROWS, y_train=KINDS, x_test=ROWS, y_test=KINDS)
    data = datasets.load("two.npz")
    assert data.input_shape == (3,) and data.carved == ("validation",)
    assert len(data.test) == 40 and not data.is_of_images


def write_table(target):
    lines = ["size,town,price"]
    for row, value in zip(ROWS, target, strict=True):
        lines.append(f"{row[0]},{'rome' if row[1] > 0 else 'oslo'},{value}")
    with open("t.csv", "w") as file:
        file.write("\n".join(lines))


def test_a_table_to_regress(here):
    write_table(ROWS[:, 0] * 50 + 1000.5)
    data = datasets.load("t.csv", target="price")
    # A number, and a column for each of two towns.
    assert data.input_shape == (3,) and data.classes == 0
    y = data.standardise_targets(data.train.targets)
    assert abs(y.mean()) < 1e-4 and abs(y.std() - 1) < 1e-4
    settings = config.from_command_line(
        ["--dataset=t.csv", "--target=price", "--nostandardise"]
    )
    assert settings["dataset"] == str(here / "t.csv")
    data = datasets.for_run(settings)
    np.testing.assert_array_equal(
        data.standardise(data.train.inputs), data.train.inputs
    )
    np.testing.assert_array_equal(
        data.standardise_targets(data.train.targets), data.train.targets
    )


def test_what_is_predicted_decides_the_task(here):
    write_table(["yes", "no"] * 20)
    assert datasets.load("t.csv", target="price").classes == 2
    assert datasets.load("t.csv", target="town").classes == 2
    write_table(KINDS)
    assert datasets.load("t.csv", target="price").classes == 4
    data = datasets.load("t.csv", target="price", task="regression")
    assert data.classes == 0
    np.save("t.npy", np.column_stack([ROWS, KINDS]))
    data = datasets.load("t.npy", target="3")
    assert data.classes == 4 and data.input_shape == (3,)


def test_texts_in_a_table_a_folder_and_arrays_are_the_same(here):
    texts = [
        f"a {('bad', 'good')[i % 2]} film of {i} minutes" for i in range(40)
    ]
    labels = [("no", "yes")[i % 2] for i in range(40)]
    with open("films.csv", "w", newline="") as file:
        rows = zip(texts, labels, strict=True)
        csv.writer(file).writerows([("text", "liked"), *rows])
    for number, (text, label) in enumerate(zip(texts, labels, strict=True)):
        path = here / "films" / label / f"{number:02d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    np.savez("films.npz", x=np.array(texts), y=np.array(labels))
    table = datasets.load("films.csv", target="liked", words=5)
    arrays = datasets.load("films.npz", words=5)
    folder = datasets.load(str(here / "films"), words=5)
    assert table.classes == arrays.classes == folder.classes == 2
    assert table.input_shape == arrays.input_shape == (6,)
    assert (table.train.inputs == arrays.train.inputs).all()
    assert folder.input_shape == (6,) and total(folder) == 40
    # A word that only one class has gives the label.
    for data in table, arrays, folder:
        x, y = data.train.inputs, data.train.targets
        assert any((column == y).all() for column in x.T)
    # Few different words are a category, not a text.
    (here / "few.csv").write_text("a,b\n" + "the sea,1\nthe hill,0\n" * 20)
    assert datasets.load("few.csv", target="b").input_shape == (2,)

    (here / "films" / "no" / "picture.png").write_bytes(b"")
    with pytest.raises(UsageError, match="images or .txt files, not both"):
        datasets.load(str(here / "films"))
    (here / "films" / "no" / "picture.png").unlink()
    (here / "films" / "no" / "00.txt").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="00.txt cannot be read as a text"):
        datasets.load(str(here / "films"))


def test_files_that_are_no_examples_are_named(here, capsys):
    for index in range(20):
        folder = here / "photos" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[index]).save(folder / f"{index}.webp")
        (folder / f".{index}.png").write_text("hidden")
    (here / "photos" / "b" / "notes.md").write_text("")
    (here / "photos" / ".cache").mkdir()
    assert total(datasets.load("photos/")) == 20
    printed = capsys.readouterr().out
    assert "left out of b, not ending in .png" in printed
    assert printed.rstrip().endswith(": notes.md")


def test_images_of_different_sizes_get_the_median(here):
    for index, kind in enumerate(KINDS):
        folder = here / "photos" / f"kind{kind}"
        folder.mkdir(parents=True, exist_ok=True)
        height = (8, 12, 16)[index % 3]
        image = np.full((height, 10), index, "uint8")
        Image.fromarray(image).save(folder / f"{index}.png")
    data = datasets.load("./photos")
    assert data.input_shape == (12, 10, 1) and data.classes == 4
    assert total(data) == 40
    every = np.concatenate([data.train.inputs, data.test.inputs])
    np.testing.assert_array_equal(every.min((1, 2, 3)), every.max((1, 2, 3)))
    data = datasets.load("photos/", image_size="7")
    assert data.input_shape == (7, 7, 1)
    for split in ("train", "val"):
        (here / split).mkdir()
        for kind in ("a", "b"):
            (here / split / kind).mkdir()
            for index in range(12):
                Image.fromarray(PIXELS[:3].transpose(1, 2, 0)).save(
                    here / split / kind / f"{index}.png"
                )
    data = datasets.load("./")
    assert data.is_colour and len(data.test) == 24


FUNCTIONS = """
import numpy as np
import tensorflow as tf

rng = np.random.default_rng(0)
pair = rng.normal(size=(40, 3)), np.arange(40) % 4

def arrays(): return pair
def two(): return pair, pair
def splits(): return {"train": pair, "val": pair}
def single(): return tf.data.Dataset.from_tensor_slices(pair)
def batched(): return single().batch(7)
def wrong(): return 3
def broken(): raise RuntimeError("no file")
def uneven(): return [[1], [1, 2]], [0, 1]
def three(): return 1, 2, 3
def endless(): return single().repeat()
def inputs_alone(): return single().map(lambda x, y: x)
def ragged():
    return tf.data.Dataset.range(40).map(lambda n: (tf.fill([n % 3], 1), n))
"""


@pytest.fixture
def functions(here):
    (here / "my_data.py").write_text(FUNCTIONS)
    yield
    sys.modules.pop("my_data", None)


def test_functions(functions):
    data = {
        name: datasets.load(f"my_data:{name}")
        for name in ("arrays", "two", "splits", "single", "batched")
    }
    assert [total(d) for d in data.values()] == [40, 80, 80, 40, 40]
    assert data["two"].carved == data["splits"].carved == ("validation",)
    for name in ("single", "batched"):
        np.testing.assert_array_equal(
            data[name].train.inputs, data["arrays"].train.inputs
        )


@pytest.mark.parametrize(
    "given, message",
    [
        ({"dataset": "./nosuch"}, "does not exist"),
        ({"dataset": "t.csv"}, "--target must be a column of .*size, town"),
        ({"dataset": "t.csv", "target": "prize"}, "mean 'price'"),
        ({"dataset": "gap.csv", "target": "b"}, "an empty field in row 3"),
        ({"dataset": "na.csv", "target": "a"}, "'NA' in row 4. Fill it in"),
        ({"dataset": "na.csv", "target": "b"}, "'NA' in row 4. Fill it in"),
        ({"dataset": "twice.csv", "target": "b"}, "more than once: a"),
        ({"dataset": "latin.csv", "target": "b"}, "must be in UTF-8, as whi"),
        ({"dataset": "cut.npz"}, "cut.npz cannot be read"),
        ({"dataset": "large.npz"}, "NaN, or infinite in float32"),
        ({"dataset": "none.npz"}, "Received: shape .40, 0. of float64"),
        ({"dataset": "complex.npz"}, "words or real numbers as targets"),
        ({"dataset": "no_test.npz"}, "has no examples in test"),
        ({"dataset": "new.npz"}, "Received elsewhere only: 4, 5, 6, 7"),
        ({"dataset": "deep/"}, "more than 8 bits a channel"),
        ({"dataset": "blank/"}, "no words in its training texts"),
        ({"dataset": "gone/"}, "c has none"),
        ({"dataset": "deep"}, "write --dataset=./deep"),
        ({"dataset": "./a.txt", "target": "a"}, "or a file that ends"),
        ({"dataset": "./a.txt"}, "must be a folder of images or a file"),
        ({"dataset": "bad.npz"}, "bad.npz cannot be read"),
        ({"dataset": "bad.npy", "target": "0"}, "bad.npy cannot be read"),
        ({"dataset": "z.npz"}, "must have the arrays x and y.* It has: z"),
        ({"dataset": "nan.npz"}, "inputs that are NaN"),
        ({"dataset": "odd.npz"}, "one target for each input"),
        ({"dataset": "t.npy", "target": "3"}, "the number of the column"),
        ({"dataset": "my_data:wrong"}, "must return a tf.data.Dataset"),
        ({"dataset": "my_data:broken"}, "failed with RuntimeError: no file"),
        ({"dataset": "my_data:uneven"}, "must return arrays: .*inhomogeneous"),
        ({"dataset": "my_data:three"}, "Received: .int, int, int."),
        ({"dataset": "my_data:endless"}, "repeats without end"),
        ({"dataset": "my_data:inputs_alone"}, "Dataset of pairs.*: ndarray"),
        ({"dataset": "my_data:ragged"}, "all of one shape and type"),
        ({"dataset": "fake.npz"}, "its name must end in .npy"),
        ({"dataset": "objects.npz"}, "x.npy holds Python objects"),
        ({"dataset": "nosuch_module:f"}, "failed with ModuleNotFoundError"),
        ({"dataset": "empty/"}, "a folder for each class"),
        ({"dataset": "torn/"}, "x.png cannot be read as an image"),
        ({"dataset": "digits", "target": "a"}, "are for data of your own"),
        ({"dataset": "one.npz", "target": "a"}, "--target is the column of a"),
        ({"dataset": "t.csv", "target": "town", "task": "regression"}, "words"),
        (
            {"dataset": "t.csv", "target": "size", "task": "classification"},
            "needs at least 2 classes",
        ),
        ({"dataset": "one.npz", "image_size": "0"}, "--image_size must be"),
        ({"dataset": "one.npz", "image_size": "4"}, "--image_size is for im"),
        ({"dataset": "one.npz", "words": 4}, "--words needs texts"),
        ({"dataset": "digits", "words": 4}, "--words needs texts"),
    ],
)
def test_a_mistake_is_said_plainly(functions, here, given, message):
    write_table(KINDS * 1.5)
    (here / "gap.csv").write_text("a,b\n1,2\n,3\n")
    (here / "a.txt").write_text("")
    (here / "na.csv").write_text("a,b\n1,2\n3,2\n4,NA\n")
    (here / "twice.csv").write_text("a,a,b\n1,2,3\n")
    (here / "latin.csv").write_bytes(b"a,b\n\xe9,1\n")
    np.savez("large.npz", x=ROWS * 1e300, y=KINDS)
    np.savez("none.npz", x=ROWS[:, :0], y=KINDS)
    np.savez("complex.npz", x=ROWS, y=KINDS * 1j)
    train = {"x_train": ROWS, "y_train": KINDS}
    np.savez("no_test.npz", **train, x_test=ROWS[:0], y_test=KINDS[:0])
    np.savez("new.npz", **train, x_test=ROWS, y_test=KINDS + 4)
    whole = (here / "new.npz").read_bytes()
    (here / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for kind in ("a", "b"):
        for folder in ("deep", "blank", "gone"):
            (here / folder / kind).mkdir(parents=True)
        Image.fromarray(PIXELS[0].astype("uint16")).save(
            here / "deep" / kind / "x.png"
        )
        for index in range(20):
            (here / "blank" / kind / f"{index}.txt").write_text("")
        (here / "gone" / kind / "x.txt").write_text("x")
    (here / "gone" / "c").mkdir()
    for name in ("bad.npz", "bad.npy"):
        (here / name).write_text("no array")
    np.savez("z.npz", z=ROWS)
    np.savez("one.npz", x=ROWS, y=KINDS)
    np.savez("nan.npz", x=ROWS * np.nan, y=KINDS)
    np.savez("odd.npz", x=ROWS, y=KINDS[1:])
    np.savez("objects.npz", x=np.array([{}], object), y=KINDS)
    np.save("t.npy", ROWS)
    shutil.copy("t.npy", "fake.npz")
    (here / "empty").mkdir()
    for kind in ("a", "b"):
        (here / "torn" / kind).mkdir(parents=True)
        (here / "torn" / kind / "x.png").write_text("no image")
    with pytest.raises(UsageError, match=message):
        datasets.load(**given)


def saved(path, outputs=1, **compiled):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(outputs)])
    if compiled:
        model.compile("sgd", **compiled)
    model.save(path)


def test_a_model_keeps_the_loss_and_metrics_it_was_saved_with(here):
    write_table(ROWS[:, 0])
    flags = ["--dataset=t.csv", "--target=price", "--model=m.keras"]
    settings = config.from_command_line(flags)
    data = datasets.for_run(settings)
    saved("m.keras", loss=keras.losses.LogCosh(), metrics=["mape"])
    model = models.make(settings, data)
    found = models.objective(model, data)
    assert isinstance(found["loss"], keras.losses.LogCosh)
    assert found["metrics"] == ["mape"]
    model.compile("sgd", **found)
    models.check_objective(model, settings, data)
    # Of the loss and of the metric, which a step would create.
    assert len(model.metrics_variables) == 4

    saved("m.keras", outputs=4, loss="categorical_crossentropy")
    model = models.make(settings, data)
    model.compile("sgd", **models.objective(model, data))
    with pytest.raises(UsageError, match="does not take the targets of t.csv"):
        models.check_objective(model, settings, data)

    # One that was never compiled gets the loss of the task.
    saved("m.keras")
    found = models.objective(models.make(settings, data), data)
    assert found["loss"] == "mean_squared_error"
    saved("m.keras", outputs=2)
    with pytest.raises(UsageError, match="must give one number, 1 for"):
        models.make(settings, data)
