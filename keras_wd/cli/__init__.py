"""What the command line does: data sets, models, runs and their reports.

Nothing here is imported by `import keras_wd`, and the heavy libraries
(TensorFlow Datasets, scikit-learn, Matplotlib) are imported when used.
"""
