"""A model with its weights built in, on each backend.

Each module is named like its backend and imported only there. Its `bake(model)` returns a
function of tensors, those of `model.inputs`, that returns a list of tensors, those of
`model.outputs`. The model belongs to it from then on: nobody else has its variables.
"""

import keras


def pure(model, convert):
    """`model` in inference as a function of its flat inputs, its weights made constants.

    Args:
        convert: what makes a constant of a NumPy array, called where the function is.
    """
    weights = [
        [keras.ops.convert_to_numpy(variable) for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]

    def run(*inputs):
        inputs = keras.tree.pack_sequence_as(model.input, list(inputs))
        constants = ([convert(value) for value in values] for values in weights)
        outputs, _ = model.stateless_call(*constants, inputs, training=False)
        return keras.tree.flatten(outputs)

    return run
