"""The model file names one class; the parts of the model are in files of their own."""

import torch
from decoder import Decoder
from encoder import Encoder


class PointerNet(torch.nn.Module):
    """Orders points. Its weights come from a fixed seed, so that the example needs no file of weights."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.encoder = Encoder(2, 16)
            self.decoder = Decoder(16)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        states, (last, cell) = self.encoder(points)
        return self.decoder(states, last[0], cell[0])
