"""Reads a sequence of points."""

import torch


class Encoder(torch.nn.Module):
    """From points to one state for each, and one for all."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(inputs, hidden)
        self.read = torch.nn.LSTM(hidden, hidden, batch_first=True)

    def forward(self, points: torch.Tensor):
        return self.read(self.embed(points))
