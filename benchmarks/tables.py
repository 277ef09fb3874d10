"""Results of many runs: what is there is not run again, and the table is made anew after each."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]
"""`setting`, `runs`, and what a benchmark wants to know besides."""


def opened(
    results: Path, setting: Mapping[str, Any], begin: Callable[[], Mapping[str, Any]] = dict
) -> Record:
    """The record in a file; under another setting a new one, with what `begin` says and no runs."""
    record: Record = json.loads(results.read_text()) if results.exists() else {}
    if record.get("setting") == setting:
        return record
    return {"setting": setting, **begin(), "runs": []}


def add(
    results: Path,
    record: Record,
    run: Mapping[str, Any],
    table: Callable[[Record], str],
    picture: Callable[[Record], str] | None = None,
) -> None:
    """Print a run and write it down with those before it: as JSON, Markdown and, where there is one, SVG."""
    record["runs"].append(run)
    print(json.dumps(run), flush=True)
    results.write_text(json.dumps(record, indent=1) + "\n")
    results.with_suffix(".md").write_text(table(record))
    if picture is not None:
        results.with_suffix(".svg").write_text(picture(record))


def few(flags: argparse.Namespace, train: int | None = None) -> Path:
    """`flags.data` with `train` (`flags.train`) and `flags.val` images of each class, in `flags.out`."""
    count = flags.train if train is None else train
    return thinned(flags.data, flags.out.absolute() / f"data-{count}-{flags.val}", count, flags.val)


def thinned(folder: Path, out: Path, train: int, val: int) -> Path:
    """A folder of links to so many images of each class, evenly spread over their names."""
    for part, count in (("train", train), ("val", val)):
        for kind in sorted(p for p in (folder / part).iterdir() if p.is_dir()):
            images = sorted(kind.iterdir())
            chosen = images[:: max(1, len(images) // count)][:count]
            (out / part / kind.name).mkdir(parents=True, exist_ok=True)
            for image in chosen:
                link = out / part / kind.name / image.name
                if not link.exists():
                    link.symlink_to(image.absolute())
    return out
