"""What `import keras_resblocks` brings along: nothing that was not chosen."""

import keras
import pytest
from helpers import BACKENDS, is_installed, run_python

OPTIONAL = ("keras_tuner", "matplotlib", "sklearn", "scipy", "PIL", "pandas", "tensorboard")

IMPORTS = """
    import sys

    import keras

    before = set(sys.modules)
    import keras_resblocks

    print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
"""


@pytest.mark.parametrize("backend", [name for name in BACKENDS if is_installed(name)])
def test_import_adds_only_the_package_itself(backend):
    assert run_python(IMPORTS, backend=backend).split() == ["keras_resblocks"]


def test_building_a_model_imports_no_other_backend():
    others = run_python(
        """
        import sys

        import keras
        import keras_resblocks as kr

        before = set(sys.modules)
        spec = kr.ResNetSpec("residual", (2, 1), 4, input_shape=(8, 8, 3), classes=2)
        options = {"activation": "elu", "attention": "squeeze_excite", "kernel_regularizer": "l2"}
        model = kr.create_model(spec, **options)
        model(keras.ops.zeros((1, 8, 8, 3)), training=True)
        print(*{"tensorflow", "jax", "torch"} & (set(sys.modules) - before))
        """
    )
    assert not others.split()  # Keras's own `serialize` would import TensorFlow


def test_a_missing_optional_package_is_not_missed():
    blocked = OPTIONAL + tuple(b for b in BACKENDS if b != keras.backend.backend())
    run = run_python(
        """
        import sys

        import keras

        for name in sys.argv[1:]:  # from here on as if it were not installed
            for module in [m for m in sys.modules if m.split(".")[0] == name]:
                del sys.modules[module]
            sys.modules[name] = None

        import keras_resblocks as kr

        spec = kr.ResNetSpec("residual", (1,), 4, input_shape=(8, 8, 3), classes=2)
        print(kr.create_model(spec).output_shape, kr.cost("resnet50").trainable_params)
        """,
        *blocked,
    )
    assert run.strip() == "(None, 2) 25557032"
