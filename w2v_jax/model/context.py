"""Context network: positional convolution and transformer (wav2vec 2.0, section 2)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from w2v_jax.config import ConvolutionForm, ModelConfig
from w2v_jax.model import convolutions, products
from w2v_jax.model.binding import Parameters, bind, parameters_of
from w2v_jax.model.layer_gradients import Layer, Sink, layers_into_sink
from w2v_jax.model.layers import LayerNorm, Linear, Scoped, broadcast_last, gelu, normal
from w2v_jax.model.time_blocks import balanced
from w2v_jax.platforms import lowered_for
from w2v_jax.randomness import Stream, attention_dropout, drop, dropout, fold_in_all, kept, stream_key

MASKED_SCORE = -1e9


class PositionalConvolution(Scoped):
    """A grouped convolution with weight norm over taps (torch's dim=2), then GELU."""

    def __init__(self, config: ModelConfig, key: Key[Array, ""]):
        taps, dim = config.positional_kernel, config.hidden_dim
        std = (4.0 / (taps * dim)) ** 0.5
        direction = std * jax.random.normal(key, (taps, dim // config.positional_groups, dim))
        self.direction = nnx.Param(direction)
        self.magnitude = nnx.Param(jnp.sqrt(jnp.square(direction).sum((1, 2))))
        self.bias = nnx.Param(jnp.zeros(dim))
        self.groups = config.positional_groups
        self.dtype: products.ComputeDtype = config.compute_dtype
        self.form: ConvolutionForm = config.convolution_form

    def __call__(self, x: Float[Array, "batch time dim"]) -> Float[Array, "batch time dim"]:
        direction = self.direction[...]
        norm = jnp.sqrt(jnp.square(direction).sum((1, 2), keepdims=True))
        kernel = direction * (self.magnitude[...][:, None, None] / norm)
        y = convolutions.positional_convolution(x, kernel, self.groups, self.form, self.dtype)
        return gelu(y + broadcast_last(self.bias[...], y))


@functools.cache
def _has_fused() -> bool:
    """Tell whether this process's device is an NVIDIA GPU of compute capability 8.0 or later."""
    if jax.default_backend() != "gpu":
        return False
    capability = str(getattr(jax.local_devices()[0], "compute_capability", ""))
    major = capability.split(".")[0]
    return major.isdigit() and int(major) >= 8


def fused_attention(
    query: Float[Array, "batch time head head_dim"],
    key: Float[Array, "batch time head head_dim"],
    value: Float[Array, "batch time head head_dim"],
    valid: Bool[Array, "batch time"],
) -> Float[Array, "batch time head head_dim"]:
    """Compute attention by cuDNN, in bf16 with fp32 scores that never reach memory. Needs an NVIDIA GPU.

    Args:
        query: queries, already scaled.
        key, value: keys and values of all frames.
        valid: frames that are attended to; they come first in every row.
    """
    lengths = jnp.maximum(valid.sum(1), 1).astype(jnp.int32)
    query, key, value = (part.astype(jnp.bfloat16) for part in (query, key, value))
    mixed = jax.nn.dot_product_attention(
        query, key, value, scale=1.0, key_value_seq_lengths=lengths, implementation="cudnn"
    )
    return mixed.astype(jnp.float32)


class Attention(Scoped):
    """Multi-head self-attention; softmax in fp32."""

    def __init__(self, config: ModelConfig, key: Key[Array, ""]):
        keys = jax.random.split(key, 4)

        def linear(k):
            return Linear(
                config.hidden_dim,
                config.hidden_dim,
                k,
                dtype=config.compute_dtype,
                initializer=normal(config.transformer_initial_std),
            )

        self.q_proj, self.k_proj = linear(keys[0]), linear(keys[1])
        self.v_proj, self.out_proj = linear(keys[2]), linear(keys[3])
        self.heads = config.num_heads
        self.dtype: products.ComputeDtype = config.compute_dtype
        self.dropout_rate = config.attention_dropout
        self.block_frames = config.attention_block_frames

    def _fused(self, time: int, head_dim: int, dropout_keys) -> bool:
        """Tell whether cuDNN's attention applies: bf16, no dropout, an even length, a GPU in this process."""
        plain = dropout_keys is None or self.dropout_rate == 0.0
        fits = time % 2 == 0 and head_dim % 8 == 0 and head_dim <= 128
        return plain and fits and self.dtype == "bfloat16" and lowered_for() == "gpu" and _has_fused()

    def __call__(self, x, valid: Bool[Array, "batch time"], dropout_keys):
        batch, time, dim = x.shape

        def split(y):
            return y.reshape(batch, time, self.heads, dim // self.heads)

        query = split(self.q_proj(x)) * (dim // self.heads) ** -0.5
        key, value = split(self.k_proj(x)), split(self.v_proj(x))
        if self._fused(time, dim // self.heads, dropout_keys):
            return self.out_proj(fused_attention(query, key, value, valid).reshape(batch, time, dim))
        mixed = self._in_blocks(query, key, value, valid, dropout_keys)
        return self.out_proj(mixed.reshape(batch, time, dim))

    def _mix(self, query, key, value, valid, dropout_keys, first_query):
        """Average the values by the attention weights of some queries."""
        scores = products.einsum("bqhd,bkhd->bhqk", query, key, self.dtype)
        scores = jnp.where(valid[:, None, None, :], scores, MASKED_SCORE)
        weights = jax.nn.softmax(scores, axis=-1)
        weights = attention_dropout(weights, self.dropout_rate, dropout_keys, first_query)
        return products.einsum("bhqk,bkhd->bqhd", weights, value, self.dtype)

    def _in_blocks(self, query, key, value, valid, dropout_keys):
        """Attend with all queries, in blocks of `block_frames` queries where that is set."""
        blocks = balanced(query.shape[1], self.block_frames)
        if blocks.count == 1:
            return self._mix(query, key, value, valid, dropout_keys, 0)

        def body(carry: None, per_block: tuple[Array, Array]) -> tuple[None, Array]:
            first, rows = per_block
            return None, self._mix(rows, key, value, valid, dropout_keys, first)

        _, mixed = jax.lax.scan(
            jax.checkpoint(body, prevent_cse=False), None, (blocks.starts, blocks.cut(query))
        )
        return blocks.join(mixed)


class FeedForward(Scoped):
    """Two linear maps with GELU between them."""

    def __init__(self, config: ModelConfig, key: Key[Array, ""]):
        first, second = jax.random.split(key)
        narrow, wide, dtype = config.hidden_dim, config.feed_forward_dim, config.compute_dtype
        initializer = normal(config.transformer_initial_std)
        self.intermediate = Linear(narrow, wide, first, dtype=dtype, initializer=initializer)
        self.output = Linear(wide, narrow, second, dtype=dtype, initializer=initializer)
        self.dropout_rate = config.activation_dropout
        self.block_frames, self.wide = config.feed_forward_block_frames, wide

    def __call__(self, x, dropout_keys):
        blocks = balanced(x.shape[1], self.block_frames)
        keep = kept(self.dropout_rate, dropout_keys, (x.shape[1], self.wide))
        if blocks.count == 1:
            return self._map(x, keep)

        def body(carry: None, per_block: tuple[Array, Array | None]) -> tuple[None, Array]:
            return None, self._map(*per_block)

        cut = (blocks.cut(x), None if keep is None else blocks.cut(keep))
        return blocks.join(jax.lax.scan(jax.checkpoint(body, prevent_cse=False), None, cut)[1])

    def _map(self, x: Array, keep: Array | None) -> Array:
        inner = gelu(self.intermediate(x))
        return self.output(inner if keep is None else drop(inner, self.dropout_rate, keep))


class TransformerLayer(Scoped):
    """A transformer layer: post-norm (base, large) or pre-norm (large-lv60)."""

    def __init__(self, config: ModelConfig, key: Key[Array, ""]):
        attention_key, feed_forward_key = jax.random.split(key)
        self.attention = Attention(config, attention_key)
        self.layer_norm = LayerNorm(config.hidden_dim)
        self.feed_forward = FeedForward(config, feed_forward_key)
        self.final_layer_norm = LayerNorm(config.hidden_dim)
        self.config = config

    def __call__(self, x, valid, dropout_keys):
        def site(index):
            return None if dropout_keys is None else fold_in_all(dropout_keys, index)

        def attend(y):
            return dropout(self.attention(y, valid, site(0)), self.config.dropout, site(1))

        def feed_forward(y):
            return dropout(self.feed_forward(y, site(2)), self.config.dropout, site(3))

        if self.config.pre_norm:
            x = x + attend(self.layer_norm(x))
            return x + feed_forward(self.final_layer_norm(x))
        x = self.layer_norm(x + attend(x))
        return self.final_layer_norm(x + feed_forward(x))


class ContextNetwork(Scoped):
    """The positional convolution, then the stacked layers under one `lax.scan`."""

    def __init__(self, config: ModelConfig, key: Key[Array, ""]):
        position_key, layers_key = jax.random.split(key)
        self.positional = PositionalConvolution(config, position_key)
        self.layer_norm = LayerNorm(config.hidden_dim)
        layer_keys = jax.random.split(layers_key, config.num_layers)
        template = nnx.eval_shape(lambda: TransformerLayer(config, layer_keys[0]))
        stacked = jax.vmap(lambda k: nnx.state(TransformerLayer(config, k)))(layer_keys)
        # Parameters carry a leading layer axis (docs/decisions/0002).
        self.layers = nnx.merge(nnx.graphdef(template), stacked)
        self.config = config

    def __call__(
        self,
        x: Float[Array, "batch time dim"],
        valid: Bool[Array, "batch time"],
        dropout_keys: Key[Array, " batch"] | None,
        step_key: Key[Array, ""] | None,
        sink: Sink | None = None,
    ) -> tuple[Float[Array, "batch time dim"], dict]:
        """Contextualise frames.

        Args:
            x: latent frames, already masked.
            valid: frames that are not padding; padding is zeroed and never attended to.
            dropout_keys: a key per utterance, or None for no dropout.
            step_key: key of the step's layer drop, or None for no layer drop.
            sink: arrays that take up the gradients of the layers; None returns gradients as usual.

        Returns:
            (context, named intermediates). `layers_input` is the input of the first layer. `hidden_layers`
            has a leading layer axis; a sink leaves it out.
        """
        config = self.config
        x = jnp.where(valid[..., None], x, jnp.zeros_like(x))
        position = self.positional(x)
        x = x + position
        if not config.pre_norm:
            x = self.layer_norm(x)
        if dropout_keys is not None:
            x = dropout(x, config.dropout, fold_in_all(dropout_keys, config.num_layers))
        kept = None
        if step_key is not None and config.layer_drop > 0:
            drop_key = stream_key(step_key, Stream.LAYER_DROP)
            kept = jax.random.bernoulli(drop_key, 1.0 - config.layer_drop, (config.num_layers,))
        own, shared = (jnp.arange(config.num_layers), kept), (valid, dropout_keys)
        layer, stacked = one_layer(config), parameters_of(self.layers)
        out = {"positional": position, "layers_input": x}
        if sink is not None:
            x = layers_into_sink(layer, x, sink, stacked, own, shared)
        else:

            def body(x, per_layer):
                parameters, own = per_layer
                x = layer(parameters, x, own, shared)
                return x, x

            x, out["hidden_layers"] = jax.lax.scan(
                # prevent_cse is not needed: inside a scan XLA cannot merge the two computations.
                jax.checkpoint(body, prevent_cse=False) if config.rematerialise_layers else body,
                x,
                (stacked, own),
                unroll=min(config.scan_unroll, config.num_layers),
            )
        if config.pre_norm:
            x = self.layer_norm(x)
        return x, out


@functools.cache
def one_layer(config: ModelConfig) -> Layer:
    """Build a transformer layer as a function of its parameters, for `layer_gradients`.

    `own` is the layer's index and whether it is kept (None: always). `shared` is the valid frames and the
    keys of dropout (None: no dropout).
    """

    def make(key: Key[Array, ""]) -> TransformerLayer:
        made = TransformerLayer(config, key)
        made.scope = "layers"
        return made

    _, apply = bind(make)

    def layer(parameters: Parameters, x: Array, own: Any, shared: Any) -> Array:
        (index, kept), (valid, dropout_keys) = own, shared
        keys = None if dropout_keys is None else fold_in_all(dropout_keys, index)
        y = apply(parameters, x, valid, keys)
        return y if kept is None else jnp.where(kept, y, x)

    return layer
