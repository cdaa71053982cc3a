"""The optimizer that updates all variables as one vector."""

import keras
import numpy as np
import pytest
from helpers import run_python

import keras_resblocks as kr
from keras_resblocks.training import DiscriminativeOptimizer, PackedOptimizer
from keras_resblocks.tuner.recipes import OPTIMIZERS, optimizer_of

X = np.random.default_rng(0).random((48, 8, 8, 1), dtype="float32")
Y = np.arange(48) % 3


def trained(optimizer, steps_per_execution=1, **options):
    keras.utils.set_random_seed(0)
    spec = kr.ResNetSpec("residual", depths=(1, 1), width=4)
    model = kr.create_model(
        spec, input_shape=(8, 8, 1), classes=3, zero_init_residual=False, **options
    )
    model.compile(
        optimizer, "sparse_categorical_crossentropy", steps_per_execution=steps_per_execution
    )
    model.fit(X, Y, epochs=2, batch_size=16, shuffle=False, verbose=0)
    return model


def optimizer(name, learning_rate=1e-2):
    config = {"learning_rate": learning_rate, **OPTIMIZERS[name]}
    return keras.optimizers.get({"class_name": name, "config": config})


def assert_equal_weights(model, expected):
    for value, expectation in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(value, expectation, rtol=1e-4, atol=1e-5)


def variables_after(optimizer, steps=4):
    """Variables of several shapes after some steps with random gradients."""
    rng = np.random.default_rng(0)
    variables = [keras.Variable(rng.normal(size=shape)) for shape in ((3, 2, 4), (5,), (), (2, 1))]
    for _ in range(steps):
        gradients = [rng.normal(size=variable.shape) for variable in variables]
        optimizer.apply([keras.ops.cast(one, "float32") for one in gradients], variables)
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_as_the_optimizer_inside(name):
    packed = PackedOptimizer(optimizer(name))
    for value, expected in zip(variables_after(packed), variables_after(optimizer(name))):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    assert int(packed.iterations) == 4


ON_TORCH = keras.backend.backend() == "torch"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adam", {}),
        ("sgd", {"kernel_constraint": "non_neg"}),
        ("sgd", {"kernel_regularizer": "l2", "normalization": None}),
        ("sgd", {"dtype": "mixed_bfloat16"}),
        pytest.param(
            *("adam", {"steps_per_execution": 3}),
            marks=pytest.mark.skipif(ON_TORCH, reason="one step at once on PyTorch"),
        ),
    ],
    ids=str,
)
def test_updates_alike_in_fit(name, options):
    packed = trained(PackedOptimizer(optimizer(name)), **options)
    assert_equal_weights(packed, trained(optimizer(name), **options))
    assert int(packed.optimizer.iterations) == 6


def test_goes_on_after_it_was_saved(tmp_path):
    model = trained(PackedOptimizer(keras.optimizers.Adam(1e-2)))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, PackedOptimizer)
    assert float(loaded.optimizer.learning_rate) == pytest.approx(1e-2)
    for going_on in (model, loaded):
        going_on.fit(X, Y, batch_size=16, shuffle=False, verbose=0)
    assert_equal_weights(loaded, model)
    assert int(loaded.optimizer.iterations) == 9


def test_learning_rate_is_that_of_the_optimizer_inside():
    packed = PackedOptimizer("sgd")
    packed.learning_rate = 0.5
    assert float(packed.inner_optimizer.learning_rate) == 0.5
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.1 * rate)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(packed, "mse")
    model.fit(np.ones((2, 1)), np.ones((2, 1)), epochs=2, callbacks=[schedule], verbose=0)
    assert float(packed.learning_rate) == pytest.approx(0.005)


def test_frozen_layers_stay_and_a_variable_without_gradient_does_too():
    layer = keras.layers.Dense(1)
    layer.build((None, 2))
    packed = PackedOptimizer(keras.optimizers.Adam(0.1))
    before = [np.array(keras.ops.convert_to_numpy(weight)) for weight in layer.weights]
    packed.apply([keras.ops.ones((2, 1)), None], layer.trainable_variables)
    kernel, bias = map(keras.ops.convert_to_numpy, layer.weights)
    np.testing.assert_allclose(kernel, before[0] - 0.1, atol=1e-5)
    np.testing.assert_array_equal(bias, before[1])


def test_a_single_variable_is_updated():
    variable = keras.Variable([1.0, 2.0])
    PackedOptimizer(keras.optimizers.SGD(0.5)).apply([keras.ops.ones((2,))], [variable])
    assert keras.ops.convert_to_numpy(variable).tolist() == [0.5, 1.5]


def test_scales_the_loss_in_half_precision():
    scaled = optimizer_of("adam", 1e-2, "mixed_float16")
    assert isinstance(scaled, keras.optimizers.LossScaleOptimizer)
    plain = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-2))
    model, expected = (trained(o, dtype="mixed_float16") for o in (scaled, plain))
    # Steps are left out until the scale is small enough.
    assert 0 < int(model.optimizer.iterations) == int(expected.optimizer.iterations)
    assert_equal_weights(model, expected)


def test_variables_of_several_dtypes_are_an_error():
    variables = [keras.Variable([1.0], dtype=dtype) for dtype in ("float32", "bfloat16")]
    with pytest.raises(ValueError, match=r"`variables`.*Received.*bfloat16, float32"):
        PackedOptimizer("sgd").build(variables)


@pytest.mark.parametrize("count", [1, 3])
def test_more_or_fewer_gradients_than_variables_are_an_error_and_change_nothing(count):
    variables = [keras.Variable([1.0]), keras.Variable([2.0])]
    packed = PackedOptimizer("sgd")
    packed.build(variables)
    with pytest.raises(ValueError, match=rf"`grads` .* the 2 variables .*Received: {count}"):
        packed.apply([keras.ops.ones((1,))] * count, variables[:count])
    assert [float(variable[0]) for variable in variables] == [1.0, 2.0]


TWO_DEVICES = """
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    import keras
    import numpy as np
    from keras_resblocks.training import PackedOptimizer

    x = np.random.default_rng(0).random((16, 3), dtype="float32")
    for pack in (PackedOptimizer, lambda optimizer: optimizer):
        keras.utils.set_random_seed(0)
        with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
            model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
            model.compile(pack(keras.optimizers.Adam(0.1)), "mse")
        losses = model.fit(x, x[:, :2], epochs=3, batch_size=8, shuffle=False, verbose=0).history
        print(" ".join(f"{loss:.5f}" for loss in losses["loss"]))
"""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow alone")
def test_trains_alike_on_several_devices():
    packed, expected = run_python(TWO_DEVICES).strip().splitlines()
    assert packed == expected


@pytest.mark.parametrize(
    "options", [{"clipnorm": 1.0}, {"use_ema": True}, {"loss_scale_factor": 8}]
)
def test_options_that_would_be_lost_are_an_error(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"`{name}`.*Received"):
        PackedOptimizer(keras.optimizers.SGD(**options))


def steps_of(optimizer):
    """What one step subtracts from the variables of three layers, by their names."""
    layers = [keras.layers.Dense(2, name=name) for name in ("below", "head", "above")]
    rng = np.random.default_rng(0)
    for layer in layers:
        layer.build((None, 3))
        layer.kernel.assign(rng.normal(size=(3, 2)))
    variables = [variable for layer in layers for variable in layer.trainable_variables]
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    gradients = [rng.normal(size=variable.shape).astype("float32") for variable in variables]
    optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in gradients], variables)
    after = [keras.ops.convert_to_numpy(variable) for variable in variables]
    names = [f"{layer.name}/{kind}" for layer in layers for kind in ("kernel", "bias")]
    return {name: b - a for name, b, a in zip(names, before, after)}


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_all_but_the_head_move_by_a_share(name, share):
    whole = steps_of(PackedOptimizer(optimizer(name)))
    steps = steps_of(DiscriminativeOptimizer(optimizer(name), share))
    for variable, step in steps.items():
        factor = 1 if variable.startswith("head/") else share
        np.testing.assert_allclose(step, factor * whole[variable], rtol=1e-3, atol=1e-6)


def test_the_share_is_saved():
    given = DiscriminativeOptimizer("sgd", 0.3, head="top", name="mine")
    config = keras.optimizers.serialize(given)
    assert keras.optimizers.deserialize(config).get_config() == given.get_config()
    assert given.get_config()["share"] == 0.3
    with pytest.raises(ValueError, match=r"`share`.*non-negative.*Received: share=-1"):
        DiscriminativeOptimizer("sgd", -1)
