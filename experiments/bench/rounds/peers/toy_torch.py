"""The toy model in torch."""

import torch
from torch.nn import functional as F

from experiments.bench.rounds.peers import toy


class Toy(torch.nn.Module):
    """The model with the parameters of toy.parameters(); `loss` is the mean squared error of a batch."""

    def __init__(self, parameters):
        super().__init__()
        self.held = torch.nn.ParameterDict({name: torch.tensor(value) for name, value in parameters.items()})

    def loss(self, batch):
        held = self.held
        x = batch["waveform"][:, None]
        for index, (_, stride) in enumerate(toy.CONVOLUTIONS):
            x = F.gelu(F.conv1d(x, held[f"conv{index}"].permute(2, 1, 0), stride=stride))
        x = x.transpose(1, 2)
        for layer in range(toy.LAYERS):
            y = F.layer_norm(x, (toy.DIM,), eps=1e-5)
            query, key, value = (
                (y @ held[f"{name}{layer}"]).unflatten(-1, (toy.HEADS, -1)).transpose(1, 2)
                for name in ("query", "key", "value")
            )
            mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(-2)
            x = x + mixed @ held[f"out{layer}"]
            x = x + F.gelu(F.layer_norm(x, (toy.DIM,), eps=1e-5) @ held[f"up{layer}"]) @ held[f"down{layer}"]
        error = F.layer_norm(x, (toy.DIM,), eps=1e-5) @ held["head"] - batch["target"]
        return error.square().mean()
