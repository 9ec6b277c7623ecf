"""Images that are read as they are needed are those that memory would hold."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_wd.cli import batches
from keras_wd.cli import datasets
from keras_wd.cli import streams
from keras_wd.cli.errors import UsageError
from keras_wd.cli.streams import Stream
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
def prepared(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("sets"))
    datasets.load("made_colour", folder, stream="true")
    return folder


@pytest.fixture(
    params=[("photos", False), ("made_colour", False), ("made_colour", True)],
    ids=["photos", "index", "tfrecord"],
)
def both(request, photos, prepared, data_dir):
    """A set as a stream, and in memory from the same or from other files."""
    name, from_others = request.param
    name = photos if name == "photos" else name
    return [
        datasets.load(name, prepared, stream="true"),
        datasets.load(name, data_dir if from_others else prepared),
    ]


def test_a_stream_has_the_examples_of_the_memory(both):
    streamed, held = both
    assert isinstance(streamed.train.inputs, Stream)
    assert isinstance(held.train.inputs, np.ndarray)
    for split in "train", "validation", "test":
        one, other = getattr(streamed, split), getattr(held, split)
        assert (one.take(slice(None)).inputs == other.inputs).all()
        assert (one.targets == other.targets).all()
    np.testing.assert_allclose(streamed.mean, held.mean, rtol=1e-6)
    np.testing.assert_allclose(streamed.deviation, held.deviation, rtol=1e-6)


def test_a_stream_has_the_batches_of_the_memory_from_any_epoch(both):
    streamed, held = (datasets.few(data, 20, seed=1) for data in both)
    assert len(streamed.test) > 8
    for epochs in range(0, 2), range(1, 2):
        for one, other in zip(
            batches.training_batches(streamed, 4, 3, epochs, augment=True),
            batches.training_batches(held, 4, 3, epochs, augment=True),
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


def test_a_set_without_an_index_is_refused_with_the_way_out(tmp_path):
    datasets.load("made_train_only", str(tmp_path / "one"))
    with pytest.raises(UsageError, match="has none. Name another --data_dir"):
        datasets.load("made_train_only", str(tmp_path / "one"), stream="true")
    # What the memory allows is held in it.
    datasets.load("made_train_only", str(tmp_path / "one"), stream="auto")
    datasets.load("made_train_only", str(tmp_path / "two"), stream="true")


def test_images_of_different_sizes_are_streamed_in_one_size(tmp_path):
    data = datasets.load("made_of_all_sizes", str(tmp_path), stream="true")
    assert data.input_shape == (6, 6, 3)
    data = datasets.load(
        "made_of_all_sizes", str(tmp_path), image_size="4,8", stream="true"
    )
    assert data.train.take(slice(2)).inputs.shape == (2, 4, 8, 3)


@pytest.mark.parametrize("name", ["rows.npz", "made_of_texts", "texts"])
def test_what_is_no_image_is_not_streamed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("rows.npz", x=np.zeros((40, 2)), y=np.arange(40) % 2)
    for kind in "ab":
        (tmp_path / "texts" / kind).mkdir(parents=True)
        (tmp_path / "texts" / kind / "1.txt").write_text("a text")
    name = "./texts" if name == "texts" else name
    with pytest.raises(UsageError, match="--stream=true needs images"):
        datasets.load(name, str(tmp_path), stream="true")


IN_LITTLE_MEMORY = """
import resource, sys
from keras_wd.__main__ import main
flags = ["train", "--model=tiny.keras", "--epochs=1", "--batch_size=8",
         "--image_size=256", "--optimizer=sgd", "--decay=none"]
# What is loaded once, and what the first training allocates.
main([*flags, "--dataset=./small", "--stream=true",
      f"--output_dir=first-{sys.argv[1]}"])
status = open("/proc/self/status").read()
used = int(status.split("VmData:")[1].split()[0]) * 1024
limit = used + 140 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
sys.exit(main([*flags, "--dataset=./large", f"--stream={sys.argv[1]}",
               f"--output_dir=second-{sys.argv[1]}"]))
"""


@pytest.mark.weekly(reason="two processes train on 1,500 large images")
def test_a_set_larger_than_the_memory_is_trained_on(tmp_path):
    import keras

    keras.Sequential([
        keras.Input((256, 256, 3)),
        keras.layers.AveragePooling2D(64),
        keras.layers.Flatten(),
        keras.layers.Dense(2),
    ]).save(tmp_path / "tiny.keras")  # fmt: skip
    pixels = np.zeros((256, 256, 3), np.uint8)
    for size, count in ("small", 40), ("large", 1500):
        for number in range(count):
            path = tmp_path / size / "ab"[number % 2] / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels[:128] = number % 251
            Image.fromarray(pixels).save(path, compress_level=1)
    # As an array the set has twice the memory that there is.
    assert 1500 * pixels.nbytes > 250 * 2**20

    def status(stream):
        return subprocess.run(
            [sys.executable, "-c", IN_LITTLE_MEMORY, stream],
            cwd=tmp_path, capture_output=True, text=True, timeout=600,
        )  # fmt: skip

    streamed = status("true")
    assert streamed.returncode == 0, streamed.stderr[-2000:]
    held = status("false")
    assert held.returncode == 2
    assert "does not fit into memory. Use --stream=true" in held.stderr
