"""Searches as users write them: each a hypermodel with what its tuner and `search` are given."""

import keras
import keras_tuner
import numpy as np

from keras_resblocks import tuner

SHAPE, CLASSES = (4, 4, 1), 3
SMALL = dict(stages=1, depths=1, widths=(2, 3, 4, 6), blocks="residual", activations="relu")
SMALL |= dict(regularizers=0.0, learning_rates=1e-2)

rng = np.random.default_rng(0)
Y = rng.integers(0, CLASSES, 24)
X = (rng.normal(size=(24, *SHAPE)) + Y.reshape(-1, 1, 1, 1)).astype("float32")
VALIDATION = (X[16:], Y[16:])
ARRAYS = dict(x=X[:16], y=Y[:16], validation_data=VALIDATION, batch_size=8)


def network(units=4, dtype=None):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Flatten(),
            layers.Dense(units, "relu", dtype=dtype, name="block"),
            layers.Dense(CLASSES, "softmax", dtype="float32"),
        ]
    )


def compiled(model, optimizer="adam", loss="sparse_categorical_crossentropy", **options):
    # Eager steps: nothing is traced for so small a model.
    options = {"metrics": ["accuracy"], "run_eagerly": True, **options}
    model.compile(keras.optimizers.get(optimizer), loss, **options)
    return model


def own(hp):
    """Own hyperparameters in `build`, behind a condition too."""
    units = hp.Int("units", 2, 9)
    if hp.Boolean("momentum"):
        sgd = keras.optimizers.SGD(1e-2, hp.Choice("beta", [0.5, 0.9]))
        return compiled(network(units), sgd)
    return compiled(network(units))


def in_scopes(hp):
    kind = hp.Choice("kind", ["adam", "sgd"])
    with hp.conditional_scope("kind", ["sgd"]):
        momentum = hp.Choice("momentum", [0.1, 0.9])
    sgd = keras.optimizers.SGD(1e-2, momentum if kind == "sgd" else 0.0)
    return compiled(network(hp.Int("units", 2, 9)), sgd if kind == "sgd" else "adam")


def averaged(hp):
    rate = hp.Float("rate", 1e-2, 1e-1)
    return compiled(network(), keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.5))


def per_class(hp):
    """A metric that is an array."""
    metrics = ["accuracy", keras.metrics.F1Score(name="f1")]
    return compiled(
        network(hp.Int("units", 2, 9)), loss="categorical_crossentropy", metrics=metrics
    )


class Stepping(keras.Model):
    """A training step of its own."""

    def __init__(self, units):
        super().__init__()
        self.network, self.steps = network(units), 0

    def call(self, inputs):
        return self.network(inputs)

    def get_build_config(self):
        return {"input_shape": (None, *SHAPE)}

    def build_from_config(self, config):
        self.build(config["input_shape"])  # whose network is built

    def train_step(self, *args):
        self.steps += 1
        return super().train_step(*args)


def stepping(hp):
    return compiled(Stepping(hp.Int("units", 2, 9)))


def mixed_float16(hp):
    return compiled(network(hp.Int("units", 2, 9), "mixed_float16"), auto_scale_loss=True)


def mixed_bfloat16(hp):
    return compiled(network(hp.Int("units", 2, 9), "mixed_bfloat16"), auto_scale_loss=True)


def diverging(hp):
    """A score that is not a number, for half of the space."""
    rate = hp.Choice("rate", [1e-2, 1e30])
    return compiled(network(hp.Int("units", 2, 9)), keras.optimizers.SGD(rate))


def failing(hp, error=ValueError):
    """An error for half of the space."""
    if hp.Int("units", 2, 9) > 5:
        raise error("too many")
    return compiled(network(hp.get("units")))


def refusing(hp):
    return failing(hp, keras_tuner.errors.FailedTrialError)


def two_outputs(hp):
    inputs = keras.Input(SHAPE)
    x = keras.layers.Flatten()(inputs)
    a = keras.layers.Dense(CLASSES, "softmax", name="a")(x)
    b = keras.layers.Dense(hp.Int("units", 1, 9), name="b")(x)
    losses = {"a": "sparse_categorical_crossentropy", "b": "mse"}
    return compiled(keras.Model(inputs, {"a": a, "b": b}), loss=losses, metrics=None)


class Own(keras_tuner.HyperModel):
    def __init__(self, build=own):
        super().__init__()
        self.build = build


class InFit(Own):
    """A hyperparameter that `fit` is the first to ask for."""

    def fit(self, hp, model, *args, **kwargs):
        return model.fit(*args, shuffle=hp.Boolean("shuffle"), **kwargs)


class TwoPhases(Own):
    """The head first, then everything, compiled again."""

    def fit(self, hp, model, *args, **kwargs):
        model.get_layer("block").trainable = False
        compiled(model).fit(*args, **kwargs)
        model.get_layer("block").trainable = True
        return compiled(model, keras.optimizers.SGD(1e-2)).fit(*args, **kwargs)


class Restored(Own):
    """Scores the weights of its best epoch, which a callback has restored."""

    def fit(self, hp, model, *args, callbacks, **kwargs):
        stop = keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)
        model.optimizer.learning_rate = 1.0
        model.fit(*args, callbacks=[stop, *callbacks], **kwargs)
        return model.evaluate(*VALIDATION, verbose=0)[0]


FOLDS = (slice(0, 12), slice(12, 24))


class Folds(Own):
    """Cross-validation in `fit`: a new model for each fold, and the mean of their losses."""

    def fit(self, hp, model, *args, **kwargs):
        losses = []
        for fold in FOLDS:
            model = self.build(hp)
            kwargs.update(x=np.delete(X, fold, 0), y=np.delete(Y, fold, 0))
            kwargs["validation_data"] = (X[fold], Y[fold])
            losses.append(min(model.fit(*args, **kwargs).history["val_loss"]))
        return {"val_loss": float(np.mean(losses)), "spread": float(np.ptp(losses))}


def folds_in_run_trial(self, trial, *args, **kwargs):
    """Cross-validation in a tuner's own `run_trial`."""
    losses = []
    for fold in FOLDS:
        model = self.hypermodel.build(trial.hyperparameters)
        model.fit(np.delete(X, fold, 0), np.delete(Y, fold, 0), epochs=1, verbose=0)
        losses.append(model.evaluate(X[fold], Y[fold], verbose=0)[0])
    return {"val_loss": float(np.mean(losses))}


class Unlucky(Own):
    """Fails once, and then does not."""

    times = 0

    def fit(self, hp, model, *args, **kwargs):
        self.times += 1
        if self.times == 1:
            raise RuntimeError("bad luck")
        return super().fit(hp, model, *args, **kwargs)


class Ours(tuner.ResNetHyperModel):
    """Our hypermodel, compiled as a user would."""

    def __init__(self):
        super().__init__(SHAPE, CLASSES, **SMALL)

    def compile(self, hp, model):
        compiled(model, keras.optimizers.SGD(hp.Float("rate", 1e-2, 1e-1)))


class OursInFit(Ours):
    def fit(self, hp, model, *args, **kwargs):
        model.optimizer.learning_rate = hp.Choice("late_rate", [1e-1, 1e-3])
        return super().fit(hp, model, *args, **kwargs)


class OursMixed(tuner.ResNetHyperModel):
    """Our hypermodel as it is."""

    def __init__(self):
        super().__init__(SHAPE, CLASSES, dtype="mixed_bfloat16", **SMALL)

    def compile(self, hp, model):
        super().compile(hp, model)
        model.run_eagerly = keras.backend.backend() == "tensorflow"


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return X[8 * index : 8 * index + 8], Y[8 * index : 8 * index + 8]


def generated():
    while True:
        yield X[:8], Y[:8]


def tf_data():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X[:16], Y[:16])).batch(8)


def mirrored():
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0"])


ONE_HOT = {
    **ARRAYS,
    "y": keras.utils.to_categorical(ARRAYS["y"], CLASSES),
    "validation_data": (VALIDATION[0], keras.utils.to_categorical(VALIDATION[1], CLASSES)),
}
PAIRS = {**ARRAYS, "y": {"a": Y[:16], "b": X[:16, 0, 0]}}
PAIRS["validation_data"] = (X[16:], {"a": Y[16:], "b": X[16:, 0, 0]})
DATASET = {"epochs": 2, "validation_data": VALIDATION}
STOP = keras.callbacks.EarlyStopping("val_loss", patience=1)

# By what they do: what a hypermodel builds, or how it is made, and what differs from the usual
# arguments. The key `tuner` is for the tuner, `search` for its `search`, `methods` for a subclass
# of the tuner, and `only` names the backend that has it.
FAILURES = {"max_consecutive_failed_trials": 9}
SWAP = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
HYPERMODELS = {
    "a function": dict(make=lambda: own),
    "hyperparameters in build": dict(build=own),
    "hyperparameters in compile": dict(make=Ours),
    "hyperparameters in fit": dict(make=InFit),
    "hyperparameters in our fit": dict(make=OursInFit),
    "a conditional scope": dict(build=in_scopes),
    "two phases": dict(make=TwoPhases),
    "restored weights": dict(make=Restored, tuner={"objective": None}, search={"epochs": 3}),
    "averaged weights": dict(build=averaged),
    "swapped averages": dict(build=averaged, search={"callbacks": [SWAP]}),
    "folds in fit": dict(make=lambda: Folds(in_scopes)),
    "folds in run_trial": dict(build=in_scopes, methods={"run_trial": folds_in_run_trial}),
    "a metric per class": dict(build=per_class, search=ONE_HOT),
    "an own training step": dict(build=stepping),
    "mixed_float16": dict(build=mixed_float16),
    "mixed_bfloat16": dict(build=mixed_bfloat16),
    "ours in mixed_bfloat16": dict(make=OursMixed),
    "a generator": dict(
        build=own, search=lambda: {**DATASET, "x": generated(), "steps_per_epoch": 2}
    ),
    "a PyDataset": dict(build=own, search=lambda: {**DATASET, "x": Batches()}),
    "tf.data": dict(build=own, search=lambda: {**DATASET, "x": tf_data()}, only="tensorflow"),
    "several outputs": dict(build=two_outputs, search=PAIRS),
    "scores that are not numbers": dict(build=diverging, tuner=FAILURES),
    "errors": dict(build=failing, tuner=FAILURES),
}

# What is asked of a tuner and of `search`, by RandomSearch alone.
ARGUMENTS = {
    "refusals": dict(build=refusing, tuner=FAILURES),
    "errors in a row": dict(build=failing, tuner={"max_consecutive_failed_trials": 1}),
    "retries": dict(make=Unlucky, tuner={"max_retries_per_trial": 1}),
    "executions": dict(build=own, tuner={"executions_per_trial": 2}),
    "validation_freq": dict(build=own, search={"validation_freq": 2, "epochs": 4}),
    "early stopping": dict(build=own, search={"callbacks": [STOP], "epochs": 3}),
    "two objectives": dict(build=own, tuner={"objective": ["val_loss", "val_accuracy"]}),
    "an optimizer": dict(build=own, tuner={"optimizer": keras.optimizers.SGD(1e-2)}),
    "oversized models": dict(build=own, tuner={"max_model_size": 80}),
    "sample weights": dict(build=own, search={"sample_weight": np.linspace(0, 1, 16)}),
    "a validation split": dict(
        build=own, search={"validation_split": 0.25, "validation_data": None}
    ),
    "a strategy": dict(
        build=own, tuner=lambda: {"distribution_strategy": mirrored()}, only="tensorflow"
    ),
}


def made(case):
    """The hypermodel of a case, and the arguments of its search."""
    options = case.get("search", {})
    options = options() if callable(options) else options
    hypermodel = case["make"]() if "make" in case else Own(case["build"])
    return hypermodel, {**({} if "x" in options else {**ARRAYS, "epochs": 2}), **options}
