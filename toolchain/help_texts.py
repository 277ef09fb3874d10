"""What --help says of the commands: what each is for, examples, exit codes."""

from __future__ import annotations

from typing import Final

COMMANDS: Final = {
    "compress": "make the network smaller until it holds the budget, and prove it",
    "bench": "measure the network as it is, in every runtime and precision of the target",
    "predict": "estimate the latency on a device that is not at hand, from published measurements",
    "gate": "compare a model with a baseline, measured in turns: pass, fail or inconclusive",
    "noise": "measure a device against itself: which slow-downs can be seen in how much time",
    "history": "show how a model's latency went from gate to gate, and where it changed",
    "embed": "turn a model file into C sources for firmware",
    "restore": "unpack a stored model file, to the bit",
    "calibrate": "fit a target's latency model to a few measurements of one's own device",
    "inspect": "show what the network is and which channels can be removed together",
    "targets": "list the devices and what they run",
    "devices": "show which devices can be measured from here now",
    "doctor": "show what is installed here and what is missing",
    "runner": "gather what a device needs to measure: the C runner and the runtimes' libraries",
    "plan": "decide without changing anything, or carry out a saved plan",
}
EXIT_CODES: Final = """\
exit codes:
  0    done: every limit is held and every check passed
  1    finished, but a limit is not held or a check failed: see the report
  2    a file, flag or value handed in is unusable
  3    the input is sound, but it cannot be treated
  4    no plan reaches the budget; the best one is kept
  5    a converter or quantizer failed
  6    the target could not be reached or did not finish
  10   a gate found no clear answer in the time allowed
  70   a fault in edgefit itself
  130  interrupted with Ctrl-C; finished work is kept
Of several cases (lists of budgets or targets) all are run, and the highest of their codes is given.
"""
EXAMPLES: Final = {
    "compress": """\
examples:
  compress model.pt2 --data images/ --budget-ms 5
      hold 5 ms on this machine: fine-tuned on images/train, judged on images/val
  compress model.pt2 --data digits.npz --budget-ms 2 --max-drop 1 --epochs 3
      give up at most one point of accuracy, fine-tune for three epochs
  compress model.pt2 --data images/ --budget-ms 30 --device ssh://pi@board
      hold 30 ms on that board, measured there
  compress model.pt2 --data images/ --budget-ms 5 --allow-resize 0.7
      smaller images too where that loses less, down to 70 % of their sides
  compress model.pt2 --data images/ --store palette:5 --sparsity 0.9
      nothing pruned: nine of ten weights zero, the others of 31 values a layer, files packed accordingly
  compress model.pt2 --budget-macs 20M --formats onnx
      no data: prune by weights alone; accuracy is then not measured
  compress weights.pth --arch mynet.models:build --input-shape 1,3,224,224 --budget-mb 2
      a state dict, with the function that builds its network
  compress model.pt2 --data images/ --target host,iphone --budget-ms 5,3,1 --out front
      every target with every budget in one run: a folder each, and front/front.html with the picture
""",
    "bench": """\
examples:
  edgefit bench model.pt2
  edgefit bench model.pt2 --data images/        also int8, which needs calibration data
  edgefit bench model.pt2 --json > before.json
  edgefit bench model.onnx --device host --tier quick
      one file, in fresh sessions, by the C runner; raw samples are in the JSON
  edgefit bench model.tflite --device ssh://pi@board --tier normal
  edgefit bench model.tflite --device qemu:cortex-a53
      on a board; in an emulator, which counts instructions and measures no time
""",
    "gate": """\
examples:
  edgefit gate model.onnx --baseline released.onnx
  edgefit gate model.onnx --baseline main               the same file as it is in git's main
  edgefit gate model.pt2 --baseline v1.2:net/model.pt2 --max-regression 3 --budget-ms 5
  edgefit gate small/ --baseline model.pt2 --max-growth 0 --min-agreement 95 --data images/
""",
    "embed": """\
examples:
  edgefit embed model.tflite
  edgefit embed model.tflite --out src --name keyword --form asm
  edgefit embed model.tflite --budget-ram 65536      TFLite Micro has to run it in 64 KiB
  edgefit embed model.onnx --out src --name keyword --form network
      keyword.c computes the network by itself: keyword_run(inputs, outputs)
""",
    "restore": """\
examples:
  compress model.pt2 --data images/ --store palette:5 --sparsity 0.9
  edgefit restore model-compressed/model.onnx.stored
  edgefit restore model.tflite.stored --out model.tflite
""",
    "noise": """\
examples:
  edgefit noise --target host
  edgefit noise model.onnx --seconds 120
""",
    "history": """\
examples:
  edgefit gate model.onnx --baseline main --history latency.jsonl
  edgefit history latency.jsonl --picture latency.html
""",
    "inspect": """\
examples:
  edgefit inspect model.pt2
  edgefit inspect model.pt2 --json | less
  edgefit inspect model.pt2 --picture model.html
""",
    "predict": """\
examples:
  edgefit predict model.pt2 --target iphone:iphone-12
  edgefit predict model.pt2 --target traffic-camera:cortex-a72 --runtime litert --precision int8
  edgefit predict model.pt2 --target jetson --json
""",
    "calibrate": """\
examples:
  edgefit calibrate measured.csv --target traffic-camera:cortex-a72 --precision int8 --out camera.json
  edgefit predict model.pt2 --target traffic-camera --calibration camera.json

measured.csv has one line a network: its file beside the table, and its median latency on the device.
  model,ms
  mobilenet.pt2,41.2
  resnet18.pt2,167
""",
    "targets": "examples:\n  edgefit targets\n  edgefit targets --json\n",
    "devices": "examples:\n  edgefit devices\n",
    "doctor": "examples:\n  edgefit doctor\n  edgefit doctor --target host\n",
    "runner": """\
examples:
  edgefit runner bundle --arch aarch64 --runtime litert
  edgefit runner bundle --arch aarch64 --runtime litert,onnxruntime --out board
      a folder to copy to the device: edgefit-runner, the libraries with their hashes, bundle.json
""",
    "plan": """\
examples:
  edgefit plan model.pt2 --data images/ --budget-ms 5 --out plan
      writes plan/plan.json and a report of what it rests on; nothing is pruned
  edgefit plan model.pt2 --data images/ --apply plan/plan.json --out smaller
      carries the saved plan out: prune, fine-tune, export, verify, measure
  edgefit plan model.pt2 --data images/ --budget-ms 5,3,1 --out plans
      three plans, plans/host-ms-5/plan.json and so on, and what they cost in one table and picture
""",
}
