"""Bundles: what a device that cannot run this toolkit needs to measure for it, and reading what it measured.

A bundle is a folder with models, a manifest, and the script `measure.py`, for which Python, NumPy and ONNX Runtime are
enough.  Its result names the machine, so that it counts as if the toolkit had measured there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from latency.device import Device, Environment, fingerprint
from latency.standalone import BUNDLE_FORMAT, MANIFEST, RESULT, manifest_digest
from latency.timing import Timing
from nas.joined import joined
from supernet.atomic import write_bytes, write_json

SCRIPT, README = "measure.py", "README.txt"
Kind = Literal["profile", "verify"]

_PREAMBLE = '''"""Measures the models of this folder: python measure.py [--threads N] [--batch N] [--minutes M] [...]

Needs Python 3.10 or later with numpy and onnxruntime, and nothing else.  Part of hwnas (Apache-2.0): made by joining
those of its modules that measure, so that times are taken here in the same way.
"""

import sys

if sys.version_info < (3, 10):
    sys.exit("measure.py: needs Python 3.10 or later, got %d.%d" % sys.version_info[:2])
try:
    import numpy as np
    import onnxruntime
except ImportError as error:
    sys.exit("measure.py: %s: python -m pip install numpy onnxruntime" % error)
'''
_EPILOGUE = """if __name__ == "__main__":
    sys.exit(main())"""
_README = """\
{what}

1. Copy this whole folder ({size_mb:.0f} MB) to the device.
2. There, with Python 3.10 or later:
       python -m pip install numpy onnxruntime
       python measure.py
   --threads N   lets ONNX Runtime use N threads (1 by default).
   --batch N     gives N images to each call ({batch} by default).
   --minutes M   stops after about M minutes.
   --out FILE    names the result ({result} by default).
   Nothing else should run meanwhile.  When it is stopped or killed, the same command goes on where it was{but}.
3. Bring the result back to where the toolkit is:
       nas {command} --import {result}
"""


@dataclass(frozen=True)
class Result:
    """What a device measured of a bundle.

    Args:
        manifest: of the bundle.
        plan: that the device chose.
        records: of every item of the plan, in its order.
    """

    device: Device
    fingerprint: str
    environment: Mapping[str, Any]
    manifest: Mapping[str, Any]
    plan: str
    records: Sequence[Mapping[str, Any]]

    @property
    def wall_s(self) -> float:
        """How long the measuring took."""
        return float(sum(record["seconds"] for record in self.records))


@dataclass
class BundleWriter:
    """Fills the folder of a bundle; without its manifest, which comes last, it is none.

    Raises:
        ValueError: a folder that holds something already.
    """

    folder: Path
    _digests: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise ValueError(f"{self.folder} is not an empty folder: name another one with --bundle")

    def add(self, name: str, content: bytes) -> str:
        """Writes a file of the bundle, and returns its name."""
        write_bytes(self.folder / name, content)
        self._digests[name] = hashlib.sha256(content).hexdigest()
        return name

    def note(self, name: str) -> str:
        """Takes a file in that was written already."""
        with (self.folder / name).open("rb") as stream:
            self._digests[name] = hashlib.file_digest(stream, "sha256").hexdigest()
        return name

    def finish(
        self,
        kind: Kind,
        what: str,
        plans: Mapping[str, Sequence[Mapping[str, Any]]],
        efforts: Mapping[str, Any],
        at_once: int,
        about: Mapping[str, Any],
        shared: Sequence[str] = (),
        choice: Mapping[str, Any] | None = None,
        images: Mapping[str, str] | None = None,
        run: str | None = None,
        references: Sequence[str] = (),
        batch: int = 1,
    ) -> None:
        """Writes the script, the README and the manifest.

        Args:
            plans: name to items, `key`, `file` and `ways` of each.
            choice: which of two plans: a `file`, and the names of the plans if it takes `long`er than `beyond_s` or is
                `short`; not needed where there is one plan.
            efforts: way to what is spent on it.
            at_once: items that are timed in turn.
            about: what reading the result needs.
            shared: files that all items need.
            images: split to the file of its images and labels.
            references: files that are timed with all that is timed by parts.
            batch: images in one call, unless the script is told otherwise.
        """
        self.add(SCRIPT, script().encode())
        command = f"{kind} {run}" if run else kind
        size_mb = sum(f.stat().st_size for f in self.folder.rglob("*") if f.is_file()) / 1e6
        but = (
            ""
            if at_once < max(map(len, plans.values()))
            else ", but the latencies, which are taken in turn, are taken from the start"
        )
        readme = _README.format(what=what, size_mb=size_mb, batch=batch, result=RESULT, command=command, but=but)
        write_bytes(self.folder / README, readme.encode())
        manifest = {
            "format": BUNDLE_FORMAT,
            "kind": kind,
            "import": command,
            "plans": {name: list(items) for name, items in plans.items()},
            "references": list(references),
            "choice": choice,
            "efforts": dict(efforts),
            "at_once": at_once,
            "batch": batch,
            "files": self._digests,
            "shared": list(shared),
            "images": dict(images or {}),
            "about": dict(about),
        }
        manifest = json.loads(json.dumps(manifest))  # with lists for tuples, as it will be read
        write_json(self.folder / MANIFEST, {"digest": manifest_digest(manifest), **manifest})


def script() -> str:
    """The source of `measure.py`."""
    return joined("latency.standalone", _PREAMBLE, _EPILOGUE)


def read_result(file: Path, kind: Kind) -> Result:
    """What `measure.py` wrote.

    Raises:
        ValueError: no result of a bundle of this kind, or one that is damaged or not complete.
    """
    if not file.is_file():
        raise ValueError(f"no result {file}: {SCRIPT} of a bundle makes one")
    head, lines = _lines(file)
    manifest = head["manifest"]
    if manifest["digest"] != manifest_digest(manifest):
        raise ValueError(f"{file} is damaged: bring it from the device again")
    if manifest["kind"] != kind:
        raise ValueError(
            f"{file} is the result of a bundle for `nas {manifest['kind']}`, expected one for `nas {kind}`"
        )
    items = manifest["plans"][head["plan"]]
    records = {line.get("key"): line for line in lines}
    missing = [item["key"] for item in items if item["key"] not in records]
    if missing:
        raise ValueError(
            f"{file} lacks {len(missing)} of {len(items)} models ({missing[0]} is the first): "
            f"run {SCRIPT} on the device again, which goes on where it was, and bring the result again"
        )
    device = Device(head["device"], "cpu", int(head["threads"]), "onnxruntime", int(head["batch"]))
    if fingerprint(device, _environment(file, head["environment"])) != head["fingerprint"]:
        raise ValueError(f"{file}: its fingerprint is not the one of its environment: bring it from the device again")
    ordered = [records[item["key"]] for item in items]
    for item, record in zip(items, ordered, strict=True):
        _check_record(file, item, record, manifest)
    return Result(device, head["fingerprint"], head["environment"], manifest, head["plan"], ordered)


def _lines(file: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The head and the whole lines after it; a last one that was cut short counts as missing."""
    whole, _, _ = file.read_bytes().rpartition(b"\n")
    parsed: list[dict[str, Any]] = []
    for i, line in enumerate(whole.splitlines(), start=1):
        try:
            parsed.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{file} is damaged in line {i}: bring it from the device again") from error
    needed = {"plan", "device", "threads", "batch", "fingerprint", "environment", "manifest"}
    there = bool(parsed) and all(isinstance(line, dict) for line in parsed)
    if there and parsed[0].get("format", BUNDLE_FORMAT) != BUNDLE_FORMAT:
        raise ValueError(
            f"{file} is of format {parsed[0]['format']}, this version reads {BUNDLE_FORMAT}: make the bundle anew"
        )
    if not there or not needed <= parsed[0].keys():
        raise ValueError(f"{file} is no result of {SCRIPT}, or its beginning is lost: bring it from the device again")
    return parsed[0], parsed[1:]


def _environment(file: Path, plain: Mapping[str, Any]) -> Environment:
    try:
        return Environment(**{**plain, "isa": tuple(plain["isa"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"{file}: its environment is damaged ({error}): bring it from the device again") from error


def _check_record(file: Path, item: Mapping[str, Any], record: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    from latency.parts import Parts  # here, since it loads ONNX Runtime

    try:
        float(record["seconds"])
        for way in item["ways"]:
            (Parts if way.startswith("parts") else Timing).of(record["results"][way])
        for split in manifest["images"]:
            float(record["accuracy"][split])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file}: what it says of {item['key']} is damaged ({error}): bring it from the device again"
        ) from error
