"""The tests of keras_wd, laid out like the package."""
