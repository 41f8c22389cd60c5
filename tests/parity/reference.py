"""transformers' Wav2Vec2ForPreTraining with every random choice given from outside."""

import numpy as np
import torch
import transformers

from w2v_jax.config import ModelConfig


def transformers_config(config: ModelConfig) -> transformers.Wav2Vec2Config:
    """The same architecture, without dropout of any kind."""
    return transformers.Wav2Vec2Config(
        conv_dim=list(config.conv_channels),
        conv_kernel=list(config.conv_kernels),
        conv_stride=list(config.conv_strides),
        conv_bias=config.conv_bias,
        feat_extract_norm=config.feature_norm,
        num_feat_extract_layers=len(config.conv_channels),
        hidden_size=config.hidden_dim,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        intermediate_size=config.feed_forward_dim,
        num_conv_pos_embeddings=config.positional_kernel,
        num_conv_pos_embedding_groups=config.positional_groups,
        do_stable_layer_norm=config.pre_norm,
        num_codevector_groups=config.codebook_groups,
        num_codevectors_per_group=config.codebook_entries,
        codevector_dim=config.codevector_dim,
        proj_codevector_dim=config.projection_dim,
        num_negatives=config.num_negatives,
        contrastive_logits_temperature=config.contrastive_temperature,
        diversity_loss_weight=config.diversity_weight,
        mask_time_length=config.mask_span,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
        feat_quantizer_dropout=0.0,
        layerdrop=0.0,
        attn_implementation="eager",
    )


def make_inputs(config: ModelConfig, num_samples: list[int], seed: int) -> dict[str, np.ndarray]:
    """Waveforms, masks, negatives and noise, drawn with NumPy."""
    rng = np.random.default_rng(seed)
    batch, time = len(num_samples), max(num_samples)
    frames = config.num_frames(time)
    waveform = np.zeros((batch, time), np.float32)
    mask = np.zeros((batch, frames), bool)
    negatives = np.zeros((batch, frames, config.num_negatives), np.int32)
    for row, length in enumerate(num_samples):
        waveform[row, :length] = rng.standard_normal(length).astype(np.float32) * 0.3
        valid = config.num_frames(length)
        mask[row, rng.permutation(valid)[: valid // 2]] = True
        masked = np.flatnonzero(mask[row])
        for frame in masked:
            negatives[row, frame] = rng.choice(masked[masked != frame], config.num_negatives)
    shape = (batch, frames, config.codebook_groups, config.codebook_entries)
    return {
        "waveform": waveform,
        "num_samples": np.array(num_samples, np.int32),
        "mask": mask,
        "negatives": negatives,
        "noise": rng.gumbel(size=shape).astype(np.float32),
        "temperature": np.float32(1.7),
    }


def random_model(config: ModelConfig, seed: int) -> transformers.Wav2Vec2ForPreTraining:
    """Random weights; norms and biases too, so that none of them is trivially one or zero."""
    torch.manual_seed(seed)
    model = transformers.Wav2Vec2ForPreTraining(transformers_config(config)).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                parameter.copy_(centre + 0.2 * torch.randn_like(parameter))
    return model


def run(config: ModelConfig, model, inputs: dict[str, np.ndarray]) -> tuple[dict, dict, dict]:
    """(named intermediates, losses, gradients by transformers' names), as NumPy arrays."""
    batch, frames = inputs["mask"].shape
    seen: dict[str, torch.Tensor] = {}
    handles = []

    def watch(module, name, pick=lambda out: out):
        handles.append(
            module.register_forward_hook(lambda m, i, out: seen.__setitem__(name, pick(out).detach().clone()))
        )

    for index, layer in enumerate(model.wav2vec2.feature_extractor.conv_layers):
        watch(layer, f"conv_layers_{index}", lambda out: out.transpose(1, 2))
    watch(model.wav2vec2.feature_projection, "projected", lambda out: out[0])
    watch(model.wav2vec2.feature_projection.layer_norm, "features_normed")
    watch(model.wav2vec2.encoder.pos_conv_embed, "positional")
    for index, layer in enumerate(model.wav2vec2.encoder.layers):
        watch(layer, f"hidden_layers_{index}", lambda out: out[0] if isinstance(out, tuple) else out)
    watch(model.wav2vec2.encoder, "context", lambda out: out.last_hidden_state)
    watch(model.quantizer, "quantized", lambda out: out[0])
    watch(model.project_hid, "context_projection")
    watch(model.project_q, "quantized_projection")

    def gumbel_softmax(logits, tau, hard):
        noise = torch.tensor(inputs["noise"]).reshape(logits.shape)
        soft = torch.softmax((logits + noise) / tau, dim=-1)
        one_hot = torch.nn.functional.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft)
        return one_hot - soft.detach() + soft

    model.quantizer.temperature = float(inputs["temperature"])
    flat = inputs["negatives"] + np.arange(batch)[:, None, None] * frames
    valid = np.arange(inputs["waveform"].shape[1])[None] < inputs["num_samples"][:, None]
    original = torch.nn.functional.gumbel_softmax
    torch.nn.functional.gumbel_softmax = gumbel_softmax
    try:
        out = model(
            torch.tensor(inputs["waveform"]),
            attention_mask=torch.tensor(valid.astype(np.int64)),
            mask_time_indices=torch.tensor(inputs["mask"]),
            sampled_negative_indices=torch.tensor(flat),
        )
    finally:
        torch.nn.functional.gumbel_softmax = original
        for handle in handles:
            handle.remove()
    masked = int(inputs["mask"].sum())
    model.zero_grad()
    (out.loss / masked).backward()
    losses = {
        "loss": float(out.loss.detach()) / masked,
        "contrastive": float(out.contrastive_loss.detach()) / masked,
        "diversity": float(out.diversity_loss.detach()) / masked,
        "prob_perplexity": float(out.codevector_perplexity.detach()),
    }
    gradients = {
        name: np.zeros(tuple(p.shape), np.float32) if p.grad is None else p.grad.numpy().copy()
        for name, p in model.named_parameters()
    }
    return {name: value.detach().numpy().copy() for name, value in seen.items()}, losses, gradients
