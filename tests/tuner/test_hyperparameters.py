"""The parts of a search space that hypermodels of one's own are made of."""

import keras
import keras_tuner
import pytest
from searches import DATA, SHAPE, classifier, parameters, trials_of

import keras_resblocks as kr
from keras_resblocks import tuner


def model_of(hp, **options):
    inputs = x = keras.Input((8, 8, 3))
    x = tuner.hp_residual_stage(hp, x, "stage1", widths=(4, 8), **options)
    return keras.Model(inputs, x)


def test_a_stage_declares_its_hyperparameters():
    hp = keras_tuner.HyperParameters()
    model_of(hp)
    assert set(hp.values) == {"stage1_block", "stage1_depth", "stage1_width"}


@pytest.mark.parametrize(
    ("block", "block_class", "channels"),
    [("residual", kr.ResidualBlock, 8), ("bottleneck", kr.BottleneckBlock, 32)],
)
def test_a_stage_is_what_its_values_say(block, block_class, channels):
    hp = parameters(stage1_block=block, stage1_depth=2, stage1_width=8)
    model = model_of(hp, strides=2, activation="elu")
    first, second = model.layers[1:]
    assert (first.name, second.name) == ("stage1_block1", "stage1_block2")
    assert isinstance(first, block_class)
    assert (first.strides, second.strides) == (2, 1)
    assert first.get_config()["activation"] == "elu"
    assert model.output_shape == (None, 4, 4, channels)


def test_an_activation_is_one_of_the_names():
    hp = keras_tuner.HyperParameters()
    assert tuner.hp_activation(hp, ("elu", "relu"), name="act") == "elu"
    assert hp.space[0].values == ["elu", "relu"]


@pytest.mark.parametrize(("strength", "is_none"), [(0.0, True), (1e-3, False)])
def test_a_regularizer_of_strength_zero_is_none(strength, is_none):
    regularizer = tuner.hp_regularizer(parameters(l2=strength))
    assert (regularizer is None) == is_none
    assert is_none or float(regularizer.l2) == pytest.approx(strength)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda hp: model_of(hp, blocks=("basic",)), "`blocks`"),
        (lambda hp: tuner.hp_regularizer(hp, (-1.0,)), "`values`"),
    ],
)
def test_bad_choices_are_errors(make, said):
    with pytest.raises(ValueError, match=f"{said}.*Received:"):
        make(keras_tuner.HyperParameters())


def test_a_hypermodel_of_such_parts_is_searched(tmp_path):
    def build(hp):
        options = {"activation": tuner.hp_activation(hp), "preactivation": True}
        inputs = keras.Input(SHAPE)
        x = tuner.hp_residual_stage(hp, inputs, "stage1", widths=(2, 4), depths=(1, 2), **options)
        return classifier(keras.Model(inputs, x), run_eagerly=True)

    engine = tuner.RandomSearch(build, "val_accuracy", max_trials=2, seed=1, directory=tmp_path)
    engine.search(**DATA, epochs=1, verbose=0)
    assert [trial.status for trial in trials_of(engine)] == ["COMPLETED"] * 2
