"""wav2vec 2.0's loss by transformers; each batch holds every random choice."""

import threading

import torch
import transformers
from torch.nn import functional as F

from experiments.bench.rounds.peers.protocol import Work

_noise = threading.local()  # of the step that runs in a thread


def _gumbel_softmax(logits, tau, hard):
    soft = torch.softmax((logits + _noise.held.reshape(logits.shape)) / tau, dim=-1)
    one_hot = F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft)
    return one_hot - soft.detach() + soft


class Tiny(torch.nn.Module):
    """transformers' Wav2Vec2ForPreTraining; `loss` is per masked frame."""

    def __init__(self, work: Work):
        super().__init__()
        config = work.config
        self.temperature = float(config["gumbel_temperature_start"])
        self.held = transformers.Wav2Vec2ForPreTraining(configuration(config)).train()
        held = {name: torch.tensor(value) for name, value in work.parameters.items()}
        missing = self.held.load_state_dict(held, strict=False)
        assert not missing.unexpected_keys, missing
        assert set(missing.missing_keys) <= {"wav2vec2.masked_spec_embed"} - set(held), missing
        F.gumbel_softmax = _gumbel_softmax

    def loss(self, batch):
        _noise.held = batch["noise"]
        self.held.quantizer.temperature = self.temperature
        rows, frames = batch["mask"].shape
        offsets = torch.arange(rows, device=batch["mask"].device)[:, None, None] * frames
        out = self.held(
            batch["waveform"],
            mask_time_indices=batch["mask"].bool(),
            sampled_negative_indices=batch["negatives"].long() + offsets,
        )
        return out.loss / batch["mask"].sum()


def configuration(config):
    """Build transformers' configuration of the same architecture, without dropout of any kind."""
    return transformers.Wav2Vec2Config(
        conv_dim=list(config["conv_channels"]),
        conv_kernel=list(config["conv_kernels"]),
        conv_stride=list(config["conv_strides"]),
        conv_bias=config["conv_bias"],
        feat_extract_norm=config["feature_norm"],
        num_feat_extract_layers=len(config["conv_channels"]),
        hidden_size=config["hidden_dim"],
        num_hidden_layers=config["num_layers"],
        num_attention_heads=config["num_heads"],
        intermediate_size=config["feed_forward_dim"],
        num_conv_pos_embeddings=config["positional_kernel"],
        num_conv_pos_embedding_groups=config["positional_groups"],
        do_stable_layer_norm=config["pre_norm"],
        num_codevector_groups=config["codebook_groups"],
        num_codevectors_per_group=config["codebook_entries"],
        codevector_dim=config["codevector_dim"],
        proj_codevector_dim=config["projection_dim"],
        num_negatives=config["num_negatives"],
        contrastive_logits_temperature=config["contrastive_temperature"],
        diversity_loss_weight=config["diversity_weight"],
        mask_time_length=config["mask_span"],
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
        feat_quantizer_dropout=0.0,
        layerdrop=0.0,
    )
