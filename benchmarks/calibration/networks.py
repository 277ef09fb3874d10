"""Names of published tables -> networks from the public definitions, and the family each belongs to."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from benchmarks.calibration import classics
from benchmarks.coverage.foreign_zoo import torchvision
from toolchain.latency.operators import Operator, operators
from toolchain.program.capture import capture

Key = str
"""`name@side` (or `name@HxW`): one network at one input size."""

_FAMILIES: Final = (
    "mobilenet_v1", "mobilenet_v2", "mobilenet_v3", "efficientnet_lite", "mnasnet_a1", "mnasnet",
    "efficientnet", "resnet", "vgg", "densenet", "squeezenet", "shufflenet", "alexnet", "repvit",
    "swiftformer", "mobileclip_text", "mci", "vit", "efficientvit", "mobilevitv2", "ghostnet",
    "googlenet", "regnet", "inception", "mobilenet_ssd",
)  # fmt: skip


def family(key: Key) -> str:
    """The family of a network: what is left out together when generalisation is judged."""
    if key.startswith("text_"):
        return "mobileclip_text"
    return max((f for f in _FAMILIES if key.startswith(f)), key=len, default=key.split("@")[0])


def architecture(key: Key) -> str:
    """The network without its input size; batch norm, which is folded, makes no other network."""
    return key.split("@")[0].removesuffix("_bn")


def canonical(model: str, size: str) -> Key | None:
    """The key of a row's model name and input; None where there is no public definition at hand."""
    name = model.strip().lower().replace("-", "_")
    sides = next(iter(re.findall(r"(\d+)x(\d+)", size)), ("224", "224"))
    side = sides[0] if sides[0] == sides[1] else "x".join(sides)
    for pattern, make in _NAMES:
        found = re.fullmatch(pattern, name)
        if found:
            return make(found, side)
    return None


def _same(target: str) -> Callable[[re.Match[str], str], Key]:
    return lambda found, side: f"{target}@{side}"


def _size(found: re.Match[str], prefix: str) -> Key:
    width, side = found.group("w"), found.group("s")
    number = float(width) / (100 if "." not in width and float(width) > 10 else 1)
    return f"{prefix}:{number:g}@{side}"


_MCI: Final = {"s0": "0", "s1": "1", "s2": "2", "s3": "3", "s4": "4"}
_PLAIN: Final = (
    "alexnet|densenet121|densenet161|densenet169|densenet201|mnasnet0_5|mnasnet0_75|mnasnet1_0|mnasnet1_3|"
    "resnet18|resnet34|resnet50|resnet101|resnet152|shufflenet_v2_x0_5|shufflenet_v2_x1_0|shufflenet_v2_x1_5|"
    "shufflenet_v2_x2_0|squeezenet1_0|squeezenet1_1|vgg11|vgg11_bn|vgg13|vgg13_bn|vgg16|vgg16_bn|vgg19|"
    "vgg19_bn|googlenet|mobilenet_v2|efficientnet_b0|inception_v3"
)
_NAMES: Final[tuple[tuple[str, Callable[[re.Match[str], str], Key]], ...]] = (
    (r"mobilenet_v1_(?P<w>[\d.]+)_(?P<s>\d+)", lambda f, s: _size(f, "mobilenet_v1")),
    (r"mobilenet_v2_(?P<w>[\d.]+)_(?P<s>\d+)", lambda f, s: _size(f, "mobilenet_v2")),
    (r"mobilenetv2_(?P<s>\d+)_(?P<w>\d+)", lambda f, s: _size(f, "mobilenet_v2")),
    (r"mobilenetv(?P<v>[12])_x(?P<a>\d)_(?P<b>\d+)(_ssld)?",
     lambda f, s: f"mobilenet_v{f['v']}:{float(f['a'] + '.' + f['b']):g}@{s}"),
    (r"mobilenetv(?P<v>[12])(_ssld|_1.0)?", lambda f, s: f"mobilenet_v{f['v']}:1@{s}"),
    (r"mobilenet_v(?P<v>[12]) 1.0x", lambda f, s: f"mobilenet_v{f['v']}:1@{s}"),
    (r"mobilenetv3_(?P<z>large|small)_x(?P<a>\d)_(?P<b>\d+)(_ssld)?",
     lambda f, s: f"mobilenet_v3_{f['z']}:{float(f['a'] + '.' + f['b']):g}@{s}"),
    (r"mobilenet_v3_(?P<z>large|small)_(?P<w>[\d.]+)_(?P<s>\d+)",
     lambda f, s: _size(f, f"mobilenet_v3_{f['z']}")),
    (r"v3_(?P<z>large|small)_(?P<s>\d+)_(?P<w>\d+)", lambda f, s: _size(f, f"mobilenet_v3_{f['z']}")),
    (r"(mobilenet_)?v3_(?P<z>large|small)_minimalistic_(1.0_224|224_100)",
     lambda f, s: f"mobilenet_v3_{f['z']}_minimal@{s}"),
    (r"mobilenet v3 (?P<z>large|small)", lambda f, s: f"mobilenet_v3_{f['z']}:1@{s}"),
    (r"mobilenet v(?P<v>[12]) 1.0x", lambda f, s: f"mobilenet_v{f['v']}:1@{s}"),
    (r"mobilenetv3_small", _same("mobilenet_v3_small:1")),
    (r"efficientnet_lite(\d)", lambda f, s: f"efficientnet_lite{f[1]}@{s}"),
    (r"mnasnet_a1_(?P<w>[\d.]+)_(?P<s>\d+)", lambda f, s: _size(f, "mnasnet_a1")),
    (r"mnasnet_(?P<w>\d\.\d+)_(?P<s>\d+)", lambda f, s: _size(f, "mnasnet")),
    (r"mnasnet_(?P<s>\d{2,3})_(?P<w>\d+)", lambda f, s: _size(f, "mnasnet")),
    (r"ghostnet_x(?P<a>\d)_(?P<b>\d)", lambda f, s: f"ghostnet_{f['a']}{f['b']}0@{s}"),
    (r"shufflenetv2_x(?P<a>\d)_(?P<b>\d+)", lambda f, s: f"shufflenet_v2:{f['a']}.{f['b']}@{s}"),
    (r"resnet50(_v1.5)?", _same("resnet50")),
    (r"repvit_m(\d)\.(\d)", lambda f, s: f"repvit_m{f[1]}_{f[2]}@{s}"),
    (r"swiftformer_(\w+)", lambda f, s: f"swiftformer_{f[1]}@{s}"),
    (r"mobileclip2?_(s\d) image encoder", lambda f, s: f"mci{_MCI[f[1]]}@{s}"),
    (r"mobileclip2?_b image encoder", _same("vit_base_mci")),
    (r"mobileclip2?_l/14 image encoder", _same("vit_large_14")),
    (r"mobileclip2?_s0 text encoder", lambda f, s: "text_s0@77"),
    (r"mobileclip2?_(s1|s2|b) text encoder", lambda f, s: "text_512@77"),
    (r"mobileclip2?_(s3|s4|l/14) text encoder", lambda f, s: "text_768@77"),
    (r"mobilevitv2_1.0", _same("mobilevitv2_100")),
    (r"efficientvit_sam_l1_sam", _same("efficientvit_l1_sam")),
    (r"efficientvit_([bl]\d)_seg", lambda f, s: f"efficientvit_{f[1]}_seg@{s}"),
    (r"efficientvit_([bl]\d)", lambda f, s: f"efficientvit_{f[1]}@{s}"),
    (r"ssd_mobilenet_v1", lambda f, s: "mobilenet_ssd_coco@300"),
    (r"densenet", _same("densenet121")),
    (r"inception_v4", _same("inception_v4")),
    (_PLAIN, lambda f, s: f"{f[0]}@{s}"),
)  # fmt: skip
NCNN: Final = {
    "mobilenet": "mobilenet_v1:1@224",
    "mobilenet_v2": "mobilenet_v2:1@224",
    "mobilenet_v3": "mobilenet_v3_large:1@224",
    "googlenet": "googlenet@224",
    "resnet18": "resnet18@224",
    "resnet50": "resnet50@224",
    "vgg16": "vgg16@224",
    "alexnet": "alexnet_caffe@227",
    "shufflenet": "shufflenet_v1@224",
    "shufflenet_v2": "shufflenet_v2:1.0@224",
    "efficientnet_b0": "efficientnet_b0@224",
    "efficientnetv2_b0": "efficientnetv2_b0@224",
    "regnety_400m": "regnety_400m@224",
    "vision_transformer": "vit_b_16@384",
    "mobilenet_ssd": "mobilenet_ssd_voc@300",
    "yolov4-tiny": "yolov4_tiny@416",
}
"""The names of ncnn's benchmark."""


def build(key: Key) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The network in eval mode, in the form it is deployed in, and an input."""
    name, side = key.split("@")
    height, width = (int(n) for n in (side.split("x") if "x" in side else (side, side)))
    made = _made(name, height, classes=19 if height != width else 150).eval()
    if name.startswith("text_"):
        return made, (torch.zeros(2, height, dtype=torch.long),)
    return made, (torch.randn(2, 3, height, width),)


def _made(name: str, side: int, *, classes: int) -> nn.Module:
    if name.endswith("_seg"):
        return _segmentation(name.removesuffix("_seg"), classes)
    if name.endswith("_sam"):
        return _segmentation(name.removesuffix("_sam"), 256, depth=8)
    base, _, width = name.partition(":")
    models = torchvision().models
    own: dict[str, Callable[[], nn.Module]] = {
        "mobilenet_v1": lambda: classics.MobileNetV1(float(width)),
        "mobilenet_ssd_voc": lambda: classics.MobileNetSSD(21),
        "mobilenet_ssd_coco": lambda: classics.MobileNetSSD(91),
        "shufflenet_v1": classics.ShuffleNetV1,
        "alexnet_caffe": classics.CaffeAlexNet,
        "yolov4_tiny": classics.YoloV4Tiny,
        "text_512": lambda: classics.ClipText(512, 12),
        "text_768": lambda: classics.ClipText(768, 12),
        "text_s0": lambda: classics.ClipText(512, 4, mixers=2),
        "mobilenet_v2": lambda: models.mobilenet_v2(width_mult=float(width or 1)),
        "mnasnet": lambda: models.MNASNet(float(width)),
        "shufflenet_v2": lambda: _shufflenet(width),
        "mobilenet_v3_small": lambda: _mobilenet_v3("small", float(width)),
        "mobilenet_v3_large": lambda: _mobilenet_v3("large", float(width)),
        "vit_b_16": lambda: models.vit_b_16(image_size=side),
    }
    if base in own:
        return own[base]()
    if base.startswith(("efficientnet_b", "regnet_y")) or base in models.list_models(module=models):
        options = {"init_weights": False} if base in ("googlenet", "inception_v3") else {}
        return models.get_model(base, weights=None, **options)
    return _timm(name, side)


def _segmentation(name: str, classes: int, *, depth: int = 3) -> nn.Module:
    """EfficientViT's heads for Cityscapes (19 classes) and ADE20K (150), and the neck of its SAM encoders."""
    torchvision()
    import timm

    backbone = timm.create_model(name, pretrained=False, features_only=True)
    channels = tuple(backbone.feature_info.channels()[-3:])
    if "_l" in name:
        return classics.SegmentationNet(backbone, channels, 256, depth, classes, expand=1, final=None)
    width, depth = {"b0": (32, 1), "b1": (64, 3), "b2": (96, 3), "b3": (128, 3)}[name[-2:]]
    final = 4 if classes == 19 else None
    return classics.SegmentationNet(backbone, channels, width, depth, classes, final=final)


def _shufflenet(width: str) -> nn.Module:
    """Widths of the paper's table; those below 0.5 are PaddleClas's."""
    channels = {
        "0.25": [24, 24, 48, 96, 512],
        "0.33": [24, 32, 64, 128, 512],
        "0.5": [24, 48, 96, 192, 1024],
        "1.0": [24, 116, 232, 464, 1024],
        "1.5": [24, 176, 352, 704, 1024],
        "2.0": [24, 244, 488, 976, 2048],
    }[width]
    return torchvision().models.ShuffleNetV2([4, 8, 4], channels)


def _mobilenet_v3(size: str, width: float) -> nn.Module:
    from torchvision.models import mobilenetv3

    settings, _ = mobilenetv3._mobilenet_v3_conf(f"mobilenet_v3_{size}", width_mult=width)
    return mobilenetv3.MobileNetV3(settings, 1280 if size == "large" else 1024)


def _timm(name: str, side: int) -> nn.Module:
    torchvision()
    import timm
    from timm.models import _efficientnet_builder, efficientnet, mobilenetv3, repvit
    from timm.utils import reparameterize_model

    assert _efficientnet_builder
    assert mobilenetv3
    base, _, width = name.partition(":")
    if base == "mnasnet_a1":
        return efficientnet._gen_mnasnet_a1("semnasnet_100", channel_multiplier=float(width))
    if base == "repvit_m0_6":
        return reparameterize_model(
            repvit.RepVit(embed_dim=(40, 80, 160, 320), depth=(1, 1, 7, 1), num_classes=1000)
        )
    known = {
        "mobilenet_v3_small_minimal": "tf_mobilenetv3_small_minimal_100",
        "mobilenet_v3_large_minimal": "tf_mobilenetv3_large_minimal_100",
        "mci0": "fastvit_mci0",
        "mci1": "fastvit_mci1",
        "mci2": "fastvit_mci2",
        "mci3": "fastvit_mci3",
        "mci4": "fastvit_mci4",
        "vit_base_mci": "vit_base_mci_224",
        "vit_large_14": "vit_large_patch14_clip_224",
        "regnety_400m": "regnety_004",
        "efficientnetv2_b0": "tf_efficientnetv2_b0",
    }
    found = known.get(name, f"tf_{name}" if name.startswith("efficientnet_lite") else name)
    return reparameterize_model(timm.create_model(found, pretrained=False).eval())


def features(key: Key, cache: Path) -> tuple[Operator, ...]:
    """The operators of a network, kept in a file."""
    path = cache / f"{key.replace(':', '_')}.json"
    if path.exists():
        return tuple(Operator(**o) for o in json.loads(path.read_text()))
    module, example = build(key)
    with torch.no_grad():
        found = operators(capture(module, example, name=key.split("@")[0]))
    cache.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(o) for o in found]))
    return found


def stated(row: dict[str, Any]) -> float | None:
    """Multiply-accumulates that the row itself states, in 10^9."""
    return float(row["macs_g"]) if row["macs_g"] else None
