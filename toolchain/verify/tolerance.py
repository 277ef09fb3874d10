"""Every tolerance of the product and of its tests, each with its reason."""

from __future__ import annotations

from typing import Final

FLOAT_RELATIVE: Final = 1e-4
"""Largest error of a float32 file over the largest output. Sums in another order differ by about 1e-6 a layer
stack; 1e-4 leaves room for depth, and a wrong weight or padding is 1e-2 and more."""

INT8_AGREEMENT: Final = 97.0
"""Percent of samples whose top-1 class is that of the float program. A calibrated ResNet-20 on CIFAR-10
measures 98.8 % (LiteRT) and 99.1 % (ONNX Runtime)."""

INT8_SNR_DB: Final = 10.0
"""Signal to noise of int8 outputs: noise under a tenth of the signal's power. A calibrated ResNet-20 measures
18 dB (LiteRT) and 30 dB (ONNX Runtime); one that is fed integers where it wants floats, -18 dB."""

FP16_SNR_DB: Final = 40.0
"""Signal to noise of an fp16 file, every activation rounded to fp16. A trained ResNet-20 measures 61 dB,
torchvision networks with random weights 66 to 70; with any one of its activations computed as SiLU instead of
ReLU the ResNet-20 has at most 27, with a wrong sign in one addition at most 8."""

DEVICE_INT8_RELATIVE: Final = 0.05
"""Largest difference between a device's int8 outputs and this machine's, over the largest. Kernels may round
the last bit differently: a step or two, each 1/127 of the largest value; a wrong one is off by all of it."""

FP16_ROUNDING: Final = 2.0**-10
"""A weight stored in fp16 over its largest neighbour: half a unit in the last place is 2^-11, and folding a
batch norm into it before rounding costs as much again."""

INT8_ROUNDING: Final = 0.5 / 127 + 4 * 2.0**-11
"""A weight stored in 8 bits over the largest of its output channel: half a step of 1/127, and four roundings
to fp16: of the weight, of the scale, of weight / scale (it shifts the step's edge), of the product back."""

FP16_FLOOR: Final = 2.0**-14
"""Below this magnitude fp16 has a fixed grid instead of a relative one."""

INT8_FLOOR: Final = 127 * FP16_FLOOR
"""Largest value of a channel below which the fp16 step of its int8 weights has a fixed grid."""
