"""The networks of the benchmark: names by family, and how to build one without downloading anything."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

FAMILIES = ("torchvision",)
SIDE_PX = 224
_SIDES_PX = {"inception_v3": 299, "swin_v2_t": 256, "swin_v2_s": 256, "swin_v2_b": 256}
_AUXILIARY = ("googlenet", "inception_v3")
NOT_EXPORTABLE = (
    "full detection models do not export (data-dependent NMS); a backbone wrapper is not written yet"
)
_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor",
    "roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) "
    "-> (Tensor, Tensor)",
    "ps_roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio) -> (Tensor, Tensor)",
    "ps_roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) "
    "-> (Tensor, Tensor)",
    "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, "
    "SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, "
    "SymInt offset_groups, bool use_mask) -> Tensor",
    *(f"_{name}_backward(Tensor a) -> Tensor" for name in ("roi_align", "roi_pool", "ps_roi_align")),
    "_ps_roi_pool_backward(Tensor a) -> Tensor",
    "_deform_conv2d_backward(Tensor a) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_declared: list[Any] = []


def torchvision() -> Any:
    """torchvision; where its compiled operators do not load, with these declared but not implemented."""
    try:
        import torchvision.models

        return torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        _declared.append(library)
        for operator in _OPERATORS:
            library.define(operator)
        import torchvision.models

        return torchvision


def names(family: str) -> dict[str, str]:
    """Every network of a family; the value says why one cannot be run, empty where it can."""
    assert family == "torchvision", family
    models = torchvision().models
    runnable = [*models.list_models(module=models), *models.list_models(module=models.segmentation)]
    detection = models.list_models(module=models.detection)
    return {**dict.fromkeys(runnable, ""), **dict.fromkeys(detection, NOT_EXPORTABLE)}


def build(name: str, *, seed: int = 0) -> tuple[nn.Module, tuple[int, ...]]:
    """The network in eval mode with random weights and statistics, and the shape of one input."""
    torch.manual_seed(seed)
    module = _made(name).eval()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    with torch.no_grad():
        for parameter in module.parameters():
            # Constant tensors (ones, zeros, layer scale) would hide a wrong choice of positions.
            if parameter.numel() > 1 and float(parameter.min()) == float(parameter.max()):
                parameter.add_(torch.randn_like(parameter) * 0.3)
    side = _SIDES_PX.get(name, SIDE_PX)
    return module, (3, side, side)


def parameter_count(name: str) -> int:
    """The number of parameters that torchvision itself states for the network."""
    weights = torchvision().models.get_model_weights(name)
    return int(next(iter(weights)).meta["num_params"])


def _made(name: str) -> nn.Module:
    models = torchvision().models
    options: dict[str, Any] = {"weights": None}
    if name in models.list_models(module=models.segmentation):
        options["weights_backbone"] = None
    if name in _AUXILIARY:
        options["init_weights"] = False
    module: nn.Module = models.get_model(name, **options)
    return module
