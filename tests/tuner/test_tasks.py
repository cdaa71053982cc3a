"""What a network is searched for: its last activation, loss, metrics and objective."""

import keras
import numpy as np
import pytest
from searches import parameters

from keras_resblocks import tuner

SHAPE, COUNT = (6, 6, 1), 24
TINY = dict(stages=1, depths=1, widths=2, blocks="residual", activations="relu")
TINY |= dict(regularizers=0.0, learning_rates=1e-2)
rng = np.random.default_rng(0)
Y = np.arange(COUNT) % 3
X = (rng.normal(size=(COUNT, *SHAPE)) + Y.reshape(-1, 1, 1, 1)).astype("float32")

# The activation, the loss and the objective.
SOFTMAX = ("softmax", "crossentropy", "val_accuracy")
SIGMOID = ("sigmoid", "binary_crossentropy", "val_accuracy")
LINEAR = ("linear", "mean_squared_error", "val_rmse")
BINARY, REGRESSION = {"task": "binary"}, {"task": "regression"}
ONE_HOT = np.eye(3)[Y]
SMOOTHED = {"label_smoothings": 0.1}

# By name: outputs, labels, options, and what is expected.
TASKS = {
    "classes": (3, Y, {}, SOFTMAX),
    "one-hot labels": (3, ONE_HOT, {}, SOFTMAX),
    "a column of classes": (3, Y[:, None], {}, SOFTMAX),
    "smoothed one-hot labels": (
        *(3, ONE_HOT, SMOOTHED),
        ("softmax", "SmoothedSparseCategoricalCrossentropy", "val_accuracy"),
    ),
    "binary": (1, Y % 2, BINARY, SIGMOID),
    "smoothed binary": (
        *(1, Y % 2, {**BINARY, **SMOOTHED}),
        ("sigmoid", "BinaryCrossentropy", "val_accuracy"),
    ),
    "a loss and metrics": (
        *(1, Y % 2, {**BINARY, "loss": "hinge", "metrics": ["mse"]}),
        ("sigmoid", "hinge", "val_accuracy"),
    ),
    "mixed precision": (1, Y % 2, {**BINARY, "dtype": "mixed_bfloat16"}, SIGMOID),
    "multilabel": (
        *(3, np.maximum(ONE_HOT, np.eye(3)[Y % 2]), {"task": "multilabel"}),
        ("sigmoid", "binary_crossentropy", "val_auc"),
    ),
    "regression": (1, Y.astype("float32"), REGRESSION, LINEAR),
    "regression of several numbers": (2, X[:, 0, :2, 0], REGRESSION, LINEAR),
    "an activation": (
        *(1, Y, {**REGRESSION, "classifier_activation": "relu"}),
        ("relu", "mean_squared_error", "val_rmse"),
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_chooses_what_a_network_ends_with(name):
    outputs, labels, options, (activation, loss, objective) = TASKS[name]
    hypermodel = tuner.ResNetHyperModel(SHAPE, outputs, **TINY, **options)
    hp = parameters()
    model = hypermodel.build(hp)
    assert model.layers[-1].activation.__name__ == activation
    assert keras.dtype_policies.get(model.layers[-1].compute_dtype).name == "float32"
    assert loss in (model.loss, type(model.loss).__name__)
    assert hypermodel.objective.name == objective
    validation = (X[16:], labels[16:])
    history = hypermodel.fit(
        hp, model, X[:16], labels[:16], validation_data=validation, epochs=1, verbose=0
    ).history
    assert np.isfinite(history["val_loss"]).all()
    if "metrics" not in options:
        assert objective in history
        assert model.predict(X, verbose=0).shape == (COUNT, outputs)


def test_two_models_share_no_metric():
    hypermodel = tuner.ResNetHyperModel(SHAPE, 1, task="binary", metrics=[keras.metrics.AUC()])
    models = [hypermodel.build(parameters()) for _ in range(2)]
    variables = [{id(v) for v in model.metrics_variables} for model in models]
    assert not variables[0] & variables[1]


@pytest.mark.parametrize("shape", [(None, 3), (None, None, 1), (None, 16, 2, 1)])
def test_an_open_size_has_a_budget_of_parameters_alone(shape):
    hypermodel = tuner.ResNetHyperModel(shape, 2, max_params=10_000, **TINY)
    model = hypermodel.build(parameters())
    assert model.count_params() == hypermodel.cost(parameters()).params
    for name in ("max_macs", "max_activation_memory"):
        with pytest.raises(ValueError, match=rf"`max_macs`.*open size.*{name}=1000"):
            tuner.ResNetHyperModel(shape, 2, **{name: 1000}, **TINY)


@pytest.mark.parametrize(
    ("outputs", "options", "message"),
    [
        (1, {}, r"`task` must be given.*Received: classes=1"),
        (3, {"task": "binary"}, r"`classes` must be 1.*Received: classes=3"),
        (3, {"task": "clasification"}, r"`task`.*'classification'.*Received"),
        (0, {}, r"`classes`.*Received: classes=0"),
        (1, {"task": "regression", "label_smoothings": 0.1}, r"`label_smoothings`.*regression"),
        (3, {"loss": "mse", "label_smoothings": (0, 0.1)}, r"`label_smoothings`.*`loss`"),
    ],
)
def test_a_task_that_cannot_be_is_an_error(outputs, options, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        tuner.ResNetHyperModel(SHAPE, outputs, **TINY, **options)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return X[12 * index : 12 * index + 12], Y[12 * index : 12 * index + 12]


@pytest.mark.parametrize("batch_sizes", [8, (8, 16)])
@pytest.mark.parametrize("make", [Batches, lambda: iter([(X, Y)])], ids=["PyDataset", "iterator"])
def test_batch_sizes_are_for_arrays_alone(make, batch_sizes):
    hypermodel = tuner.ResNetHyperModel(SHAPE, 3, **TINY, batch_sizes=batch_sizes)
    hp = parameters()
    with pytest.raises(ValueError, match=r"`batch_sizes`.*batched already.*Received"):
        hypermodel.fit(hp, hypermodel.build(hp), make(), epochs=1)
