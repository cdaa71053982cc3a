"""A search of one trial, as code for a process of its own, which is given the directory."""

SMALL_SEARCH = """
    import sys

    import numpy as np
    from keras_resblocks import tuner

    x = np.zeros((8, 8, 8, 1), "float32")
    hypermodel = tuner.ResNetHyperModel((8, 8, 1), 2, depths=1, widths=4, stages=1)
    engine = tuner.RandomSearch(
        hypermodel, "val_loss", max_trials=1, seed=0, directory=sys.argv[1]
    )
    engine.search(x, x[:, 0, 0, 0], validation_data=(x, x[:, 0, 0, 0]), verbose=0)
"""
