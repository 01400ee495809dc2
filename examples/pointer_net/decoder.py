"""Puts elements into an order, one after the other."""

import torch
from attention import Pointer


class Decoder(torch.nn.Module):
    """Takes the element that the pointer chooses, until none is left."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.step = torch.nn.LSTMCell(hidden, hidden)
        self.pointer = Pointer(hidden)

    def forward(self, states: torch.Tensor, last: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        batch, length, _ = states.shape
        taken = torch.zeros(batch, length, dtype=torch.bool)
        rows = torch.arange(batch)
        chosen = states[:, 0]
        order = []
        for _ in range(length):
            last, cell = self.step(chosen, (last, cell))
            best = self.pointer(last, states, taken)
            taken = taken.clone()
            taken[rows, best] = True
            chosen = states[rows, best]
            order.append(best)
        return torch.stack(order, dim=1)
