"""Makes model.pt: y = 2 * x0 + 3 * x1 + 1. Needs `pip install torch`; replace it by the script of your own model."""

import torch


class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[2.0, 3.0]]))
            self.linear.bias.fill_(1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


if __name__ == "__main__":
    torch.jit.script(Linear().eval()).save("model.pt")
