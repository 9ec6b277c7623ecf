"""Tests of Keras that must fail with the wrapper, and why."""

_REFUSED = "Its step derives the weights from a state of its own: refused."
_RATE = "The rate is one variable more, so that it can be set while training."
_DENSE = "A decay changes every row, so its assignment is not a sparse one."
_HOOK = "It calls a hook that is a part of `apply`, where alone decays act."
_WALK = "A walk over what is saved ends at the wrapper, which stores it all."
_PATCHED = "It replaces a method that steps; here the inner optimizer's steps."
_CLASS = "The class is WeightDecay; Keras's is the inner optimizer's."

KNOWN = {
    "saving/file_editor_test.py::*::test_scalar_weight": _WALK,
    "saving/saving_lib_test.py::*_module_paths_and_class_names": _CLASS,
    "models/variable_mapping_test.py::*::test_basics": _WALK,
    # tests/decays/test_touched_rows.py has the same of the inner optimizer.
    "trainers/trainer_test.py::*::test_fit_sparse_*": _PATCHED,
    "optimizers/ftrl_test.py::*": _REFUSED,
    "optimizers/schedule_free_adamw_test.py::*": _REFUSED,
    "optimizers/optimizer_sparse_test.py::*_ftrl": _REFUSED,
    # The tenth is Ftrl.
    "optimizers/optimizer_test.py::*_accumulation_with_weigth_decay9": _REFUSED,
    "optimizers/optimizer_sparse_test.py::*test_sparse_gradients_*": _DENSE,
    "optimizers/muon_test.py::*::test_adamw_single_step": _HOOK,
    "optimizers/muon_test.py::*::test_adamw_weight_decay": _HOOK,
    "optimizers/muon_test.py::*::test_muon_single_step": _HOOK,
    "optimizers/sgd_test.py::*::test_single_step": _RATE,
    "optimizers/optimizer_test.py::*::test_setting_lr_to_callable*": _RATE,
    "optimizers/schedules/*::test_fit_lr_correctness": _RATE,
    "optimizers/multi_optimizer_test.py::*::test_serialization": _CLASS,
}
