"""Orders jobs by a greedy rule: the job whose time is up first goes first. There is nothing to learn, so no
weights.
"""

import torch


class GreedyTime(torch.nn.Module):
    """From what each job needs, and when each may start, to the order of the jobs."""

    def forward(self, time_need: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        return torch.argsort(start + time_need, dim=-1)
