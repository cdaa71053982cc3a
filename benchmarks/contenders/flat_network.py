"""A residual network as one writes it in Keras without blocks, layer by layer."""


def flat_network(shape, classes, block, depths, width, stem="small", zero_pad=False):
    """The same as `create_model` makes, of stock Keras layers; its outputs are logits.

    The stem is `"small"`, a 3x3 convolution, or `"large"`, for ImageNet; with `zero_pad` the
    shortcuts are of option A, without weights.
    """
    from keras import Input, Model, layers, ops

    def unit(x, filters, size=1, strides=1, activation=True):
        if size > 1 and strides > 1:
            x = layers.ZeroPadding2D(size // 2)(x)
        padding = "valid" if strides > 1 else "same"
        x = layers.Conv2D(
            filters, size, strides, padding, use_bias=False, kernel_initializer="he_normal"
        )(x)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
        return layers.ReLU()(x) if activation else x

    def residual(x, filters, strides):
        x = unit(x, filters, 3, strides)
        return unit(x, filters, 3, activation=False)

    def bottleneck(x, filters, strides):
        x = unit(x, filters)
        x = unit(x, filters, 3, strides)
        return unit(x, 4 * filters, activation=False)

    def shortcut(x, filters, strides):
        if x.shape[-1] == filters and strides == 1:
            return x
        if zero_pad:
            missing = filters - x.shape[-1]
            return ops.pad(x[:, ::strides, ::strides], [[0, 0]] * 3 + [[0, missing]])
        return unit(x, filters, 1, strides, activation=False)

    branch = {"residual": residual, "bottleneck": bottleneck}[block]
    inputs = Input(shape)
    if stem == "large":
        x = layers.ZeroPadding2D(1)(unit(inputs, width, 7, 2))  # of what is not negative
        x = layers.MaxPooling2D(3, 2)(x)
    else:
        x = unit(inputs, width, 3)
    for stage, depth in enumerate(depths):
        for i in range(depth):
            strides = 2 if stage and not i else 1
            y = branch(x, width * 2**stage, strides)
            x = layers.ReLU()(layers.Add()([shortcut(x, y.shape[-1], strides), y]))
    x = layers.GlobalAveragePooling2D()(x)
    return Model(inputs, layers.Dense(classes)(x))
