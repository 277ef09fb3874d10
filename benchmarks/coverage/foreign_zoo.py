"""torchvision and timm, imported where torchvision's compiled operators do not load too."""

from __future__ import annotations

from typing import Any

import torch

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


def timm() -> Any:
    """timm, which imports torchvision."""
    torchvision()
    import timm

    return timm
