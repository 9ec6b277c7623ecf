import numpy as np
import pytest

from keras_wd.cli import datasets
from keras_wd.cli.usage_errors import UsageError
from tests.cli import made  # noqa: F401  (registers its sets)


def test_a_set_without_its_library_says_what_to_install(monkeypatch):
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: name != "tensorflow_datasets"
    )
    with pytest.raises(UsageError, match=r"pip install 'keras_wd\[study\]'"):
        datasets.load("mnist")


def test_images_of_different_sizes_are_resized(tmp_path):
    data = datasets.load("made_of_all_sizes", str(tmp_path))
    assert data.input_shape == (6, 6, 3)
    data = datasets.load("made_of_all_sizes", str(tmp_path), image_size="4,8")
    assert data.input_shape == (4, 8, 3)


def test_texts_become_rows_of_their_most_frequent_words(tmp_path):
    data = datasets.load("made_of_texts", str(tmp_path), words=5)
    assert data.classes == 2 and len(data.train) == 36
    assert data.input_shape == (6,)  # one for all other words
    x = data.standardise(data.test.inputs)
    # "good" is in the texts of label 1 alone, "film" in all.
    columns = [tuple(column) for column in x.T]
    assert tuple(data.test.targets) in columns
    assert (1,) * len(data.test) in columns
    assert set(np.unique(x)) <= {0, 1}
    with pytest.raises(UsageError, match="--image_size needs images"):
        datasets.load("made_of_texts", str(tmp_path), image_size="8")


@pytest.mark.parametrize(
    "name, message",
    [
        ("made_to_regress", "does not pair an image or a text with a class"),
        ("made_of_a_dictionary", "does not pair an image or a text with a cl"),
        ("made_pairs_of_texts", "does not pair an image or a text with a cl"),
        ("digist", "is not a data set of .* Did you mean 'digits'"),
        ("emnist/leters", "is not a form .* Did you mean 'letters'"),
        ("mnist:9.9.9", "is not a form or version of mnist"),
    ],
)
def test_load_rejects(name, message, tmp_path):
    with pytest.raises(UsageError, match=f"--dataset={name} {message}"):
        datasets.load(name, str(tmp_path))


def test_load_rejects_a_folder_that_is_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(UsageError, match="--data_dir=.*cannot be written to"):
        datasets.load("digits", str(path / "x"))
