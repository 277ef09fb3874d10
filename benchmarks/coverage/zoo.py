"""The networks of the benchmark: names by family, and how to build one without downloading anything.

torchvision: all classifiers, segmentation networks, and detection models as backbone and heads.
timm:        small members of families that torchvision lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from benchmarks.coverage import foreign_zoo
from benchmarks.coverage.detection import without_selection

FAMILIES = ("torchvision", "timm")
SIDE_PX = 224
SMALL_PX = 64
"""Side of the images that networks are compared on, where the network does not ask for more."""

_SIDES_PX = {"inception_v3": 299, "swin_v2_t": 256, "swin_v2_s": 256, "swin_v2_b": 256, "ssd300_vgg16": 300}
_SMALL_PX = {
    "inception_v3": 96,
    "maxvit_t": 224,
    "swin": 112,
    "swin_v2": 128,
    "vit_b_32": 128,
    "vit_l_32": 128,
    "vit_h_14": 56,
    "ssd300_vgg16": 300,
    "ssdlite320": 128,
    "fasterrcnn": 112,
    "keypointrcnn": 112,
    "maskrcnn": 112,
    "coat": 224,
    "davit": 112,
    "efficientformer": 224,
    "levit": 224,
    "mobilenetv4_hybrid": 128,
}
"""By name or by its beginning; the longest that fits counts."""

_AUXILIARY = ("googlenet", "inception_v3")
_TIMM = (
    "convnextv2_atto",
    "convnextv2_pico",
    "efficientnetv2_rw_t",
    "tf_efficientnetv2_b0",
    "mobilenetv4_conv_small",
    "mobilenetv4_hybrid_medium",
    "repvgg_a0",
    "repvgg_b1g4",
    "efficientformer_l1",
    "efficientformerv2_s0",
    "fastvit_t8",
    "fastvit_sa12",
    "mobileone_s0",
    "mobileone_s4",
    "nfnet_l0",
    "dm_nfnet_f0",
    "eca_nfnet_l0",
    "ecaresnet26t",
    "seresnet18",
    "seresnext26d_32x4d",
    "cbam_resnet26",
    "poolformer_s12",
    "poolformerv2_s12",
    "edgenext_xx_small",
    "edgenext_small",
    "levit_128s",
    "levit_conv_128s",
    "mobilevit_xxs",
    "mobilevitv2_050",
    "davit_tiny",
    "coat_tiny",
    "coat_lite_tiny",
    "coatnet_nano_rw_224",
    "coatnext_nano_rw_224",
    "ghostnetv2_100",
    "res2net50_26w_4s",
    "resnest14d",
    "skresnet18",
    "dpn68",
    "rexnet_100",
    "cspresnet50",
)
_WITH_OPTIONS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "cbam_resnet26": ("resnet26", {"block_args": {"attn_layer": "cbam"}}),
}


def names(family: str) -> tuple[str, ...]:
    """Every network of a family."""
    if family == "timm":
        return _TIMM
    assert family == "torchvision", family
    models = foreign_zoo.torchvision().models
    rooms = (models, models.segmentation, models.detection)
    return tuple(name for room in rooms for name in models.list_models(module=room))


def build(name: str, *, side_px: int = 0, seed: int = 0) -> tuple[nn.Module, tuple[int, ...]]:
    """The network in eval mode with random weights and statistics, and the shape of one input.

    `side_px` is the side of its images; 0 is what the network is made for. Detection models come as backbone
    and heads. A vision transformer for another side has position embeddings for that side.
    """
    torch.manual_seed(seed)
    side = side_px or own_side_px(name)
    module = (_from_timm if name in _TIMM else _from_torchvision)(name, side).eval()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    with torch.no_grad():
        for parameter in module.parameters():
            # Constant tensors (ones, zeros, layer scale) would hide a wrong choice of positions.
            if parameter.numel() > 1 and float(parameter.min()) == float(parameter.max()):
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return module, (3, side, side)


def own_side_px(name: str) -> int:
    """The side of the images that the network is made for."""
    if name in _TIMM:
        base = _WITH_OPTIONS.get(name, (name, {}))[0]
        return int(foreign_zoo.timm().models.get_pretrained_cfg(base, allow_unregistered=True).input_size[-1])
    return _SIDES_PX.get(name, SIDE_PX)


def small_side_px(name: str) -> int:
    """A side that the network takes and that is quick to compute on in float64."""
    known = [start for start in _SMALL_PX if name.startswith(start)]
    return _SMALL_PX[max(known, key=len)] if known else SMALL_PX


def parameter_count(name: str) -> int:
    """The number of parameters: as torchvision states it, or counted without memory for them."""
    if name not in _TIMM:
        weights = foreign_zoo.torchvision().models.get_model_weights(name)
        return int(next(iter(weights)).meta["num_params"])
    with torch.device("meta"):
        module = _from_timm(name, own_side_px(name))
    return sum(parameter.numel() for parameter in module.parameters())


def _from_torchvision(name: str, side: int) -> nn.Module:
    models = foreign_zoo.torchvision().models
    detection = name in models.list_models(module=models.detection)
    options: dict[str, Any] = {"weights": None}
    if detection or name in models.list_models(module=models.segmentation):
        options["weights_backbone"] = None
    if name in _AUXILIARY:
        options["init_weights"] = False
    if name.startswith("vit_"):
        options["image_size"] = side
    module: nn.Module = models.get_model(name, **options)
    return without_selection(module) if detection else module


def whole_detector(name: str) -> nn.Module | None:
    """A detection model with its selection of boxes; None for other networks."""
    if name in _TIMM:
        return None
    models = foreign_zoo.torchvision().models
    if name not in models.list_models(module=models.detection):
        return None
    module: nn.Module = models.get_model(name, weights=None, weights_backbone=None)
    return module.eval()


def _from_timm(name: str, side: int) -> nn.Module:
    base, options = _WITH_OPTIONS.get(name, (name, {}))
    module: nn.Module = foreign_zoo.timm().create_model(base, pretrained=False, **options)
    return module
