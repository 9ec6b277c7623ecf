import pytest

from keras_wd.cli import compare_flags
from keras_wd.cli import config
from keras_wd.cli import grid
from keras_wd.cli.usage_errors import UsageError


def test_every_optimizer_meets_every_method_from_every_seed():
    cells = grid.cells(["sgd", "adam"], ["none", "decoupled"], [], 2)
    assert len(cells) == len({cell.name for cell in cells}) == 8
    # One seed is complete before the next begins.
    assert [cell.seed for cell in cells] == [0] * 4 + [1] * 4


def test_rates_multiply_what_has_a_rate():
    cells = grid.cells(["sgd"], ["none", "lp"], [0.1, 0.01], 1)
    assert [cell.weight_decay for cell in cells] == [None, 0.1, 0.01]


def test_an_optimizer_without_rates_of_its_own_has_those_of_adam():
    (cell,) = grid.cells(["lion"], ["lp"], [], 1)
    assert cell.weight_decay == grid.RATES["adam"]["lp"]


@pytest.mark.parametrize("optimizer", grid.RATES)
@pytest.mark.parametrize("method", grid.METHODS)
def test_the_flags_of_a_cell_are_those_of_a_run(optimizer, method):
    (cell,) = grid.cells([optimizer], [method], [], 1)
    # Pairs of layers need no normalization between them, FixedNorm needs it.
    network = "--nobatch_norm" if method == "path_norm" else "--batch_norm"
    settings = config.from_command_line([network, *cell.flags])
    assert settings["optimizer"] == optimizer
    if settings["decay"] != "none":
        assert settings["weight_decay"] == cell.weight_decay


def test_a_shared_flag_reaches_the_runs_that_it_means_something_to():
    shared = ["--epochs=2", "--p=0.5", "--nocautious", "--where=everything"]
    damped = [*shared, "--damping=0.1"]
    assert compare_flags.with_meaning(damped, "kfac", "lp") == damped
    assert compare_flags.with_meaning(damped, "sgd", "lp") == shared
    assert compare_flags.with_meaning(damped, "sgd", "group_lasso") == [
        "--epochs=2",
        "--where=everything",
    ]
    assert compare_flags.with_meaning(shared, "sgd", "none") == ["--epochs=2"]
    compare_flags.check_used(damped, [("kfac", "none"), ("sgd", "lp")])
    compare_flags.check_used(["--kl_clip=0.001"], [("sgd", "l1")])  # a default
    for flags, message in (
        (shared, "--p applies only with a method of --decays"),
        (["--damping=0.1"], "--damping applies only with one of --optimizers"),
    ):
        with pytest.raises(UsageError, match=message):
            compare_flags.check_used(
                flags, [("sgd", "none"), ("sgd", "cautious")]
            )
