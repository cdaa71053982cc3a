"""ResNet-18 and -50 (v1.5) as plain flax modules, structured as flax's ImageNet example."""

import functools

import numpy as np

from benchmarks.contenders import Contender

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}


def contenders():
    """Flax under `jax.jit`, in inference and in training."""
    takes = lambda work: work.network in DEPTHS  # noqa: E731
    yield Contender("flax", "jax", takes, build, step, requires=("flax",))


@functools.cache
def network_class():
    """The module's class, made where flax is imported."""
    import jax.numpy as jnp
    from flax import linen as nn

    class ResNet(nn.Module):
        network: str
        classes: int
        dtype: object

        @nn.compact
        def __call__(self, x, train):
            def conv(x, filters, size=1, strides=1):
                pad = (size // 2, size // 2)
                options = dict(padding=[pad, pad], use_bias=False, dtype=self.dtype)
                return nn.Conv(filters, (size, size), (strides, strides), **options)(x)

            def norm(x, **options):
                return nn.BatchNorm(
                    use_running_average=not train, momentum=0.9, dtype=self.dtype, **options
                )(x)

            def block(x, filters, strides):
                convs = [(filters, 3, strides), (filters, 3)]
                if self.network == "resnet50":
                    convs = [(filters,), (filters, 3, strides), (4 * filters,)]
                y = x
                for shape in convs[:-1]:
                    y = nn.relu(norm(conv(y, *shape)))
                y = norm(conv(y, *convs[-1]), scale_init=nn.initializers.zeros_init())
                if x.shape != y.shape:
                    x = norm(conv(x, y.shape[-1], 1, strides))
                return nn.relu(x + y)

            x = nn.relu(norm(conv(x, 64, 7, 2)))
            x = nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
            for stage, depth in enumerate(DEPTHS[self.network]):
                for i in range(depth):
                    x = block(x, 64 * 2**stage, 2 if stage and not i else 1)
            x = jnp.mean(x, axis=(1, 2))
            return jnp.asarray(nn.Dense(self.classes, dtype=self.dtype)(x), jnp.float32)

    return ResNet


def build(work):
    import jax
    import jax.numpy as jnp

    dtype = jnp.bfloat16 if work.precision == "bfloat16" else jnp.float32
    module = network_class()(work.network, work.classes, dtype)
    images = jnp.zeros((1, *work.shape))
    variables = jax.jit(functools.partial(module.init, train=False))(jax.random.key(0), images)
    return module, variables


def step(model, work):
    import jax
    import jax.numpy as jnp

    module, variables = model
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(work.batch, *work.shape)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, work.classes, work.batch))
    if work.kind == "inference":
        infer = jax.jit(functools.partial(module.apply, train=False))
        return lambda: np.asarray(infer(variables, images))

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state, images, labels):
        params, statistics, momenta = state

        def loss_of(params):
            variables = {"params": params, "batch_stats": statistics}
            logits, changes = module.apply(variables, images, train=True, mutable=["batch_stats"])
            logs = jax.nn.log_softmax(logits)
            loss = -jnp.mean(jnp.take_along_axis(logs, labels[:, None], axis=1))
            return loss, changes["batch_stats"]

        (loss, statistics), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        momenta = jax.tree.map(lambda m, g: 0.9 * m - 0.01 * g, momenta, gradients)
        params = jax.tree.map(jnp.add, params, momenta)
        return (params, statistics, momenta), loss

    params = variables["params"]
    state = [(params, variables["batch_stats"], jax.tree.map(jnp.zeros_like, params))]

    def train():
        state[0], loss = update(state[0], images, labels)
        return float(loss)

    return train
