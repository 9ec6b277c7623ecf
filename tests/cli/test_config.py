import json

import pytest

from keras_wd.cli import config
from keras_wd.cli.usage_errors import UsageError


def test_defaults_are_resolved():
    settings = config.from_command_line([])
    assert settings["learning_rate"] == 0.001
    assert settings["weight_decay"] == 0.1
    assert settings["decay_factors"] is None  # stepwise alone has them
    assert config.from_command_line(["--optimizer=SGD"])["learning_rate"] == 0.1


def test_a_run_is_repeated_from_its_configuration(tmp_path):
    settings = config.from_command_line(
        [
            "--model=cnn",
            "--nobias",
            "--batch_norm",
            "--optimizer=momentum",
            "--decay=l1",
            "--where=~logits/*",
            "--learning_rate=0.1234567890123",
            "--lr_schedule=step",
            "--output_dir=somewhere",
        ]
    )
    config.write(settings, str(tmp_path))
    path = str(tmp_path / "config.json")
    again = config.from_command_line([f"--config={path}"])
    assert again == {**settings, "output_dir": None, "config": path}
    document = json.loads((tmp_path / "config.json").read_text())
    assert document["environment"]["backend"] in ("tensorflow", "jax")
    assert "output_dir" not in document["flags"]


def test_flags_win_over_the_file(tmp_path):
    config.write(config.from_command_line([]), str(tmp_path))
    settings = config.from_command_line(
        [f"--config={tmp_path}/config.json", "--decay=l2", "--epochs=3"]
    )
    assert settings["epochs"] == 3
    assert settings["decay"] == "l2"
    assert settings["p"] is None  # the file's p had a meaning for lp alone


@pytest.fixture
def run(tmp_path):
    config.write(config.from_command_line(["--epochs=7"]), str(tmp_path))
    return tmp_path


def test_resuming_uses_the_flags_of_the_run(run):
    settings = config.from_command_line(["--resume", f"--output_dir={run}"])
    assert settings["epochs"] == 7


def test_resuming_accepts_the_same_flags_and_another_data_dir(run):
    settings = config.from_command_line(
        ["--resume", f"--output_dir={run}", "--epochs=7", "--data_dir=x"]
    )
    assert (settings["epochs"], settings["data_dir"]) == (7, "x")


def test_resuming_with_other_flags_is_refused_by_name(run):
    with pytest.raises(UsageError, match="--epochs, --seed differs"):
        config.from_command_line(
            ["--resume", f"--output_dir={run}", "--epochs=8", "--seed=1"]
        )


def test_resuming_on_another_backend_is_refused(run):
    path = run / "config.json"
    document = json.loads(path.read_text())
    document["environment"]["backend"] = "numpy"
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="Set KERAS_BACKEND=numpy"):
        config.from_command_line(["--resume", f"--output_dir={run}"])


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "is not JSON"),
        ("[1]", "is not the configuration of a run"),
        ('{"format": 2, "flags": {}}', "is not the configuration of a run"),
    ],
)
def test_files_that_are_no_configuration(text, message, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=f"--config=.* {message}"):
        config.from_command_line([f"--config={path}"])


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"epochs": "many"}, "--config=.*--epochs must be a positive integer"),
        ({"epoch": 3}, "--config=.*--epoch is not a flag .* '--epochs'"),
        ({"epochs": [3]}, "'epochs' cannot be set to"),
        ({"resume": True}, "'resume' cannot be set to"),
        ({"decay": "l2", "p": 0.5}, "--p applies only with --decay=lp"),
    ],
)
def test_configurations_with_mistakes(flags, message, tmp_path):
    path = tmp_path / "config.json"
    document = {"format": 1, "flags": flags, "environment": {}}
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match=message):
        config.from_command_line([f"--config={path}"])
