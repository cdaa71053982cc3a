"""Networks in plain Keras, written as people write them in courses and blog posts."""

import keras
from keras import layers


def course_resnet50(width=8, size=64, classes=6):
    """The deep-learning course's ResNet-50: named layers, 1x1 convolutions without padding."""

    def conv_bn(x, filters, size, s, padding, name):
        strides = (s, s)
        x = layers.Conv2D(filters, (size, size), strides, padding, name=f"res{name}")(x)
        return layers.BatchNormalization(axis=3, name=f"bn{name}")(x)

    def block(x, f, name, s=None):
        """An identity block; with strides, a convolutional block."""
        x_shortcut = x
        x = layers.Activation("relu")(conv_bn(x, f, 1, s or 1, "valid", f"{name}_branch2a"))
        x = layers.Activation("relu")(conv_bn(x, f, 3, 1, "same", f"{name}_branch2b"))
        x = conv_bn(x, 4 * f, 1, 1, "valid", f"{name}_branch2c")
        if s:
            x_shortcut = conv_bn(x_shortcut, 4 * f, 1, s, "valid", f"{name}_branch1")
        return layers.Activation("relu")(layers.Add()([x, x_shortcut]))

    x_input = keras.Input((size, size, 3))
    x = layers.ZeroPadding2D((3, 3))(x_input)
    x = layers.Conv2D(width, (7, 7), strides=(2, 2), name="conv1")(x)
    x = layers.BatchNormalization(axis=3, name="bn_conv1")(x)
    x = layers.Activation("relu")(x)
    x = layers.MaxPooling2D((3, 3), strides=(2, 2))(x)
    for stage in (2, 3, 4, 5):
        f = width * 2 ** (stage - 2)
        x = block(x, f, f"{stage}a", s=1 if stage == 2 else 2)
        x = block(x, f, f"{stage}b")
    x = layers.AveragePooling2D((2, 2), name="avg_pool")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(classes, activation="softmax", name=f"fc{classes}")(x)
    return keras.Model(x_input, x, name="ResNet50")


def basic_resnet(width=8, size=32, classes=10):
    """ResNet-18 with a bare 1x1 convolution on the shortcuts, no names, `+`."""

    def basic_block(inputs, filters, stride=1):
        x = layers.Conv2D(filters, 3, strides=stride, padding="same")(inputs)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
        x = layers.Conv2D(filters, 3, padding="same")(x)
        x = layers.BatchNormalization()(x)
        if stride != 1 or inputs.shape[-1] != filters:
            shortcut = layers.Conv2D(filters, 1, strides=stride)(inputs)
        else:
            shortcut = inputs
        return layers.ReLU()(x + shortcut)

    inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(width, 7, strides=2, padding="same")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    for stage in range(4):
        for i in range(2):
            x = basic_block(x, width * 2**stage, 2 if stage > 0 and i == 0 else 1)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes)(x))


def elu_resnet50(width=8, size=32, classes=10):
    """A ResNet-50 with ELU, and weight decay on every kernel."""

    def conv_bn(x, filters, size, strides=1):
        options = {"padding": "same", "use_bias": False, "kernel_regularizer": "l2"}
        x = layers.Conv2D(filters, size, strides=strides, **options)(x)
        return layers.BatchNormalization(momentum=0.9)(x)

    inputs = keras.Input((size, size, 3))
    x = layers.ELU()(conv_bn(inputs, width, 3))
    for stage, count in enumerate((3, 4, 6, 3)):
        for i in range(count):
            filters, strides = width * 2**stage, 2 if stage and not i else 1
            y = layers.ELU()(conv_bn(x, filters, 1))
            y = layers.ELU()(conv_bn(y, filters, 3, strides))
            y = conv_bn(y, 4 * filters, 1)
            x = x if i else conv_bn(x, 4 * filters, 1, strides)
            x = layers.ELU()(layers.add([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes, kernel_regularizer="l2")(x))


def googlenet(width=8, size=48, classes=10):
    """An inception network without normalization, as in the blog posts about GoogLeNet."""

    def conv(x, filters, size):
        options = dict(padding="same", activation="relu", bias_initializer="ones")
        return layers.Conv2D(filters, (size, size), **options)(x)

    def inception_module(x, f1, f3_in, f3, f5_in, f5, pool, name=None):
        conv_3x3 = conv(conv(x, f3_in, 1), f3, 3)
        conv_5x5 = conv(conv(x, f5_in, 1), f5, 5)
        pool_proj = layers.MaxPool2D((3, 3), strides=(1, 1), padding="same")(x)
        outputs = [conv(x, f1, 1), conv_3x3, conv_5x5, conv(pool_proj, pool, 1)]
        return layers.concatenate(outputs, axis=3, name=name)

    def auxiliary(x, name):
        x = layers.AveragePooling2D((3, 3), strides=3, padding="same")(x)
        x = layers.Conv2D(width, (1, 1), padding="same", activation="relu")(x)
        x = layers.Dropout(0.7)(layers.Flatten()(x))
        return layers.Dense(classes, activation="softmax", name=name)(x)

    w = width
    inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(w, (7, 7), padding="same", strides=(2, 2), activation="relu")(inputs)
    x = layers.MaxPool2D((3, 3), padding="same", strides=(2, 2))(x)
    x = layers.Conv2D(3 * w, (3, 3), padding="same", activation="relu")(x)
    x = inception_module(x, w, 2 * w, 3 * w, w, w, w, name="inception_3a")
    x = inception_module(x, 2 * w, 2 * w, 3 * w, w, 2 * w, w, name="inception_3b")
    x = layers.MaxPool2D((3, 3), padding="same", strides=(2, 2))(x)
    x = inception_module(x, 3 * w, w, 3 * w, w, w, w, name="inception_4a")
    x1 = auxiliary(x, "auxiliary_output")
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = layers.Dropout(0.4)(x)
    return keras.Model(inputs, [layers.Dense(classes, activation="softmax")(x), x1])


def time_series_resnet(width=8, kernel_sizes=(8, 5, 3), classes=3):
    """Fawaz et al. 2019: a projection always, and on the last block a normalization alone."""

    def block(inputs, filters):
        x = inputs
        for i, kernel_size in enumerate(kernel_sizes):
            x = layers.Conv1D(filters=filters, kernel_size=kernel_size, padding="same")(x)
            x = layers.BatchNormalization()(x)
            if i + 1 < len(kernel_sizes):
                x = layers.Activation("relu")(x)
        shortcut = inputs
        if inputs.shape[-1] != filters:
            shortcut = layers.Conv1D(filters=filters, kernel_size=1, padding="same")(inputs)
        shortcut = layers.BatchNormalization()(shortcut)
        return layers.Activation("relu")(layers.add([shortcut, x]))

    inputs = keras.Input((None, 2))
    x = block(inputs, width)
    x = block(x, 2 * width)
    x = block(x, 2 * width)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(classes, activation="softmax")(x))


def resnet_3d(width=4, size=16, classes=3):
    """Pre-activation blocks for volumes, with `keras.activations` as functions."""

    def block(x, filters, strides=1):
        y = keras.activations.silu(layers.GroupNormalization(2)(x))
        shortcut = x
        if strides != 1 or x.shape[-1] != filters:
            shortcut = layers.Conv3D(filters, 1, strides=strides, use_bias=False)(y)
        y = layers.Conv3D(filters, 3, strides=strides, padding="same", use_bias=False)(y)
        y = keras.activations.silu(layers.GroupNormalization(2)(y))
        y = layers.Conv3D(filters, 3, padding="same", use_bias=False)(y)
        return keras.ops.add(y, shortcut)

    inputs = keras.Input((size, size, size, 1))
    x = layers.Conv3D(width, 3, padding="same")(inputs)
    for stage in range(2):
        x = block(x, width * 2**stage, 1 + stage)
        x = block(x, width * 2**stage)
    x = layers.GlobalAveragePooling3D()(x)
    return keras.Model(inputs, layers.Dense(classes)(x))


def cifar_resnet(size=None, classes=10):
    """Option A: 1x1 pooling and zeros for the new channels on the shortcuts."""

    def block(x, filters, strides):
        y = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
        y = layers.Activation("relu")(layers.BatchNormalization()(y))
        y = layers.Conv2D(filters, 3, padding="same", use_bias=False)(y)
        y = layers.BatchNormalization()(y)
        if strides == 2:
            x = layers.AveragePooling2D(1, strides=2)(x)
            x = keras.ops.pad(x, [[0, 0], [0, 0], [0, 0], [0, filters - x.shape[-1]]])
        return layers.Activation("relu")(layers.Add()([y, x]))

    inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(inputs)
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    for stage in range(3):
        x = block(x, 4 * 2**stage, 2 if stage else 1)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes)(x))


def resnet_d(size=33, width=4):
    """Grouped convolutions, pooled shortcuts and explicit padding, as ports from PyTorch have."""

    def conv_bn(x, filters, kernel_size, strides=1, groups=1):
        if kernel_size > 1:
            x = layers.ZeroPadding2D(kernel_size // 2)(x)
        x = layers.Conv2D(filters, kernel_size, strides, groups=groups, use_bias=False)(x)
        return layers.BatchNormalization(epsilon=1e-5, momentum=0.9)(x)

    def block(x, filters, strides=1):
        shortcut = x
        if strides > 1:
            shortcut = layers.AveragePooling2D(2, padding="same")(shortcut)
        if x.shape[-1] != 2 * filters:
            shortcut = conv_bn(shortcut, 2 * filters, 1)
        x = layers.LeakyReLU()(conv_bn(x, filters, 1))
        x = layers.LeakyReLU()(conv_bn(x, filters, 3, strides, groups=2))
        return layers.LeakyReLU()(conv_bn(x, 2 * filters, 1) + shortcut)

    inputs = keras.Input((size, size, 3))
    x = layers.LeakyReLU()(conv_bn(inputs, width, 3, 2))
    for filters, strides in ((width, 1), (width, 1), (2 * width, 2), (2 * width, 1)):
        x = block(x, filters, strides)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


def inception_resnet(size=24, width=4):
    """Inception-ResNet blocks with a normalization after the expansion, scaled in three ways."""

    def conv_bn(x, filters, kernel_size, activation="relu"):
        x = layers.Conv2D(filters, kernel_size, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(scale=False)(x)
        return layers.Activation(activation)(x) if activation else x

    def by_lambda(x, up):
        scaled_sum = lambda inputs, scale: inputs[0] + inputs[1] * scale  # noqa: E731
        return layers.Lambda(scaled_sum, arguments={"scale": 0.17})([x, up])

    def by_operators(x, up):
        return 0.1 * up + x

    def by_layers(x, up):
        return layers.add([layers.Rescaling(0.2)(up), x])

    inputs = keras.Input((size, size, 3))
    x = conv_bn(inputs, 2 * width, 3)
    for scaled_sum in (by_lambda, by_operators, by_layers):
        branches = [conv_bn(x, width, 1), conv_bn(conv_bn(x, width, 1), width, [1, 3])]
        up = conv_bn(layers.Concatenate()(branches), 2 * width, 1, activation=None)
        x = layers.Activation("relu")(scaled_sum(x, up))
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
