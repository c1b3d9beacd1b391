"""The program as functions, for notebooks and scripts. The commands of `sweep` call them and print what they return.

    result = sweep.search("cnn1", data="my_folder", trials=30, fix={"activation": "relu"})
    result.trials, result.test, result.uri

Stores and reports are in the current directory, as those of the commands are, unless others are named. Wrong input
raises `InputError`, whose `faults` has a sentence for each fault; they name options as the commands have them.
"""

import warnings

# Of Optuna's progress bar, which nothing here shows: in a notebook without ipywidgets its import complains.
warnings.filterwarnings("ignore", message="IProgress not found")
