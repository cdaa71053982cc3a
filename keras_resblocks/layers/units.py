"""The unit that everything is made of: convolution, normalization, activation."""

import functools

import keras

from keras_resblocks import validation
from keras_resblocks.layers import kernels, steps, templates
from keras_resblocks.layers.composite import Composite, KernelComposite, fresh
from keras_resblocks.layers.initializers import NumpyHeNormal
from keras_resblocks.layers.wiring import Chain, Concatenation


class ConvComposite(KernelComposite):
    """A `Composite` with the options of its convolutions, and units made with them.

    Args:
        activation: None, a name, a function, a config dict or a Keras layer.
        normalization: the same; `"batch"`, `"layer"`, `"group"` and `"instance"` are the names.
        padding: `"symmetric"` pads both sides alike, as the papers and PyTorch do, or `"same"`
            as Keras and TensorFlow do. They differ only where strides are more than 1.
        use_bias: whether the convolutions have a bias. None: where no normalization follows.
        kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
            kernel_constraint, bias_constraint: of every convolution. Kernels begin with values
            of `NumpyHeNormal`.
        folded: whether each convolution stands for itself and the batch normalization after it,
            which it then has a bias instead of; what `fold_batch_norm` makes.
        fused: whether convolutions, batch normalizations, poolings and ReLUs are computed by the
            backend's own fused operations, to the same results but for rounding: faster on
            PyTorch, and on TensorFlow, where it is the normalizations; JAX fuses by itself.
            False: by a call of each Keras layer.
        data_format: `"channels_last"` or `"channels_first"`; Keras's setting by default.
    """

    paddings = ("symmetric", "same")

    def __init__(
        self,
        *,
        activation="relu",
        normalization="batch",
        padding="symmetric",
        use_bias=None,
        kernel_initializer=NumpyHeNormal,
        bias_initializer="zeros",
        bias_regularizer=None,
        bias_constraint=None,
        folded=False,
        fused=True,
        **options,
    ):
        super().__init__(kernel_initializer=kernel_initializer, **options)
        self.activation = templates.activation.get(activation)
        self.normalization = templates.normalization.get(normalization)
        self.padding = validation.one_of("padding", padding, self.paddings)
        self.use_bias = use_bias if use_bias is None else validation.boolean("use_bias", use_bias)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.folded = validation.boolean("folded", folded)
        self.fused = validation.boolean("fused", fused)

    def unit_options(self):
        """The options for a unit, or for a layer that this one is made of."""
        return {
            "activation": self.activation,
            "normalization": self.normalization,
            "padding": self.padding,
            "use_bias": self.use_bias,
            **self.kernel_options(),
            "bias_initializer": fresh(self.bias_initializer),
            "bias_regularizer": self.bias_regularizer,
            "bias_constraint": self.bias_constraint,
            "folded": self.folded,
            "fused": self.fused,
            "data_format": self.data_format,
            "dtype": self.dtype_policy.name,
        }

    def add_steps(self, branch, site, prefix="", last=None):
        """Makes and tracks the layers of a branch given as steps; returns what computes it.

        They are called `conv1`, `pool1`, ... behind `prefix`; the last one `last`, if given.
        """
        names = list(steps.names(branch, prefix))
        if last and names:
            names[-1] = last
        parts = [self._add_step(step, site, name) for step, name in zip(branch, names)]
        return Chain(parts, fused=self.fused)

    def _add_step(self, step, site, name):
        if isinstance(step, steps.Split):
            return self._add_split(step, site, name)
        if isinstance(step, templates.Template):
            return self.add_copy(step, name, site)
        return self.add(make_layer(step, name, self.unit_options()))

    def _add_split(self, split, site, name):
        return Concatenation(
            [
                self.add_steps(branch, site, f"{name}branch{i}_")
                for i, branch in enumerate(split.branches, start=1)
            ],
            axis=self.channel_axis,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "activation": templates.serialize(self.activation),
            "normalization": templates.serialize(self.normalization),
            "padding": self.padding,
            "use_bias": self.use_bias,
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
            "folded": self.folded,
            "fused": self.fused,
        }


def normalization_and_bias(normalization, use_bias, folded, site):
    """What normalizes the output of a convolution, and whether that has a bias.

    Args:
        normalization, use_bias, folded: as of `ConvComposite`.
        site: of the normalization.
    """
    if folded and normalization is not None and normalization.is_batch_normalization(site):
        return None, True
    return normalization, normalization is None if use_bias is None else use_bias


def make_layer(step, name, options):
    """The layer called `name` that computes a step other than a `Split`.

    Args:
        options: dict as of `ConvComposite.unit_options`.
    """
    placed = {key: options[key] for key in ("data_format", "dtype") if key in options}
    if isinstance(step, steps.Pool):
        padding = options["padding"] if step.padding == steps.INHERIT else step.padding
        return Pooling(
            step.kind,
            step.pool_size,
            step.strides,
            padding=padding,
            pad_value=step.pad_value,
            fused=options["fused"],
            name=name,
            **placed,
        )
    if isinstance(step, steps.AdaptivePool):
        return AdaptiveAveragePooling(step.output_size, name=name, **placed)
    if isinstance(step, steps.Subsample):
        return Subsampling(step.filters, step.strides, name=name, **placed)
    return ConvUnit(
        step.filters,
        step.kernel_size,
        step.strides,
        groups=step.groups,
        dilation_rate=step.dilation_rate,
        zero_init=step.zero_init,
        name=name,
        **{**options, **step.overrides()},
    )


@keras.saving.register_keras_serializable(package="keras_resblocks")
class ConvUnit(ConvComposite):
    """A convolution of the input's rank, then normalization, then activation.

    `output = activation(normalization(convolution(input)))`

    Args:
        filters: number of output channels.
        kernel_size, strides, dilation_rate: an integer, or one for each spatial axis.
        groups: number of groups of channels convolved separately.
        zero_init: start with an output of zero: by a zero gamma where a normalization with one
            follows, else by a zero kernel and bias.
        padding: also `"valid"`, no padding.
        **options: as in `ResidualBlock`.

    Input shape: `(batch, *spatial, channels)`, or channels first.
    Output shape: `(batch, *ceil(spatial / strides), filters)` unless `padding="valid"`.
    """

    paddings = ("symmetric", "same", "valid")

    def __init__(
        self,
        filters,
        kernel_size=1,
        strides=1,
        *,
        groups=1,
        dilation_rate=1,
        zero_init=False,
        **options,
    ):
        super().__init__(**options)
        self.filters = validation.positive_int("filters", filters)
        self.kernel_size = validation.positive_ints("kernel_size", kernel_size)
        self.strides = validation.positive_ints("strides", strides)
        self.groups = validation.divisor("groups", groups, "filters", self.filters)
        self.dilation_rate = validation.positive_ints("dilation_rate", dilation_rate)
        validation.strides_or_dilation(self.strides, self.dilation_rate)
        self.zero_init = validation.boolean("zero_init", zero_init)

    def compose(self, input_shape):
        validation.divisor("groups", self.groups, "input channels", self.channels(input_shape))
        self.compute_output_shape(input_shape)  # raises where the window does not fit
        rank = len(input_shape) - 2
        site = self.site(self.full_shape(None, (None,) * rank, self.filters))
        normalization, use_bias = normalization_and_bias(
            self.normalization, self.use_bias, self.folded, site
        )
        zero_gamma = (
            self.zero_init and normalization is not None and normalization.can_start_at_zero(site)
        )
        self.chain = Chain(
            [
                self._add_padding(rank),
                self._add_convolution(rank, use_bias, self.zero_init and not zero_gamma),
                self.add_copy(
                    normalization,
                    "norm",
                    site,
                    **({"gamma_initializer": "zeros"} if zero_gamma else {}),
                ),
                self.add_copy(self.activation, "act", site),
            ],
            fused=self.fused,
        )
        self.chain.build(input_shape)

    def _add_padding(self, rank):
        if self.padding != "symmetric" or not self._pads_differently():
            return None
        sizes = validation.per_axis("kernel_size", self.kernel_size, rank)
        rates = validation.per_axis("dilation_rate", self.dilation_rate, rank)
        amounts = tuple(
            tuple(rate * amount for amount in symmetric_padding(size))
            for size, rate in zip(sizes, rates)
        )
        return self.add(
            rank_layer("ZeroPadding", rank)(
                amounts[0] if rank == 1 else amounts,
                data_format=self.data_format,
                dtype=self.dtype_policy.name,
                name="pad",
            )
        )

    def _pads_differently(self):
        # At stride 1 symmetric padding is what "same" does, and needs no layer of its own, but
        # for a dilated window of even size, which "same" would centre.
        sizes = self.kernel_size if isinstance(self.kernel_size, tuple) else (self.kernel_size,)
        if validation.exceeds_one(self.dilation_rate):
            return any(size % 2 == 0 for size in sizes)
        return validation.exceeds_one(self.strides) and validation.exceeds_one(self.kernel_size)

    def _add_convolution(self, rank, use_bias, zero_kernel):
        options = self.unit_options()
        for name in ("activation", "normalization", "padding", "use_bias", "folded", "fused"):
            del options[name]
        if zero_kernel:
            options.update(kernel_initializer="zeros", bias_initializer="zeros")
        same = self.padding == "same" or (
            self.padding == "symmetric" and not self._pads_differently()
        )
        return self.add(
            _convolution_class(rank, self.data_format)(
                self.filters,
                validation.per_axis("kernel_size", self.kernel_size, rank),
                strides=validation.per_axis("strides", self.strides, rank),
                padding="same" if same and validation.exceeds_one(self.kernel_size) else "valid",
                dilation_rate=validation.per_axis("dilation_rate", self.dilation_rate, rank),
                groups=self.groups,
                use_bias=use_bias,
                name="conv",
                **options,
            )
        )

    def call(self, inputs, training=None):
        return self.chain(inputs, training)

    def inlined(self):
        """The chain to be computed in place of a call of this layer; None if there is more to it.

        Of a small layer, the call itself takes as long as what it computes.
        """
        is_a_chain = type(self) is ConvUnit and self.activity_regularizer is None
        return self.chain if is_a_chain else None

    def compute_output_shape(self, input_shape):
        spatial = window_output(
            self.spatial_shape(input_shape),
            self.kernel_size,
            self.strides,
            self.padding,
            self.dilation_rate,
        )
        return self.full_shape(input_shape[0], spatial, self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "groups": self.groups,
            "dilation_rate": self.dilation_rate,
            "zero_init": self.zero_init,
        }


class _BiasFirst:
    """A convolution that is right for channels-first maps as wide as there are filters.

    There Keras 3.15 on TensorFlow would take the bias that comes second for one of the last
    axis.
    """

    def call(self, inputs):
        outputs = self.convolution_op(inputs, self.kernel)
        if self.bias is None:
            return outputs
        return keras.ops.reshape(self.bias, (1, -1) + (1,) * self.rank) + outputs


@functools.cache
def _convolution_class(rank, data_format):
    stock = rank_layer("Conv", rank)
    if data_format == "channels_last" or keras.backend.backend() != "tensorflow":
        return stock
    return type(stock.__name__, (_BiasFirst, stock), {})


@keras.saving.register_keras_serializable(package="keras_resblocks")
class Pooling(Composite):
    """Max or average pooling of the input's rank.

    Padding is left out of account: a maximum is right after an activation with negative values,
    and an average counts only the positions inside the input (with `padding="same"`, PyTorch
    and strides, Keras repeats the border instead).

    Args:
        kind: `"max"` or `"avg"`.
        pool_size, strides: an integer, or one for each spatial axis.
        padding: `"symmetric"`, `"same"` or `"valid"`, as in `ConvUnit`; or `"ceil"`, as
            `"valid"` but for a last window that reaches past the end, so that every position is
            in one (PyTorch's `ceil_mode`).
        pad_value: a number to take the padding into account with, as keras.applications'
            ResNetV2 pads a maximum with zeros; only for `padding="symmetric"`.
        fused: whether to pool by the backend's own operation, as in `ResidualBlock`.
        data_format: `"channels_last"` or `"channels_first"`; Keras's setting by default.

    Input shape: `(batch, *spatial, channels)`, or channels first.
    Output shape: `(batch, *ceil(spatial / strides), channels)` unless `padding` is `"valid"`
    or `"ceil"`.
    """

    paddings = ("symmetric", "same", "valid", "ceil")

    def __init__(
        self,
        kind,
        pool_size=3,
        strides=1,
        *,
        padding="symmetric",
        pad_value=None,
        fused=True,
        **options,
    ):
        super().__init__(**options)
        self.kind = validation.one_of("kind", kind, ("max", "avg"))
        self.pool_size = validation.positive_ints("pool_size", pool_size)
        self.strides = validation.positive_ints("strides", strides)
        self.padding = validation.one_of("padding", padding, self.paddings)
        if pad_value is not None and self.padding != "symmetric":
            raise ValueError(
                '`pad_value` needs `padding="symmetric"`. '
                f"Received: pad_value={pad_value!r}, padding={padding!r}"
            )
        self.pad_value = pad_value
        self.fused = validation.boolean("fused", fused)

    def compose(self, input_shape):
        rank = len(input_shape) - 2
        pool_size = validation.per_axis("pool_size", self.pool_size, rank)
        strides = validation.per_axis("strides", self.strides, rank)
        self.compute_output_shape(input_shape)  # raises where the window does not fit
        self.pool = self._fused_pool(pool_size, strides) or self._pool(pool_size, strides)

    def _fused_pool(self, pool_size, strides):
        backend = kernels.of_backend(self.fused)
        amounts = {
            "symmetric": tuple(map(symmetric_padding, pool_size)),
            "valid": ((0, 0),) * len(pool_size),
        }.get(self.padding)
        if backend is None or amounts is None or self.pad_value is not None:
            return None
        return backend.pooling(self.kind, pool_size, strides, amounts, self.data_format)

    def _pool(self, pool_size, strides):
        pool = functools.partial(
            keras.ops.max_pool if self.kind == "max" else keras.ops.average_pool,
            pool_size=pool_size,
            strides=strides,
            padding="same" if self.padding == "same" else "valid",
            data_format=self.data_format,
        )
        amounts = {
            "symmetric": tuple(map(symmetric_padding, pool_size)),
            "ceil": tuple((0, step - 1) for step in strides),
        }.get(self.padding, ())
        if any(map(any, amounts)):
            neutral = -float("inf") if self.kind == "max" else 0.0
            widths = self.full_shape((0, 0), amounts, (0, 0))
            pool = _after_padding(
                pool, widths, neutral if self.pad_value is None else self.pad_value
            )
            if self.kind == "avg" and self.pad_value is None:
                one_map = self.full_shape(slice(1), (slice(None),) * len(pool_size), slice(1))
                pool = _average_of_inside(pool, one_map)
        return pool

    def call(self, inputs):
        return self.pool(inputs)

    def compute_output_shape(self, input_shape):
        spatial = window_output(
            self.spatial_shape(input_shape), self.pool_size, self.strides, self.padding
        )
        return self.full_shape(input_shape[0], spatial, self.channels(input_shape))

    def get_config(self):
        return {
            **super().get_config(),
            "kind": self.kind,
            "pool_size": self.pool_size,
            "strides": self.strides,
            "padding": self.padding,
            "pad_value": self.pad_value,
            "fused": self.fused,
        }


def _after_padding(pool, widths, value):
    return lambda inputs: pool(keras.ops.pad(inputs, widths, constant_values=value))


def _average_of_inside(average, one_map):
    # The average of ones is the share of a window that lies inside the input.
    return lambda inputs: average(inputs) / average(keras.ops.ones_like(inputs[one_map]))


@keras.saving.register_keras_serializable(package="keras_resblocks")
class AdaptiveAveragePooling(Composite):
    """Average pooling to a given size, by windows that may overlap, as in PyTorch.

    Window `i` of `n` covers the positions from `floor(i * size / n)` to
    `ceil((i + 1) * size / n)`.

    Args:
        output_size: an integer, or one for each spatial axis.
        data_format: `"channels_last"` or `"channels_first"`; Keras's setting by default.

    Input shape: `(batch, *spatial, channels)` with known sizes, or channels first.
    Output shape: `(batch, *output_size, channels)`.
    """

    def __init__(self, output_size, **options):
        super().__init__(**options)
        self.output_size = validation.positive_ints("output_size", output_size)

    def compose(self, input_shape):
        spatial = self.spatial_shape(input_shape)
        if None in spatial:
            raise ValueError(
                "`input_shape` must have known sizes to be pooled to a given size. "
                f"Received: input_shape={input_shape}"
            )
        first_axis = 1 if self.data_format == "channels_last" else 2
        sizes = validation.per_axis("output_size", self.output_size, len(spatial))
        self.windows = {  # of each axis, as slices of the whole array
            axis: [
                (slice(None),) * axis + (slice(i * size // n, -(-(i + 1) * size // n)),)
                for i in range(n)
            ]
            for axis, (size, n) in enumerate(zip(spatial, sizes), start=first_axis)
        }

    def call(self, inputs):
        for axis, windows in self.windows.items():
            means = [keras.ops.mean(inputs[window], axis, keepdims=True) for window in windows]
            inputs = keras.ops.concatenate(means, axis)
        return inputs

    def compute_output_shape(self, input_shape):
        rank = len(input_shape) - 2
        sizes = validation.per_axis("output_size", self.output_size, rank)
        return self.full_shape(input_shape[0], sizes, self.channels(input_shape))

    def get_config(self):
        return {**super().get_config(), "output_size": self.output_size}


class Subsampling(Composite):
    """Every `strides`-th position, the channels padded with zeros up to `filters`."""

    def __init__(self, filters, strides=1, **options):
        super().__init__(**options)
        self.filters = filters
        self.strides = strides

    def compose(self, input_shape):
        rank = len(input_shape) - 2
        self.steps = tuple(
            slice(None, None, step)
            for step in self.full_shape(1, validation.per_axis("strides", self.strides, rank), 1)
        )
        missing = self.filters - self.channels(input_shape)
        self.widths = self.full_shape((0, 0), ((0, 0),) * rank, (0, missing))

    def call(self, inputs):
        return keras.ops.pad(inputs[self.steps], self.widths)

    def compute_output_shape(self, input_shape):
        spatial = window_output(self.spatial_shape(input_shape), 1, self.strides, "valid")
        return self.full_shape(input_shape[0], spatial, self.filters)


def rank_layer(name, rank):
    """The Keras class of that name and rank: `rank_layer("Conv", 2)` is `Conv2D`."""
    return getattr(keras.layers, f"{name}{rank}D")


def symmetric_padding(size):
    """What to pad before and after so that a window at stride 1 keeps the size."""
    return (size - 1) // 2, size // 2


def branch_output(branch, spatial, padding):
    """The spatial shape after the steps of a branch.

    Raises:
        ValueError: if a window does not fit, or branches of a split lead to different sizes.
    """
    for step in branch:
        if isinstance(step, steps.Split):
            sizes = {branch_output(inner, spatial, padding) for inner in step.branches}
            if len(sizes) > 1:
                raise ValueError(
                    "The branches must lead to equal spatial sizes. "
                    f"Received: {sorted(sizes, key=str)} from {tuple(spatial)}"
                )
            (spatial,) = sizes
        else:
            spatial = step_output(step, spatial, padding)
    return spatial


def step_output(step, spatial, padding):
    """The spatial shape after a step other than a `Split`; `padding` is its owner's."""
    if isinstance(step, steps.AdaptivePool):
        return validation.per_axis("output_size", step.output_size, len(spatial))
    if isinstance(step, steps.Subsample):
        return window_output(spatial, 1, step.strides, "valid")
    padding = padding if step.padding == steps.INHERIT else step.padding
    if isinstance(step, steps.Pool):
        return window_output(spatial, step.pool_size, step.strides, padding)
    return window_output(spatial, step.kernel_size, step.strides, padding, step.dilation_rate)


def window_output(spatial, size, strides, padding, dilation_rate=1):
    """The spatial shape after a convolution or pooling; None where it is not known.

    Raises:
        ValueError: if the window does not fit into the input.
    """
    rank = len(spatial)
    sizes = validation.per_axis("kernel_size", size, rank)
    dilation_rates = validation.per_axis("dilation_rate", dilation_rate, rank)
    strides = validation.per_axis("strides", strides, rank)
    if padding == "ceil" and any(s > k for k, s in zip(sizes, strides)):
        raise ValueError(
            '`padding="ceil"` needs windows that are no smaller than the strides. '
            f"Received: pool_size={sizes}, strides={strides}"
        )
    reach = [
        {"valid": rate * (k - 1), "ceil": k - s}.get(padding, 0)
        for k, rate, s in zip(sizes, dilation_rates, strides)
    ]
    if any(n is not None and n <= r for n, r in zip(spatial, reach)):
        raise ValueError(
            f"`input_shape` must be larger: a window of {sizes} without padding does not fit. "
            f"Received: spatial shape {tuple(spatial)}"
        )
    return tuple(
        None if n is None else -(-(n - r) // s) for n, r, s in zip(spatial, reach, strides)
    )
