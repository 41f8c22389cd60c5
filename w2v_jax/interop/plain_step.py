"""The exported step of wav2vec 2.0 or BEST-RQ in one plain file, for boards that cannot load the export.

It is copied beside the artifact. It needs jax alone (from 0.4.13, which is Python 3.8's last) and computes
what experiments/costs/step/training_step.py does: same loss, same random draws, same update. Arrays are
[batch, time, channel]; parameters are a flat dict by path; `keys` has one key per utterance.

    step = jax.jit(make_step(json.load(open("artifact.json"))))
    *state, loss = step(*state, waveform, num_samples, utterance_id, key_data, index)
"""

import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

MASK, NEGATIVES, GUMBEL, DROPOUT, LAYER_DROP = range(5)  # random streams
CONV_LAYER = "feature_encoder/conv_layers_"
LAYERS = "context_network/layers/"
MASKED_SCORE = -1e9
SCALE_PERIOD = 2000  # finite steps after which the loss scale doubles
# Settings of methods that this file does not have: it computes only models where they are None or False.
ABSENT = (
    "encoder_block_frames",
    "attention_block_frames",
    "feed_forward_block_frames",
    "similarity_block_frames",
    "gathered_negatives",
    "micro_batch",
    "frozen_feature_encoder",
    "truncate_seconds",
)
CHOICES = {
    "compute_dtype": ("float32", "bfloat16", "float16"),
    "feature_norm": ("group", "layer"),
    "objective": ("wav2vec2", "best-rq"),
    "front_end": ("waveform", "log-mel"),
}
# Settings that older manifests lack.
ADDED = {"objective": "wav2vec2", "front_end": "waveform"}
SAMPLE_RATE_HZ, MEL_WINDOW, MEL_HOP, FFT_SAMPLES = 16000, 400, 160, 512


def gelu(x):
    """Apply the exact GELU, by the error function."""
    return x * (0.5 * (1.0 + lax.erf(x * 0.5**0.5)))


def lacks(manifest):
    """List the settings of a manifest's "config" that this file cannot follow."""
    return [name for name in ABSENT if manifest["config"].get(name)]


def make_step(manifest):
    """Make the training step of an artifact, to be jitted.

    Args:
        manifest: the artifact's `artifact.json`. Its "config", "optimizer", "learning_rate" and the names in
            "state" are read.

    Returns:
        Function of the state's leaves in the manifest's order, then waveform f32[batch, sample] at 16 kHz,
        num_samples i32[batch], utterance_id u32[batch], key_data u32[2] and step i32[]. It returns the new
        leaves in the same order, then the loss f32[]: the mean per masked frame in nats, zero without any.

    Raises:
        ValueError: a leaf is missing or unexpected, or a setting is unknown.
    """
    config = types.SimpleNamespace(**dict(ADDED, **manifest["config"]))
    optimizer = types.SimpleNamespace(**manifest["optimizer"])
    chosen = {name: getattr(config, name) for name in CHOICES}
    chosen["optimizer"] = optimizer.name
    for name, allowed in dict(CHOICES, optimizer=("adamw", "sgd")).items():
        if chosen[name] not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {chosen[name]!r}")
    if given := lacks(manifest):
        raise ValueError(f"this file has no {', '.join(given)}: export with --method plain or remat for it")
    if getattr(optimizer, "state_dtype", "float32") != "float32" or getattr(optimizer, "frozen", ()):
        raise ValueError("this file keeps an optimizer's state in fp32, and trains all of the model")
    scaled = config.compute_dtype == "float16"
    paths = parameter_paths(config)
    expected = [f"parameters/{path}" for path in paths]
    if optimizer.name == "adamw":
        expected += ["optimizer/count"]
        expected += [f"optimizer/{moment}/{path}" for moment in ("mu", "nu") for path in paths]
    expected += ["loss_scale/scale", "loss_scale/good_steps"] if scaled else []
    names = [leaf["name"] for leaf in manifest["state"]]
    missing = [name for name in expected if name not in names]
    unexpected = [name for name in names if name not in expected or names.count(name) > 1]
    if missing or unexpected:
        faults = f"missing: {', '.join(missing) or 'none'}; unexpected: {', '.join(unexpected) or 'none'}"
        raise ValueError(f"the manifest's state is not this model's; {faults}")
    # The artifact draws its random numbers so; it is jax's default since 0.5.
    jax.config.update("jax_threefry_partitionable", True)

    def step(*leaves):
        if len(leaves) != len(names) + 5:
            raise ValueError(f"expected {len(names)} state leaves and 5 inputs, got {len(leaves)} arrays")
        leaves = [jnp.asarray(leaf) for leaf in leaves]
        state, inputs = {name: leaves[i] for i, name in enumerate(names)}, leaves[len(names) :]

        def objective(parameters):
            loss = training_loss(config, parameters, *inputs)
            return loss * state["loss_scale/scale"] if scaled else loss, loss

        parameters = {path: state[f"parameters/{path}"] for path in paths}
        gradients, loss = jax.grad(objective, has_aux=True)(parameters)
        advance = scaled_update if scaled else update
        state = advance(optimizer, manifest["learning_rate"], state, gradients)
        return tuple([state[name] for name in names] + [loss])

    return step


def parameter_paths(config):
    """List all parameters' paths; the transformer layers' arrays are stacked along a leading layer axis."""
    paths = ["mask_embedding"]
    paths += [f"context_network/positional/{leaf}" for leaf in ("direction", "magnitude", "bias")]
    linears = ["feature_projection/projection"]
    if config.objective == "best-rq":
        linears += ["prediction"]
    else:
        paths += ["quantizer/codevectors"]
        linears += ["quantizer/weight_proj", "project_context", "project_quantized"]
    linears += [f"{LAYERS}attention/{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj")]
    linears += [f"{LAYERS}feed_forward/{name}" for name in ("intermediate", "output")]
    norms = ["context_network/layer_norm"]
    norms += [] if config.front_end == "log-mel" else ["feature_projection/layer_norm"]
    norms += [f"{LAYERS}layer_norm", f"{LAYERS}final_layer_norm"]
    for index in range(len(config.conv_channels)):
        paths += [f"{CONV_LAYER}{index}/{leaf}" for leaf in ("kernel", "bias")[: 1 + config.conv_bias]]
        norms += [f"{CONV_LAYER}{index}/norm"] if config.feature_norm == "layer" or index == 0 else []
    paths += [f"{name}/{leaf}" for name in linears for leaf in ("kernel", "bias")]
    return paths + [f"{name}/{leaf}" for name in norms for leaf in ("scale", "bias")]


def training_loss(config, parameters, waveform, num_samples, utterance_id, key_data, step):
    """Compute the loss per masked frame: f32[]. wav2vec 2.0 adds diversity and feature penalty to it."""

    def stream(number):
        # Each utterance has a key for each purpose. Raw key data are keys in every version of jax.
        keys = jax.vmap(lambda utterance: jax.random.fold_in(key_data, utterance))(utterance_id)
        return fold_in_all(keys, number)

    def site(number):
        return fold_in_all(stream(DROPOUT), config.num_layers + number)

    if config.normalise_waveform:
        valid = valid_frames(config, num_samples, 0, waveform.shape[1])
        waveform = jnp.where(valid, standardise(waveform, 1, valid, 1e-7), jnp.zeros_like(waveform))
    features = encode(config, parameters, waveform, num_samples)
    valid = frames_of(config, num_samples, features.shape[1])
    mask = span_mask(config, stream(MASK), valid)
    normed = features
    if config.front_end != "log-mel":
        normed = layer_norm(parameters, "feature_projection/layer_norm", features)
    projected = linear(config, parameters, "feature_projection/projection", normed)
    projected = dropout(projected, config.input_dropout, site(1))
    masked = jnp.where(mask[..., None], parameters["mask_embedding"][None, None], projected)
    drop_key = jax.random.fold_in(key_data, LAYER_DROP)
    context = contextualise(config, parameters, masked, valid, site(2), drop_key)
    if config.objective == "best-rq":
        scores = linear(config, parameters, "prediction", context)
        return masked_mean(cross_entropy(config, scores, nearest_codes(config, features)), mask)
    counts = negative_counts(config, stream(NEGATIVES), mask)
    unmasked = dropout(normed, config.feature_dropout, site(3))
    vectors, codes, probabilities = quantize(config, parameters, unmasked, stream(GUMBEL), step)
    context = linear(config, parameters, "project_context", context)
    targets = linear(config, parameters, "project_quantized", vectors)
    contrast = contrastive(config, context, targets, codes, counts)

    average = masked_mean(probabilities, mask)
    perplexity = jnp.exp(-(average * jnp.log(average + 1e-7)).sum(-1)).sum()
    rise = (step.astype(jnp.float32) + 1.0) / max(config.diversity_warmup_updates, 1)
    diversity_weight = config.diversity_weight * jnp.square(jnp.minimum(rise, 1.0))
    diversity = (average.size - perplexity) / average.size
    penalty = masked_mean(jnp.square(features).mean(-1), valid)
    rest = diversity_weight * diversity + config.feature_penalty_weight * penalty
    return masked_mean(contrast, mask) + rest * mask.any().astype(jnp.float32)


def encode(config, parameters, waveform, num_samples):
    """Encode [batch, sample] into latent frames."""
    if config.front_end == "log-mel":
        return log_mel_frames(config, waveform, num_samples)
    x = waveform[..., None]
    for index in range(len(config.conv_channels)):
        layer = functools.partial(conv_layer, config, parameters, num_samples, index)
        x = jax.checkpoint(layer)(x) if config.rematerialise_cnn else layer(x)
    return jnp.asarray(scale_gradient(x, config.encoder_gradient_scale))


def log_mel_frames(config, waveform, num_samples):
    """Compute stacked log-mel bands; each value is normalised over its utterance, and zero on padding."""
    stack, bands = config.log_mel_stack, config.log_mel_bands
    frames = max((waveform.shape[1] - MEL_WINDOW) // MEL_HOP + 1, 0) // stack
    samples = np.arange(frames * stack)[:, None] * MEL_HOP + np.arange(MEL_WINDOW)[None, :]
    window = jnp.asarray(np.hanning(MEL_WINDOW + 1)[:-1], jnp.float32)
    power = jnp.square(jnp.abs(jnp.fft.rfft(waveform[:, samples] * window[None, None], FFT_SAMPLES)))
    top = 2595.0 * np.log10(1.0 + SAMPLE_RATE_HZ / 2 / 700.0)
    corners = 700.0 * (10.0 ** (np.linspace(0.0, top, bands + 2) / 2595.0) - 1.0)
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    at = np.fft.rfftfreq(FFT_SAMPLES, 1.0 / SAMPLE_RATE_HZ)[:, None]
    filters = np.maximum(0.0, np.minimum((at - low) / (centre - low), (high - at) / (high - centre)))
    filters = jnp.asarray(filters.astype(np.float32))
    energies = jnp.einsum("bwf,fm->bwm", power, filters, precision=lax.Precision.HIGHEST)
    features = jnp.log(energies + 1e-6).reshape(waveform.shape[0], frames, stack * bands)
    valid = frames_of(config, num_samples, frames)[..., None]
    return lax.stop_gradient(jnp.where(valid, standardise(features, 1, valid), jnp.zeros_like(features)))


def nearest_codes(config, features):
    """Find each frame's entry in every codebook of BEST-RQ: i32[batch, time, book]; see model/best_rq.py."""
    draws, dim = np.random.Generator(np.random.PCG64(config.target_seed)), config.target_dim
    bound = (6.0 / (features.shape[-1] + dim)) ** 0.5
    projections = draws.uniform(-bound, bound, (config.target_codebooks, features.shape[-1], dim))
    entries = draws.normal(size=(config.target_codebooks, config.target_entries, dim))
    entries /= np.linalg.norm(entries, axis=-1, keepdims=True)
    projections, entries = (jnp.asarray(drawn.astype(np.float32)) for drawn in (projections, entries))
    highest = lax.Precision.HIGHEST
    projected = jnp.einsum("btc,gcd->btgd", features, projections, precision=highest)
    return jnp.argmax(jnp.einsum("btgd,gvd->btgv", projected, entries, precision=highest), axis=-1)


def cross_entropy(config, scores, codes):
    """Compute the mean over codebooks of -log softmax of the frame's code: f32[batch, time]."""
    scores = scores.reshape(*codes.shape, config.target_entries)
    own = jnp.take_along_axis(jax.nn.log_softmax(scores, axis=-1), codes[..., None], axis=-1)
    return -own[..., 0].mean(-1)


def conv_layer(config, parameters, num_samples, index, x):
    """Apply a strided convolution, its norm if it has one, and GELU."""
    name, valid = f"{CONV_LAYER}{index}", None
    x = convolution(config, x, parameters[f"{name}/kernel"], config.conv_strides[index])
    if config.conv_bias:
        x = x + parameters[f"{name}/bias"][None, None]
    if config.feature_norm == "layer":
        x = layer_norm(parameters, f"{name}/norm", x)
    elif index == 0:
        # Each channel is normalised over time. Padding takes part unless it is masked.
        if config.masked_group_norm:
            valid = valid_frames(config, num_samples, 1, x.shape[1])[..., None]
        x = affine(parameters, f"{name}/norm", standardise(x, 1, valid))
        x = x if valid is None else jnp.where(valid, x, jnp.zeros_like(x))
    return gelu(x)


def contextualise(config, parameters, x, valid, keys, drop_key):
    """Apply the positional convolution (weight norm over taps) and the transformer's layers."""
    x = jnp.where(valid[..., None], x, jnp.zeros_like(x))
    direction, magnitude, bias = (
        parameters[f"context_network/positional/{leaf}"] for leaf in ("direction", "magnitude", "bias")
    )
    norm = jnp.sqrt(jnp.square(direction).sum((1, 2), keepdims=True))
    kernel, taps = direction * (magnitude[:, None, None] / norm), config.positional_kernel
    padding = (taps // 2, taps - 1 - taps // 2)
    position = convolution(config, x, kernel, 1, config.positional_groups, padding)
    x = x + gelu(position + bias[None, None])
    if not config.pre_norm:
        x = layer_norm(parameters, "context_network/layer_norm", x)
    x = dropout(x, config.dropout, fold_in_all(keys, config.num_layers))
    stacked = {path[len(LAYERS) :]: leaf for path, leaf in parameters.items() if path.startswith(LAYERS)}
    kept = jax.random.bernoulli(drop_key, 1.0 - config.layer_drop, (config.num_layers,))

    def body(x, per_layer):
        index, keep, layer = per_layer
        y = transformer_layer(config, layer, x, valid, fold_in_all(keys, index))
        return jnp.where(keep, y, x) if config.layer_drop > 0 else y, None

    # Inside a scan nothing can merge what is computed twice.
    body = jax.checkpoint(body, prevent_cse=False) if config.rematerialise_layers else body
    unroll = min(config.scan_unroll, config.num_layers)
    x, _ = lax.scan(body, x, (jnp.arange(config.num_layers), kept, stacked), unroll=unroll)
    return layer_norm(parameters, "context_network/layer_norm", x) if config.pre_norm else x


def transformer_layer(config, layer, x, valid, keys):
    """Apply one layer, post-norm or pre-norm; `layer` holds its parameters."""

    def attend(y):
        y = attention(config, layer, y, valid, fold_in_all(keys, 0))
        return dropout(y, config.dropout, fold_in_all(keys, 1))

    def feed_forward(y):
        y = gelu(linear(config, layer, "feed_forward/intermediate", y))
        y = dropout(y, config.activation_dropout, fold_in_all(keys, 2))
        return dropout(linear(config, layer, "feed_forward/output", y), config.dropout, fold_in_all(keys, 3))

    if config.pre_norm:
        x = x + attend(layer_norm(layer, "layer_norm", x))
        return x + feed_forward(layer_norm(layer, "final_layer_norm", x))
    x = layer_norm(layer, "layer_norm", x + attend(x))
    return layer_norm(layer, "final_layer_norm", x + feed_forward(x))


def attention(config, layer, x, valid, keys):
    """Apply self-attention with an fp32 softmax; dropout has a key per utterance and query frame."""
    batch, time, dim = x.shape
    heads, share = config.num_heads, 1.0 - config.attention_dropout

    def split(name):
        return linear(config, layer, f"attention/{name}", x).reshape(batch, time, heads, dim // heads)

    def keep(key):
        query_keys = jax.vmap(lambda query: jax.random.fold_in(key, query))(jnp.arange(time))
        kept = jax.vmap(lambda query_key: jax.random.bernoulli(query_key, share, (time, heads)))(query_keys)
        return jnp.transpose(kept, (2, 0, 1))

    query = split("q_proj") * (dim // heads) ** -0.5
    scores = jnp.asarray(einsum("bqhd,bkhd->bhqk", config.compute_dtype, query, split("k_proj")))
    weights = jax.nn.softmax(jnp.where(valid[:, None, None, :], scores, MASKED_SCORE), axis=-1)
    if share < 1.0:
        weights = jnp.where(jax.vmap(keep)(keys), weights / share, jnp.zeros_like(weights))
    mixed = jnp.asarray(einsum("bhqk,bkhd->bqhd", config.compute_dtype, weights, split("v_proj")))
    return linear(config, layer, "attention/out_proj", mixed.reshape(batch, time, dim))


def quantize(config, parameters, x, keys, step):
    """Quantize: return vectors, codes [batch, time, group] and noiseless probabilities of entries."""
    codebook = parameters["quantizer/codevectors"]
    (batch, time, _), (groups, entries, _) = x.shape, codebook.shape
    logits = linear(config, parameters, "quantizer/weight_proj", x).reshape(batch, time, groups, entries)
    decay = jnp.power(jnp.float32(config.gumbel_temperature_decay), step.astype(jnp.float32))
    temperature = jnp.maximum(config.gumbel_temperature_start * decay, config.gumbel_temperature_end)
    noise = jax.vmap(lambda key: jax.random.gumbel(key, (time, groups, entries)))(keys)
    codes = jnp.argmax(logits + noise, axis=-1)
    soft = jax.nn.softmax((logits + noise) / temperature, axis=-1)
    # The choice is one-hot forward, and has the soft choice's gradient backward.
    choice = jax.nn.one_hot(codes, entries, dtype=jnp.float32) + soft - lax.stop_gradient(soft)
    vectors = jnp.einsum("btgv,gvd->btgd", choice, codebook, precision=lax.Precision.HIGHEST)
    return vectors.reshape(batch, time, -1), codes, jax.nn.softmax(logits, axis=-1)


def span_mask(config, keys, valid):
    """Draw masked frames, bool[batch, time]; spans may overlap and never reach into padding."""
    time, span = valid.shape[1], config.mask_span

    def draw(key, frames):
        count_key, start_key = jax.random.split(key)
        wanted = config.mask_probability * frames.astype(jnp.float32) / span + jax.random.uniform(count_key)
        room = frames // span
        count = jnp.clip(wanted.astype(jnp.int32), jnp.minimum(config.mask_min_spans, room), room)
        scores = jax.random.uniform(start_key, (time,))
        scores = jnp.where(jnp.arange(time) <= frames - span, scores, jnp.inf)
        starts = jnp.cumsum((jnp.argsort(jnp.argsort(scores)) < count).astype(jnp.int32))
        before = jnp.concatenate([jnp.zeros(span, jnp.int32), starts])[:time]
        return starts > before

    return jax.vmap(draw)(keys, valid.sum(1))


def negative_counts(config, keys, mask):
    """Count how often masked frame j is drawn as a distractor of masked frame t: i32[batch, t, j]."""
    time = mask.shape[1]

    def draw(key, masked):
        rank = jnp.cumsum(masked.astype(jnp.int32)) - 1
        others = jnp.maximum(masked.sum() - 1, 1)
        uniform = jax.random.uniform(key, (time, config.num_negatives))
        choice = jnp.minimum((uniform * others.astype(jnp.float32)).astype(jnp.int32), others - 1)
        choice = choice + (choice >= rank[:, None]).astype(jnp.int32)  # skips the frame itself
        # argsort is stable by default in every version.
        drawn = jnp.argsort(~masked)[jnp.minimum(choice, time - 1)]
        usable = (masked & (masked.sum() > 1)).astype(jnp.int32)
        return jnp.zeros((time, time), jnp.int32).at[jnp.arange(time)[:, None], drawn].add(usable[:, None])

    return jax.vmap(draw)(keys, mask)


def contrastive(config, context, targets, codes, counts):
    """Compute -log softmax of each frame's target without distractors of its codes: f32[batch, time]."""

    def unit(x):
        return x * lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-16))

    cosine = jnp.einsum("btd,bfd->btf", unit(context), unit(targets), precision=lax.Precision.HIGHEST)
    logits = cosine / config.contrastive_temperature
    same = (codes[:, :, None, :] == codes[:, None, :, :]).all(-1)
    weighted = logits + jnp.log(jnp.maximum(counts, 1).astype(jnp.float32))
    negative = jnp.where((counts > 0) & ~same, weighted, -jnp.inf)
    own = jnp.eye(logits.shape[1], dtype=bool)[None]
    total = jax.nn.logsumexp(jnp.where(own, logits, negative), axis=-1)
    return total - jnp.diagonal(logits, axis1=1, axis2=2)


def masked_mean(values, mask):
    """Average over True frames; the mean of none is zero."""
    share = mask.astype(jnp.float32).reshape(mask.shape + (1,) * (values.ndim - 2))
    return (values * share).sum((0, 1)) / jnp.maximum(mask.sum().astype(jnp.float32), 1.0)


def valid_frames(config, num_samples, layers, total):
    """Mark frames that are not padding after the first `layers` convolutions: bool[batch, total]."""
    length = num_samples
    for index in range(layers):
        length = jnp.maximum((length - config.conv_kernels[index]) // config.conv_strides[index] + 1, 0)
    return jnp.arange(total)[None, :] < length[:, None]


def frames_of(config, num_samples, total):
    """Mark latent frames that are not padding: bool[batch, total]."""
    if config.front_end != "log-mel":
        return valid_frames(config, num_samples, len(config.conv_kernels), total)
    windows = jnp.maximum((num_samples - MEL_WINDOW) // MEL_HOP + 1, 0)
    return jnp.arange(total)[None, :] < (windows // config.log_mel_stack)[:, None]


def fold_in_all(keys, data):
    """Fold the same number into every key of a batch."""
    return jax.vmap(lambda key: jax.random.fold_in(key, data))(keys)


def dropout(x, rate, keys):
    """Apply inverted dropout with a key per utterance."""
    if rate == 0.0:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))


def linear(config, parameters, name, x):
    """Compute x W + b over the last axis."""
    y = jnp.asarray(einsum("btd,de->bte", config.compute_dtype, x, parameters[f"{name}/kernel"]))
    return y + parameters[f"{name}/bias"][None, None]


def layer_norm(parameters, name, x):
    """Apply layer normalisation over the last axis."""
    return affine(parameters, name, standardise(x, -1))


def affine(parameters, name, x):
    """Apply a norm's scale and bias to each channel."""
    return x * parameters[f"{name}/scale"][None, None] + parameters[f"{name}/bias"][None, None]


def standardise(x, axis, valid=None, epsilon=1e-5):
    """Give zero mean and unit variance along `axis`, by the statistics of valid entries if they are given."""

    def average(y):
        if valid is None:
            return y.mean(axis, keepdims=True)
        share = valid.astype(y.dtype)
        return (y * share).sum(axis, keepdims=True) / jnp.maximum(share.sum(axis, keepdims=True), 1.0)

    centred = x - average(x)
    return centred * lax.rsqrt(average(jnp.square(centred)) + epsilon)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def scale_gradient(x, scale):
    """Return x; its gradient is multiplied by `scale`."""
    return x


scale_gradient.defvjp(lambda x, scale: (x, None), lambda scale, _, cotangent: (cotangent * scale,))


def convolution(config, x, kernel, stride, groups=1, padding=(0, 0)):
    """Apply lax.conv; in 16 bits both operands and result have them. The product form only changes speed."""
    dtype = config.compute_dtype
    out = lax.conv_general_dilated(
        x.astype(dtype),
        kernel.astype(dtype),
        window_strides=(stride,),
        padding=[padding],
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=groups,
        precision=lax.Precision.HIGHEST if dtype == "float32" else None,
    )
    return out.astype(jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def einsum(spec, dtype, a, b):
    """Multiply operands rounded to `dtype` with fp32 accumulation and result, backward too."""
    a, b = a.astype(dtype), b.astype(dtype)
    left, right, out = re.split(",|->", spec)
    if jax.default_backend() == "cpu" and set(left) & set(right) & set(out):
        # XLA:CPU lacks some batched 16-bit products with fp32 results inside loops.
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    precision = lax.Precision.HIGHEST if dtype == "float32" else None
    return jnp.einsum(spec, a, b, precision=precision, preferred_element_type=jnp.float32)


def _einsum_forward(spec, dtype, a, b):
    a, b = a.astype(dtype), b.astype(dtype)
    return einsum(spec, dtype, a, b), (a, b)


def _einsum_backward(spec, dtype, saved, cotangent):
    (a, b), (left, right, out) = saved, re.split(",|->", spec)
    a_gradient = einsum(f"{out},{right}->{left}", dtype, cotangent, b)
    return a_gradient, einsum(f"{left},{out}->{right}", dtype, a, cotangent)


einsum.defvjp(_einsum_forward, _einsum_backward)


def update(optimizer, learning_rate, state, gradients):
    """Update parameters and optimizer state by name: clip by the global norm, then apply AdamW or SGD."""
    if optimizer.clip_norm:
        norm = jnp.sqrt(sum(jnp.square(g).sum() for g in gradients.values()))
        short = norm < optimizer.clip_norm
        gradients = {
            path: jnp.where(short, g, g / norm * optimizer.clip_norm) for path, g in gradients.items()
        }
    adamw, beta1, beta2 = optimizer.name == "adamw", optimizer.beta1, optimizer.beta2
    count = state["optimizer/count"] + 1 if adamw else jnp.int32(1)
    new = {"optimizer/count": count} if adamw else {}
    mu_weight = 1.0 - jnp.power(jnp.float32(beta1), count.astype(jnp.float32))
    nu_weight = 1.0 - jnp.power(jnp.float32(beta2), count.astype(jnp.float32))
    for path, direction in gradients.items():
        parameter = state[f"parameters/{path}"]
        if adamw:
            mu = (1.0 - beta1) * direction + beta1 * state[f"optimizer/mu/{path}"]
            nu = (1.0 - beta2) * jnp.square(direction) + beta2 * state[f"optimizer/nu/{path}"]
            new[f"optimizer/mu/{path}"], new[f"optimizer/nu/{path}"] = mu, nu
            direction = mu / mu_weight / (jnp.sqrt(nu / nu_weight) + optimizer.epsilon)
            direction = direction + optimizer.weight_decay * parameter
        new[f"parameters/{path}"] = parameter - learning_rate * direction
    return new


def scaled_update(optimizer, learning_rate, state, gradients):
    """Apply `update` to gradients of the scaled loss; if one is not finite, only the scale changes."""
    scale, good_steps = state["loss_scale/scale"], state["loss_scale/good_steps"]
    gradients = {path: g * (1.0 / scale) for path, g in gradients.items()}
    finite = jnp.stack([jnp.isfinite(g).all() for g in gradients.values()]).all()
    updated = update(optimizer, learning_rate, state, gradients)
    new = {name: jnp.where(finite, leaf, state[name]) for name, leaf in updated.items()}
    doubles = (good_steps == SCALE_PERIOD - 1) & jnp.isfinite(scale * 2.0)
    raised, lowered = jnp.where(doubles, scale * 2.0, scale), jnp.maximum(scale / 2.0, 1.0)
    new["loss_scale/scale"] = jnp.where(finite, raised, lowered)
    new["loss_scale/good_steps"] = jnp.where(finite, (good_steps + 1) % SCALE_PERIOD, 0)
    return new
