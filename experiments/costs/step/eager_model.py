"""Trace pre-training operation by operation, as an eager framework runs it: wav2vec 2.0 as transformers does.

Negatives are gathered at full size, [1 + negatives, batch, frame, dim], as in transformers. Scopes are those
of this project's modules, so that all accountings can be compared.
"""

from profiling.eager_memory import Tape, Tensor
from w2v_jax.config import ModelConfig


def trace(config: ModelConfig, batch: int, samples: int, tape: Tape) -> Tape:
    """Put one forward pass in training mode on a tape.

    Args:
        config: architecture and dropout rates; layer drop is left out.
        batch: whole utterances.
        samples: samples of each utterance.
        tape: an empty tape.

    Returns:
        The tape, which holds the saved bytes by scope.
    """
    with tape.within("feature_encoder"):
        features = _feature_encoder(config, batch, samples, tape)
    with tape.within("feature_projection"):
        frames = features.shape[1]
        log_mel = config.front_end == "log-mel"  # frames that need no gradient and have no norm
        normed = features if log_mel else tape.normalise(features, batch * frames)
        hidden = tape.dropout(tape.linear(normed, config.hidden_dim), config.input_dropout)
    with tape.within("masking"):
        tape.save(Tensor((batch, frames), 1))
    with tape.within("context_network"):
        context = _context_network(config, hidden, tape)
    if config.objective == "best-rq":
        _best_rq(config, context, tape)
        return tape
    with tape.within("project_context"):
        predicted = tape.linear(context, config.projection_dim)
    with tape.within("quantizer"):
        quantized = _quantizer(config, tape.dropout(normed, config.feature_dropout), tape)
    with tape.within("project_quantized"):
        targets = tape.linear(quantized, config.projection_dim)
    with tape.within("losses"):
        _losses(config, predicted, targets, tape)
    return tape


def _feature_encoder(config: ModelConfig, batch: int, samples: int, tape: Tape) -> Tensor:
    if config.front_end == "log-mel":
        return Tensor((batch, config.num_frames(samples), config.feature_dim))
    x, frames = Tensor((batch, samples, 1)), samples
    for index, channels in enumerate(config.conv_channels):
        taps, stride = config.conv_kernels[index], config.conv_strides[index]
        frames = (frames - taps) // stride + 1
        with tape.within(f"conv_layers_{index}"):
            x = tape.convolution(x, taps * x.shape[-1] * channels, (batch, frames, channels))
            if config.feature_norm == "layer":
                x = tape.normalise(x, batch * frames)
            elif index == 0:
                x = tape.normalise(x, batch * channels)
            x = tape.gelu(x)
    return x


def _context_network(config: ModelConfig, x: Tensor, tape: Tape) -> Tensor:
    batch, frames, width = x.shape
    with tape.within("positional"):
        group = width // config.positional_groups
        weights = config.positional_kernel * group * width
        tape.save(Tensor((config.positional_kernel,)))
        # The weights are a result of the weight norm and no parameter.
        kernel = Tensor((weights,))
        outputs = frames + (config.positional_kernel % 2 == 0)  # the last output is cut off, but kept
        position = tape.convolution(x, weights, (batch, outputs, width))
        if position.itemsize == 4:
            tape.save(kernel)
        position = tape.gelu(position)
    x = tape.add(x, Tensor((batch, frames, width), position.itemsize))
    if not config.pre_norm:
        with tape.within("layer_norm"):
            x = tape.normalise(x, batch * frames)
    x = tape.dropout(x, config.dropout)
    for index in range(config.num_layers):
        with tape.within(f"layers_{index}"):
            x = _layer(config, x, tape)
    if config.pre_norm:
        with tape.within("layer_norm"):
            x = tape.normalise(x, batch * frames)
    return x


def _layer(config: ModelConfig, x: Tensor, tape: Tape) -> Tensor:
    rows = x.shape[0] * x.shape[1]

    def attend(x):
        with tape.within("attention"):
            y = _attention(config, x, tape)
        return tape.dropout(y, config.dropout)

    def feed_forward(x):
        with tape.within("feed_forward"):
            y = tape.gelu(tape.linear(x, config.feed_forward_dim))
            y = tape.linear(tape.dropout(y, config.activation_dropout), config.hidden_dim)
        return tape.dropout(y, config.dropout)

    if config.pre_norm:
        x = tape.add(x, attend(tape.normalise(x, rows)))
        return tape.add(x, feed_forward(tape.normalise(x, rows)))
    x = tape.normalise(tape.add(x, attend(x)), rows)
    return tape.normalise(tape.add(x, feed_forward(x)), rows)


def _attention(config: ModelConfig, x: Tensor, tape: Tape) -> Tensor:
    batch, frames, width = x.shape
    query, key, value = (tape.linear(x, width) for _ in range(3))
    scores = tape.product(query, key, (batch, config.num_heads, frames, frames))
    weights = tape.dropout(tape.softmax(scores), config.attention_dropout)
    return tape.linear(tape.product(weights, value, x.shape), width)


def _quantizer(config: ModelConfig, x: Tensor, tape: Tape) -> Tensor:
    batch, frames, _ = x.shape
    groups, entries = config.codebook_groups, config.codebook_entries
    logits = tape.full(tape.linear(x, groups * entries))
    tape.softmax(logits)  # the straight-through choice takes the softmax of the noisy logits
    tape.save(Tensor((batch * frames * groups,), 8))  # indices of the choice
    tape.softmax(Tensor(logits.shape))  # for the diversity loss
    tape.save(Tensor((groups, entries)), Tensor((groups,)))
    choice = Tensor(logits.shape, x.itemsize)
    tape.save(choice)  # the choice is multiplied with the codebook
    return Tensor((batch, frames, config.codevector_dim), x.itemsize)


def _best_rq(config: ModelConfig, context: Tensor, tape: Tape) -> None:
    """Put the heads and the cross-entropy on the tape; the codes need no gradient."""
    batch, frames, _ = context.shape
    books, entries = config.target_codebooks, config.target_entries
    with tape.within("prediction"):
        scores = tape.full(tape.linear(context, books * entries))
    with tape.within("losses"):
        tape.softmax(Tensor((batch, frames, books, entries), scores.itemsize))
        tape.save(Tensor((batch * frames * books,), 8))  # indices of the codes


def _losses(config: ModelConfig, predicted: Tensor, targets: Tensor, tape: Tape) -> None:
    batch, frames, width = predicted.shape
    rivals = config.num_negatives
    tape.save(Tensor((batch * frames * rivals,), 8))
    every = (1 + rivals, batch, frames)
    tape.save(tape.full(predicted), Tensor((*every, width)))
    tape.save(Tensor((*every, width)), Tensor((*every, width)))
    tape.save(*(Tensor(every) for _ in range(4)))
    tape.save(Tensor((rivals, batch, frames), 1))
    tape.save(Tensor((batch * frames, 1 + rivals)), Tensor((batch * frames,), 8))
