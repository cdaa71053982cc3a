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


class Own(keras_tuner.HyperModel):
    """Own hyperparameters in `build`, behind a condition too."""

    def build(self, hp):
        units = hp.Int("units", 2, 9)
        if hp.Boolean("momentum"):
            sgd = keras.optimizers.SGD(1e-2, hp.Choice("beta", [0.5, 0.9]))
            return compiled(network(units), sgd)
        return compiled(network(units))


class Ours(tuner.ResNetHyperModel):
    """Our hypermodel, compiled as a user would."""

    def __init__(self):
        super().__init__(SHAPE, CLASSES, **SMALL)

    def compile(self, hp, model):
        compiled(model, keras.optimizers.SGD(hp.Float("rate", 1e-2, 1e-1)))


class InFit(Own):
    """A hyperparameter that `fit` is the first to ask for."""

    def fit(self, hp, model, *args, **kwargs):
        return model.fit(*args, shuffle=hp.Boolean("shuffle"), **kwargs)


class OursInFit(Ours):
    def fit(self, hp, model, *args, **kwargs):
        model.optimizer.learning_rate = hp.Choice("late_rate", [1e-1, 1e-3])
        return super().fit(hp, model, *args, **kwargs)


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


class Averaged(Own):
    def build(self, hp):
        rate = hp.Float("rate", 1e-2, 1e-1)
        return compiled(network(), keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.5))


class Folds(Own):
    """Cross-validation in `fit`: a new model for each fold, and the mean of their losses."""

    def fit(self, hp, model, *args, **kwargs):
        losses = []
        for fold in (slice(0, 12), slice(12, 24)):
            model = self.build(hp)
            kwargs.update(x=np.delete(X, fold, 0), y=np.delete(Y, fold, 0))
            kwargs["validation_data"] = (X[fold], Y[fold])
            losses.append(min(model.fit(*args, **kwargs).history["val_loss"]))
        return {"val_loss": float(np.mean(losses)), "spread": float(np.ptp(losses))}


class PerClass(Own):
    """A metric that is an array."""

    def build(self, hp):
        f1 = keras.metrics.F1Score(name="f1")
        model = network(hp.Int("units", 2, 9))
        return compiled(model, loss="categorical_crossentropy", metrics=["accuracy", f1])


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


class OwnStep(Own):
    def build(self, hp):
        return compiled(Stepping(hp.Int("units", 2, 9)))


class Mixed(Own):
    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def build(self, hp):
        return compiled(network(hp.Int("units", 2, 9), self.dtype), auto_scale_loss=True)


class OursMixed(tuner.ResNetHyperModel):
    def __init__(self, dtype):
        super().__init__(SHAPE, CLASSES, dtype=dtype, **SMALL)


class Diverging(Own):
    """A score that is not a number, for half of the space."""

    def build(self, hp):
        rate = hp.Choice("rate", [1e-2, 1e30])
        return compiled(network(hp.Int("units", 2, 9)), keras.optimizers.SGD(rate))


class Failing(Own):
    """An error for half of the space."""

    def build(self, hp):
        if hp.Int("units", 2, 9) > 5:
            raise ValueError("too many")
        return compiled(network(hp.get("units")))


class Refusing(Own):
    def build(self, hp):
        if hp.Int("units", 2, 9) > 5:
            raise keras_tuner.errors.FailedTrialError("too many")
        return compiled(network(hp.get("units")))


class Unlucky(Own):
    """Fails once, and then does not."""

    times = 0

    def fit(self, hp, model, *args, **kwargs):
        self.times += 1
        if self.times == 1:
            raise RuntimeError("bad luck")
        return super().fit(hp, model, *args, **kwargs)


class Scopes(Own):
    def build(self, hp):
        kind = hp.Choice("kind", ["adam", "sgd"])
        with hp.conditional_scope("kind", ["sgd"]):
            momentum = hp.Choice("momentum", [0.1, 0.9])
        sgd = keras.optimizers.SGD(1e-2, momentum if kind == "sgd" else 0.0)
        return compiled(network(hp.Int("units", 2, 9)), sgd if kind == "sgd" else "adam")


class Several(Own):
    """Two outputs."""

    def build(self, hp):
        inputs = keras.Input(SHAPE)
        x = keras.layers.Flatten()(inputs)
        a = keras.layers.Dense(CLASSES, "softmax", name="a")(x)
        b = keras.layers.Dense(hp.Int("units", 1, 9), name="b")(x)
        losses = {"a": "sparse_categorical_crossentropy", "b": "mse"}
        return compiled(keras.Model(inputs, {"a": a, "b": b}), loss=losses, metrics=None)


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


def folds_in_run_trial(self, trial, *args, **kwargs):
    """Cross-validation in a tuner's own `run_trial`."""
    losses = []
    for fold in (slice(0, 12), slice(12, 24)):
        model = self.hypermodel.build(trial.hyperparameters)
        x, y = np.delete(X, fold, 0), np.delete(Y, fold, 0)
        model.fit(x, y, epochs=1, verbose=0)
        losses.append(model.evaluate(X[fold], Y[fold], verbose=0)[0])
    return {"val_loss": float(np.mean(losses))}


ONE_HOT = {
    **ARRAYS,
    "y": keras.utils.to_categorical(ARRAYS["y"], CLASSES),
    "validation_data": (VALIDATION[0], keras.utils.to_categorical(VALIDATION[1], CLASSES)),
}
PAIRS = {**ARRAYS, "y": {"a": Y[:16], "b": X[:16, 0, 0]}}
PAIRS["validation_data"] = (X[16:], {"a": Y[16:], "b": X[16:, 0, 0]})
DATASET = {"epochs": 2, "validation_data": VALIDATION}
STOP = keras.callbacks.EarlyStopping("val_loss", patience=1)

# By what they do: a function that makes the hypermodel, and what differs from the usual arguments.
# The key `tuner` is for the tuner, `fit` for `search`, `methods` for a subclass of the tuner, and
# `only` names the backend that has it.
HYPERMODELS = {
    "a function": dict(make=lambda: Own().build),
    "hyperparameters in build": dict(make=Own),
    "hyperparameters in compile": dict(make=Ours),
    "hyperparameters in fit": dict(make=InFit),
    "hyperparameters in our fit": dict(make=OursInFit),
    "a conditional scope": dict(make=Scopes),
    "two phases": dict(make=TwoPhases),
    "restored weights": dict(make=Restored, tuner={"objective": None}, fit={"epochs": 3}),
    "averaged weights": dict(make=Averaged),
    "swapped averages": dict(
        make=Averaged, fit={"callbacks": [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)]}
    ),
    "folds in fit": dict(make=Folds),
    "folds in run_trial": dict(make=Own, methods={"run_trial": folds_in_run_trial}),
    "a metric per class": dict(make=PerClass, fit=ONE_HOT),
    "an own training step": dict(make=OwnStep),
    "mixed_float16": dict(make=lambda: Mixed("mixed_float16")),
    "mixed_bfloat16": dict(make=lambda: Mixed("mixed_bfloat16")),
    "ours in mixed_bfloat16": dict(make=lambda: OursMixed("mixed_bfloat16")),
    "a generator": dict(make=Own, fit=lambda: {**DATASET, "x": generated(), "steps_per_epoch": 2}),
    "a PyDataset": dict(make=Own, fit=lambda: {**DATASET, "x": Batches()}),
    "tf.data": dict(make=Own, fit=lambda: {**DATASET, "x": tf_data()}, only="tensorflow"),
    "several outputs": dict(make=Several, fit=PAIRS),
    "scores that are not numbers": dict(make=Diverging, tuner={"max_consecutive_failed_trials": 9}),
    "errors": dict(make=Failing, tuner={"max_consecutive_failed_trials": 9}),
}

# What is asked of a tuner and of `search`, by RandomSearch alone.
ARGUMENTS = {
    "refusals": dict(make=Refusing, tuner={"max_consecutive_failed_trials": 9}),
    "errors in a row": dict(make=Failing, tuner={"max_consecutive_failed_trials": 1}),
    "retries": dict(make=Unlucky, tuner={"max_retries_per_trial": 1}),
    "executions": dict(make=Own, tuner={"executions_per_trial": 2}),
    "validation_freq": dict(make=Own, fit={"validation_freq": 2, "epochs": 4}),
    "early stopping": dict(make=Own, fit={"callbacks": [STOP], "epochs": 3}),
    "two objectives": dict(make=Own, tuner={"objective": ["val_loss", "val_accuracy"]}),
    "an optimizer": dict(make=Own, tuner={"optimizer": keras.optimizers.SGD(1e-2)}),
    "oversized models": dict(make=Own, tuner={"max_model_size": 80}),
    "sample weights": dict(make=Own, fit={"sample_weight": np.linspace(0, 1, 16)}),
    "a validation split": dict(make=Own, fit={"validation_split": 0.25, "validation_data": None}),
    "a strategy": dict(
        make=Own, tuner=lambda: {"distribution_strategy": mirrored()}, only="tensorflow"
    ),
}
