"""torchvision's detection models as plain networks: backbone and heads, without boxes being selected.

A full detection model selects boxes by non-maximum suppression between its heads; how many there are depends
on the data, which torch.export refuses. Every weight of it is in the networks built here.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class SingleStage(nn.Module):
    """SSD, RetinaNet, FCOS. Given: images [n, 3, h, w]. Result: the raw outputs of the heads, by name."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.head = model.head

    def forward(self, images: Tensor) -> Any:
        return self.head(list(self.backbone(images).values()))


class TwoStage(nn.Module):
    """Faster, Mask and Keypoint R-CNN. Given: images [n, 3, h, w]. Result: raw outputs by head.

    The heads of the second stage see the whole image as their one region: in place of RoI align, which moves
    no channel, the finest feature map is pooled to the size that the head takes.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.rpn_head = model.rpn.head
        heads = model.roi_heads
        self.parts = nn.ModuleDict()
        self.sides: dict[str, int] = {}
        for name in ("box", "mask", "keypoint"):
            pool = getattr(heads, f"{name}_roi_pool", None)
            if pool is not None:
                self.sides[name] = pool.output_size[0]
                parts = (getattr(heads, f"{name}_head"), getattr(heads, f"{name}_predictor"))
                self.parts[name] = nn.Sequential(*parts)

    def forward(self, images: Tensor) -> dict[str, Any]:
        features = list(self.backbone(images).values())
        found: dict[str, Any] = {"proposals": self.rpn_head(features)}
        for name, part in self.parts.items():
            found[name] = part(functional.adaptive_avg_pool2d(features[0], self.sides[name]))
        return found


def without_selection(model: nn.Module) -> nn.Module:
    """Backbone and heads of a torchvision detection model, sharing its parameters."""
    return TwoStage(model) if hasattr(model, "roi_heads") else SingleStage(model)
