"""A network of your own: a function that builds it, and a search over its hyperparameters.

    python own_network.py
    sweep --arch own_network.py:build --trials 10 --data my_folder

The project executes this file in every process that trains, so what only the search needs stands below.
"""

from torch import Tensor, nn

IMAGE_SIZE, MEAN, STD = 64, 0.5, 0.25  # optional: pixels a side; mean and deviation of pixels from 0 to 1
ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "gelu": nn.GELU, "silu": nn.SiLU}


class Residual(nn.Module):
    """Two convolutions whose result is added to their input."""

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            ACTIVATIONS[activation](),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
        )
        self.activation = ACTIVATIONS[activation]()

    def forward(self, images: Tensor) -> Tensor:
        """Float [N, channels, H, W] to the same shape."""
        return self.activation(images + self.layers(images))


def build(activation: str, dropout: float, classes: int, image_size: int) -> nn.Module:
    """Builds a network from float [N, 1, image_size, image_size] to logits [N, classes]."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2),
        Residual(16, activation),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        Residual(32, activation),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(32, classes),
    )


if __name__ == "__main__":
    import sweep

    space = {"activation": ["relu", "silu"], "learning_rate": sweep.Range(3e-3, 1e-2, log=True)}
    fix = {"optimizer": "adam", "batch_size": 16, "dropout": 0.1}
    print(sweep.search(__file__, trials=2, space=space, fix=fix, image_size=32, limit=240, epochs=3, workers=1))
