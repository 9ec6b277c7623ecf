"""Images that are read as they are needed are those that memory would hold."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_wd.cli import batches
from keras_wd.cli import datasets
from keras_wd.cli import streams
from keras_wd.cli import tfds_sets
from keras_wd.cli.streams import Stream
from keras_wd.cli.usage_errors import UsageError
from tests.cli import made  # noqa: F401  (registers its sets)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(40):
        path = folder / "train" / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (6 + number % 3, 5, 3)
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(path)
    return str(folder)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Numbers, words and a blank line, in the way that spreadsheets write."""
    path = tmp_path_factory.mktemp("table") / "houses.csv"
    rng = np.random.default_rng(0)
    lines = ["\ufeffsize,town,code,price"]
    for number, size in enumerate(rng.normal(size=60)):
        town = ("rome", '"the ""old""\r\ntown"', "\u014dsaka")[number % 3]
        # A column of numbers, but for one late row.
        code = "x" if number == 55 else number % 2
        lines.append(f"{size},{town},{code},{number * 1.5}")
    lines.insert(7, "")
    path.write_bytes("\r\n".join(lines).encode())
    return str(path)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("sets"))
    datasets.load("made_colour", folder, stream="true")
    return folder


def _numbered(path):
    """An array of rows whose column 1 is predicted."""
    path = str(path / "rows.npy")
    rng = np.random.default_rng(0)
    np.save(path, np.column_stack([rng.normal(size=40), np.arange(40) % 4]))
    return path


def _grey(path):
    """Images without an axis of channels, in an order that is not C's."""
    path = str(path / "grey.npz")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 6, 5), np.uint8)
    np.savez(path, x_train=np.asfortranarray(pixels), y_train=np.arange(40) % 4)
    return path


def returned():
    rows = np.random.default_rng(0).normal(size=(40, 3))
    data = tf.data.Dataset.from_tensor_slices((rows, np.arange(40) % 4))
    return {"train": data, "test": data.batch(7), "val": (rows, rows[:, 0] > 0)}


def returned_texts():
    rows = [f"one {'word ' * (number % 5)}" for number in range(40)]
    return tf.data.Dataset.from_tensor_slices((rows, np.arange(40) % 4))


@pytest.fixture(
    params=[
        *("photos", "index", "tfrecord", "jpeg", "texts", "table", "array"),
        *("arrays", "returned", "returned_texts"),
    ]
)
def both(request, photos, table, prepared, data_dir, tmp_path):
    """A set as a stream, and in memory, perhaps from other files."""
    if request.param == "photos":
        given = {"dataset": photos}
    elif request.param == "table":
        given = {"dataset": table, "target": "price"}
    elif request.param == "array":
        given = {"dataset": _numbered(tmp_path), "target": "1"}
    elif request.param == "arrays":
        given = {"dataset": _grey(tmp_path)}
    elif request.param.startswith("returned"):
        given = {"dataset": f"{__name__}:{request.param}"}
    elif request.param == "texts":
        given = {"dataset": "made_of_texts", "data_dir": data_dir, "words": 5}
    else:
        name = "made_train_only" if request.param == "jpeg" else "made_colour"
        given = {"dataset": name, "data_dir": data_dir}
    held = datasets.load(**given)
    if request.param == "index":
        given["data_dir"] = prepared
    return [datasets.load(**given, stream="true"), held]


def test_a_stream_has_the_examples_of_the_memory(both):
    streamed, held = both
    assert isinstance(streamed.train.inputs, Stream)
    assert isinstance(held.train.inputs, np.ndarray)
    assert streamed.train.inputs.dtype == held.train.inputs.dtype
    for split in "train", "validation", "test":
        one, other = getattr(streamed, split), getattr(held, split)
        assert (one.take(slice(None)).inputs == other.inputs).all()
        assert (one.targets == other.targets).all()
    np.testing.assert_allclose(streamed.mean, held.mean, rtol=1e-6)
    np.testing.assert_allclose(streamed.deviation, held.deviation, rtol=1e-6)


def test_a_table_is_what_its_file_says(table):
    data = datasets.load(table, target="price")
    # A size, three towns, and a column for 0, 1 and x each.
    assert data.input_shape == (7,) and len(data.train) == 49
    data = datasets.load(table, target="town")
    assert data.classes == 3


def test_the_statistics_of_a_stream_are_those_of_all_its_rows(monkeypatch):
    rows = 1e4 + np.random.default_rng(0).normal(size=(100, 3))
    monkeypatch.setattr(streams, "CHUNK", 21)
    stream = Stream(rows.__getitem__, 100, (3,), "float64")
    mean, deviation = stream.statistics()
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(deviation, rows.std(axis=0), rtol=1e-11)


def test_a_stream_has_the_batches_of_the_memory_from_any_epoch(both):
    streamed, held = (datasets.few(data, 20, seed=1) for data in both)
    assert len(streamed.test) > 8
    augment = streamed.is_of_images
    for epochs in range(0, 2), range(1, 2):
        for one, other in zip(
            batches.training_batches(streamed, 4, 3, epochs, augment),
            batches.training_batches(held, 4, 3, epochs, augment),
            strict=True,
        ):
            np.testing.assert_allclose(one[0], other[0], atol=1e-5)
            assert (one[1] == other[1]).all()
    (batch,) = list(batches.evaluation(streamed, streamed.test, 100)["x"])
    arrays = batches.evaluation(held, held.test, 100)
    np.testing.assert_allclose(batch[0], arrays["x"], atol=1e-5)
    assert (batch[1] == arrays["y"]).all()


def test_a_stream_is_evaluated_in_batches_of_the_training(both):
    data = both[0]
    found = list(batches.evaluation(data, data.test, 3)["x"])
    assert [len(y) for _, y in found[:-1]] == [3] * (len(found) - 1)
    assert sum(len(y) for _, y in found) == len(data.test)
    shared = batches.evaluation(data, data.test, 3, devices=2)["x"]
    assert len(shared[0][1]) == 2


def test_a_set_is_held_in_memory_unless_it_is_large(photos, monkeypatch):
    assert not streams.is_large(60_000, (28, 28, 1))
    assert streams.is_large(10**8, (224, 224, 3))
    auto = datasets.load(photos, stream="auto")
    assert isinstance(auto.train.inputs, np.ndarray)
    monkeypatch.setattr(streams, "SHARE", 1e-9)
    auto = datasets.load(photos, stream="auto")
    assert isinstance(auto.train.inputs, Stream)


def test_files_in_which_no_example_is_found_are_refused(data_dir, monkeypatch):
    datasets.load("made_colour", data_dir)
    monkeypatch.setattr(tfds_sets, "_has_numbers", lambda builder: False)
    with pytest.raises(UsageError, match="Name another --data_dir: the set"):
        datasets.load("made_colour", data_dir, stream="true")
    # What cannot be streamed is held in memory.
    monkeypatch.setattr(streams, "SHARE", 1e-9)
    datasets.load("made_colour", data_dir, stream="auto")


def test_images_of_different_sizes_are_streamed_in_one_size(tmp_path):
    data = datasets.load("made_of_all_sizes", str(tmp_path), stream="true")
    assert data.input_shape == (6, 6, 3)
    data = datasets.load(
        "made_of_all_sizes", str(tmp_path), image_size="4,8", stream="true"
    )
    assert data.train.take(slice(2)).inputs.shape == (2, 4, 8, 3)


def test_parts_of_a_compressed_file_cannot_be_read(tmp_path):
    path = str(tmp_path / "rows.npz")
    np.savez_compressed(path, x=np.zeros((40, 2)), y=np.arange(40) % 2)
    assert len(datasets.load(path, stream="auto").train)
    with pytest.raises(UsageError, match="compressed. Write it with numpy.sav"):
        datasets.load(path, stream="true")


IN_LITTLE_MEMORY = """
import resource, sys
from keras_wd.__main__ import main
stream, small, large, *flags = sys.argv[1:]
flags = ["train", "--model=tiny.keras", "--epochs=1", "--optimizer=sgd",
         "--decay=none", *flags]
# What is loaded once, and what the first training allocates.
main([*flags, f"--dataset={small}", "--stream=true",
      f"--output_dir=first-{stream}"])
status = open("/proc/self/status").read()
used = int(status.split("VmData:")[1].split()[0]) * 1024
limit = used + 140 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
sys.exit(main([*flags, f"--dataset={large}", f"--stream={stream}",
               f"--output_dir=second-{stream}"]))
"""


def _photos_of_300_megabytes():
    keras.Sequential(
        [
            keras.Input((256, 256, 3)),
            keras.layers.AveragePooling2D(64),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    ).save("tiny.keras")
    pixels = np.zeros((256, 256, 3), np.uint8)
    for size, count in ("small", 40), ("large", 1500):
        for number in range(count):
            path = pathlib.Path(size, "ab"[number % 2], f"{number:04d}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels[:128] = number % 251
            Image.fromarray(pixels).save(path, compress_level=1)
    return ["./small", "./large", "--image_size=256", "--batch_size=8"]


def _table_of_400_megabytes():
    """A column of a thousand words is a thousand columns of numbers."""
    inputs = keras.Input((1000,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save("tiny.keras")
    for size, count in ("small", 4_000), ("large", 100_000):
        lines = [f"w{number % 1000},{number % 2}" for number in range(count)]
        pathlib.Path(f"{size}.csv").write_text("\n".join(["a,b", *lines]))
    return ["small.csv", "large.csv", "--target=b", "--batch_size=128"]


def _arrays_of_400_megabytes():
    inputs = keras.Input((1000,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save("tiny.keras")
    for size, count in ("small", 4_000), ("large", 100_000):
        x = np.arange(count * 1000, dtype="float32").reshape(count, 1000) % 7
        np.savez(f"{size}.npz", x=x, y=np.arange(count) % 2)
    return ["small.npz", "large.npz", "--batch_size=128"]


def _examples_of_400_megabytes():
    _arrays_of_400_megabytes()
    pathlib.Path("examples.py").write_text(
        """if True:
        import tensorflow as tf
        def small(): return made(4_000)
        def large(): return made(100_000)
        def made(count):
            numbers = tf.data.Dataset.range(count)
            return numbers.map(
                lambda n: (tf.fill((1000,), tf.cast(n % 7, "float32")), n % 2)
            )
        """
    )
    return ["examples:small", "examples:large", "--batch_size=128"]


@pytest.mark.weekly(reason="two processes train on hundreds of megabytes")
@pytest.mark.parametrize(
    "make",
    [
        *(_photos_of_300_megabytes, _table_of_400_megabytes),
        *(_arrays_of_400_megabytes, _examples_of_400_megabytes),
    ],
)
def test_a_set_larger_than_the_memory_is_trained_on(
    make, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    arguments = make()

    def status(stream):
        return subprocess.run(
            [sys.executable, "-c", IN_LITTLE_MEMORY, stream, *arguments],
            capture_output=True,
            text=True,
            timeout=600,
        )

    streamed = status("true")
    assert streamed.returncode == 0, streamed.stderr[-2000:]
    held = status("false")
    assert held.returncode == 2
    assert "does not fit into memory. Use --stream=true" in held.stderr
