"""Rematerialization: what a layer computes inside is computed again rather than kept.

Between the passes of training, a rematerialized block keeps its input alone (Chen et al. 2016,
"Training Deep Nets with Sublinear Memory Cost"). `keras.remat` does this for a pure function, but a
block updates moving statistics, moves seeds on and adds losses. So its body runs in a
`keras.StatelessScope`, from values that were copied beforehand (the second time, the variables have
moved on), and what it changes comes out as values, written to the variables once.
"""

import weakref

import keras

# Keras knows losses by `id`. Those from inside are kept as long as the scope around them, so that
# no other gets the `id` of a dead one; what is added outside is a copy.
_inner_losses = weakref.WeakKeyDictionary()


def rematerialized(owner, body):
    """`body`, a function of `(inputs, training)` made of the sublayers of `owner`, rematerialized.

    At inference, `body` is called as it is.
    """
    again = _InContext(lambda inputs, training, mask: body(inputs, training), owner)
    attach = _Attach()

    def recomputed(inputs, training, mask):
        return again(attach(inputs, mask=mask), training=training)

    def call(inputs, training, mask):
        if not training:
            return body(inputs, training)
        return _call_and_update(owner, recomputed, inputs, training, mask)

    # Not a layer: Keras would track it, and with it change the paths of the weights.
    return _InContext(call, owner).__call__


def _call_and_update(owner, body, inputs, training, mask):
    trained, state = owner.trainable_variables, owner.non_trainable_variables
    before = [keras.ops.stop_gradient(keras.ops.copy(variable)) for variable in state]

    def pure(inputs, *values):
        scope = keras.StatelessScope(collect_losses=True, initialize_variables=False)
        for variable, value in zip((*trained, *state), (*values, *before)):
            scope.add_update((variable, value))  # as it is: `state_mapping` would cast it
        with scope:
            outputs = body(inputs, training, mask)
        after = [scope.get_current_value(variable) for variable in state]
        updates = {i: new for i, new in enumerate(after) if new is not before[i]}
        if scope.original_scope is not None:
            _inner_losses.setdefault(scope.original_scope, []).extend(scope.losses)
        return outputs, updates, scope.losses

    values = (variable.value for variable in trained)
    outputs, updates, losses = keras.remat(pure)(inputs, *values)
    for i, value in updates.items():
        state[i].assign(keras.ops.stop_gradient(value))
    for loss in losses:
        owner.add_loss(keras.ops.copy(loss))
    return outputs


class _InContext(keras.layers.Layer):
    """A function with the arguments that Keras hands down from layer to layer.

    The second time, on TensorFlow and PyTorch, nothing is left of the call that the first one
    was part of: neither `training` nor the compute dtype.
    """

    def __init__(self, function, owner):
        super().__init__(name=owner.name, dtype=owner.dtype_policy)
        self.function = function
        self.supports_masking = True

    def call(self, inputs, training=None, mask=None):
        return self.function(inputs, training, mask)

    def compute_mask(self, inputs, mask):
        return None  # whether the output has one is for the owner to say


class _Attach(keras.layers.Layer):
    """Gives its input the mask, which is lost where a tensor becomes an argument."""

    def __init__(self):
        super().__init__(name="attach")
        self.supports_masking = True

    def call(self, inputs, mask=None):
        return inputs
