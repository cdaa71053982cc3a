"""What a network consists of, as data."""

import functools
import inspect

from keras_resblocks.layers import steps
from keras_resblocks.layers.residual import plan_block
from keras_resblocks.models.options import merge_options, read_options
from keras_resblocks.models.published import get_spec
from keras_resblocks.models.specs import BLOCKS, BlockCall

_PLAN_ARGUMENTS = tuple(inspect.signature(plan_block).parameters)[2:]

# What the units of a block follow beside its plan.
_UNIT_OPTIONS = (
    *("activation", "normalization", "attention"),
    *("padding", "use_bias", "folded", "data_format"),
)


def options_of(call, options):
    """The options in force in a block of a network: the network's, then the block's own."""
    return {"strides": 1, **options, **read_options(call.arguments())}


def branch_of(call, options):
    """The branch of a block of a network, as data."""
    return BLOCKS[call.kind].branch_steps(**_select(options, _branch_arguments(call.kind)))


def plan_of(branch, channels, options):
    """The `Plan` of a block with this branch and these options."""
    return plan_block(branch, channels, **_select(options, _PLAN_ARGUMENTS))


def aux_steps(head, shape, options):
    """Pairs of a name and a step of an `AuxHead`, given the shape of its input."""
    channels_first = options["data_format"] == "channels_first"
    spatial = tuple(shape[2:] if channels_first else shape[1:-1])
    if None in spatial:
        raise ValueError(
            "`input_shape` must have no open sizes with `aux_heads=True`. "
            f"Received: {spatial} at `{head.after}`"
        )
    return head.steps(steps.step_output(head.pool, spatial, options["padding"]))


def identity(spec, *, channels, **block_options):
    """What a network computes, as data: equal for two specs that build the same network.

    So `shortcut="projection"` and `"identity"` are equal where no shape changes.
    """
    spec = get_spec(spec)
    options = merge_options(spec, block_options)
    parts = []
    for _, part in spec.parts(options):
        branch = (part,)
        if isinstance(part, BlockCall):
            block_options = options_of(part, options)
            branch = branch_of(part, block_options)
            rates = (block_options["drop_path_rate"], block_options.get("residual_scale"))
            part = (plan_of(branch, channels, block_options), rates)
        parts.append(part)
        channels = steps.output_channels(branch, channels)
    return (_select(options, _UNIT_OPTIONS), parts)


@functools.cache
def _branch_arguments(kind):
    return tuple(inspect.signature(BLOCKS[kind].branch_steps).parameters)


def _select(options, names):
    return {name: options[name] for name in names if name in options}
