"""What torch keeps for the backward pass of transformers' model: the live measurement behind `autograd`."""

import dataclasses

import numpy as np
import torch
import transformers

from tests.parity.reference import make_inputs, transformers_config
from w2v_jax.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Saved:
    """A storage that the graph holds: the module it was first saved in, and its bytes."""

    module: str
    shape: tuple[int, ...]
    bytes: int
    saved_by: str


def measure(config: ModelConfig, batch: int, samples: int, autocast: bool = False) -> list[Saved]:
    """Storages that one forward pass in training saves, parameters apart, with the config's dropouts."""
    settings = transformers_config(config)
    settings.hidden_dropout = config.dropout
    settings.attention_dropout = config.attention_dropout
    settings.activation_dropout = config.activation_dropout
    settings.feat_proj_dropout = config.input_dropout
    settings.feat_quantizer_dropout = config.feature_dropout
    torch.manual_seed(0)
    model = transformers.Wav2Vec2ForPreTraining(settings).train()
    inputs = make_inputs(config, [samples] * batch, 0)
    frames = inputs["mask"].shape[1]
    flat = inputs["negatives"] + np.arange(batch)[:, None, None] * frames
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    stack: list[str] = []
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda m, i, name=name: stack.append(name)))
        handles.append(module.register_forward_hook(lambda m, i, o: (stack.pop(), None)[1]))
    found: dict[int, Saved] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place not in own and place not in found and storage.nbytes():
            found[place] = Saved(
                stack[-1] if stack else "", tuple(tensor.shape), storage.nbytes(), str(tensor.dtype)
            )
        held.append(tensor)
        return tensor

    held: list[torch.Tensor] = []  # else a freed storage's address could be met again
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        model(
            torch.tensor(inputs["waveform"]),
            mask_time_indices=torch.tensor(inputs["mask"]),
            sampled_negative_indices=torch.tensor(flat),
        )
    for handle in handles:
        handle.remove()
    return list(found.values())
