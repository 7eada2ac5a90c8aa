"""AlexNet of 2012, as published: Krizhevsky, Sutskever & Hinton, ImageNet classification with deep convolutional neural networks.

Section 3.5 and figure 2: five convolutions of 96-256-384-384-256 filters, two fully connected layers of 4096, a classifier.
Response normalisation after the first and second convolution's ReLU (3.3), pooling 3×3 at stride 2 after them and after the
fifth convolution (3.4), dropout 0.5 on the outputs of the two hidden layers (4.2; torchvision applies it to their inputs).

`groups=2` is the network on two GPUs: the second, fourth and fifth convolution see only the maps on their own GPU; 60,965,224
parameters at 1000 classes. `groups=1` lets every kernel see every map: 62,378,344. torchvision's `alexnet` is another network
(64-192-384-256-256, no response normalisation; arXiv 1404.5997).

At stride 4, the paper's 224-pixel image does not give the 55×55 first map that the paper states; two pixels of padding do, and
change no parameter count. For other sides, which the paper does not use, the last map is averaged to 6×6; at 224 pixels that
average is the identity.

Left out: the two GPUs themselves. The response normalisation runs across all maps, as in the merged figure.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HIDDEN_UNITS = 4096


class ResponseNorm(nn.Module):
    """Local response normalisation, section 3.3: b_i = a_i / (k + α Σ_j a_j²)^β over the n maps around i at the same place.

    torch's LocalResponseNorm divides α by n, which the paper does not.
    """

    def __init__(self, n: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75) -> None:
        super().__init__()
        self.n, self.k, self.alpha, self.beta = n, k, alpha, beta

    def forward(self, a: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        return F.local_response_norm(a, self.n, alpha=self.alpha * self.n, beta=self.beta, k=self.k)


class AlexNet2012(nn.Module):
    """(B, 3, 224, 224) → (B, num_classes); accepts any side of at least 63 pixels.

    groups: 1, or 2 as on the paper's two GPUs; num_classes: 1000 in the paper
    """

    def __init__(self, groups: int = 1, num_classes: int = 1000) -> None:
        super().__init__()
        if groups not in (1, 2):
            raise ValueError(f"groups is {groups}; AlexNet has 1, or the 2 of the paper")
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 11, stride=4, padding=2),  # 96 × 55 × 55
            nn.ReLU(inplace=True),
            ResponseNorm(),
            nn.MaxPool2d(3, stride=2),  # 96 × 27 × 27
            nn.Conv2d(96, 256, 5, padding=2, groups=groups),
            nn.ReLU(inplace=True),
            ResponseNorm(),
            nn.MaxPool2d(3, stride=2),  # 256 × 13 × 13
            nn.Conv2d(256, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 384, 3, padding=1, groups=groups),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1, groups=groups),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),  # 256 × 6 × 6
            nn.AdaptiveAvgPool2d(6),
        )
        self.classifier = nn.Sequential(
            nn.Linear(256 * 6 * 6, HIDDEN_UNITS),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(HIDDEN_UNITS, HIDDEN_UNITS),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(HIDDEN_UNITS, num_classes),
        )
        self._init_weights()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return logits

    def _init_weights(self) -> None:
        """Section 5: weights from N(0, 0.01²); biases 1 in convolutions two, four and five and in the hidden layers, else 0."""
        convolutions = [m for m in self.features if isinstance(m, nn.Conv2d)]
        linears = [m for m in self.classifier if isinstance(m, nn.Linear)]
        ones = {convolutions[1], convolutions[3], convolutions[4], *linears[:2]}
        layers: list[nn.Conv2d | nn.Linear] = [*convolutions, *linears]
        for layer in layers:
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, 1.0 if layer in ones else 0.0)
