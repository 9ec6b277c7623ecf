import pytest

from keras_wd.study import datasets
from keras_wd.study.errors import UsageError
from tests.study import made  # noqa: F401  (registers its sets)


def test_images_of_different_sizes_are_resized(tmp_path):
    data = datasets.load("made_of_all_sizes", str(tmp_path))
    assert data.input_shape == (6, 6, 3)
    data = datasets.load("made_of_all_sizes", str(tmp_path), image_size="4,8")
    assert data.input_shape == (4, 8, 3)


@pytest.mark.parametrize(
    "name, message",
    [
        ("made_to_regress", "is not an image-classification set"),
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
