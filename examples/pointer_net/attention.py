"""Points at one element of a sequence."""

import torch


class Glimpse(torch.nn.Module):
    """How well each element fits a query."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.query = torch.nn.Linear(hidden, hidden, bias=False)
        self.key = torch.nn.Linear(hidden, hidden, bias=False)

    def forward(self, query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return (torch.tanh(self.query(query).unsqueeze(1) + self.key(keys))).sum(dim=-1)


class Pointer(torch.nn.Module):
    """The element that fits best among those that are left."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.glimpse = Glimpse(hidden)

    def forward(self, query: torch.Tensor, keys: torch.Tensor, taken: torch.Tensor) -> torch.Tensor:
        return self.glimpse(query, keys).masked_fill(taken, float("-inf")).argmax(dim=-1)
