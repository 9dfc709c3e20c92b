"""Measuring the models of a bundle where the toolkit is not: the script `measure.py` is this file and what it imports.

A bundle is a folder with a `manifest.json`, whose items are models and how each is timed.  The result is one file of
lines in JSON: where it was measured, then a line per item, written when it is whole; a later run goes on after them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from latency.contention import Watch
from latency.device import Device, at_batch, environment, fingerprint, parse_device
from latency.pace import Pace
from latency.parts import PartsEffort, time_parts
from latency.runtimes.onnx_parts import open_parts
from latency.runtimes.onnx_runtime import OnnxSession, open_session
from latency.runtimes.session import accuracy
from latency.timing import Call
from latency.whole import Effort, Timed, call_of, time_whole

MANIFEST, RESULT = "manifest.json", "result.jsonl"
BUNDLE_FORMAT = 4  # of the manifest and of the result

Item = Mapping[str, Any]
Manifest = Mapping[str, Any]


class BundleError(Exception):
    """What is wrong with the bundle, the result or this machine, in one line."""


def main(arguments: Sequence[str] | None = None, folder: Path | None = None) -> int:
    """Measures what the result lacks; the exit code: 0 when it is complete, 3 when there is more to do, 1 on errors.

    Args:
        arguments: of the command line; by default those of this process.
        folder: of the bundle; by default the one of the script.
    """
    asked = _parsed(arguments)
    folder = folder or Path(sys.argv[0]).resolve().parent
    try:
        manifest = read_manifest(folder)
        device = _device(asked.threads, _batch(asked.batch, manifest))
        out = asked.out or folder / RESULT
        measurer = _Measurer(folder, manifest, device)
        plan, done = _begun(out, manifest, device, measurer)
        end_s = time.perf_counter() + 60 * asked.minutes if asked.minutes else None
        items = manifest["plans"][plan]
        left = _measure_all(items, measurer, out, done, end_s)
    except KeyboardInterrupt:
        _say("\ninterrupted; to go on, repeat the command")
        return 130
    except (BundleError, ValueError, OSError) as error:
        _say(f"measure.py: {' '.join(str(error).split())}")
        return 1
    if left:
        _say(f"{left} of {len(items)} models are left: to go on, repeat the command")
        return 3
    _say(f"complete: {out}; to read it, nas {manifest['import']} --import {out.name}, where the toolkit is")
    return 0


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="measure.py", description="Measures the models of this folder.")
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime (default 1)")
    parser.add_argument("--batch", type=int, help="images in one call (default: what the bundle asks for)")
    parser.add_argument("--out", type=Path, help=f"the result (default {RESULT} beside this script)")
    parser.add_argument("--minutes", type=float, help="stop after about so many; repeat the command to go on")
    return parser.parse_args(arguments)


def _device(threads: int, batch: int) -> Device:
    return at_batch(parse_device("cpu" if threads == 1 else f"cpu:threads={threads}"), batch)


def _batch(asked: int | None, manifest: Manifest) -> int:
    """The images in a call: those asked for, or the bundle's.

    Raises:
        BundleError: others than those of a run whose front is verified.
    """
    own = int(manifest["batch"])
    if asked not in (None, own) and manifest["kind"] == "verify":
        raise BundleError(f"these files are verified with {own} images in a call, got --batch {asked}: leave it out")
    return own if asked is None else asked


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the bundle in `folder`.

    Raises:
        BundleError: there is none, or it is damaged or of another version.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise BundleError(f"no {MANIFEST} in {folder}: copy the whole folder that `nas ... --bundle` wrote")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        found = manifest["format"], manifest["digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{file} is damaged: copy it from the bundle again") from error
    if found[0] != BUNDLE_FORMAT:
        raise BundleError(f"{file} is of format {found[0]}, expected {BUNDLE_FORMAT}: use the script beside it")
    if found[1] != manifest_digest(manifest):
        raise BundleError(f"{file} was changed or is damaged: copy it from the bundle again")
    return dict(manifest)


def manifest_digest(manifest: Manifest) -> str:
    """What a manifest calls itself: 16 hexadecimal digits of all its other fields."""
    rest = {name: value for name, value in manifest.items() if name != "digest"}
    return hashlib.blake2b(json.dumps(rest, sort_keys=True).encode(), digest_size=8).hexdigest()


# -- the result --------------------------------------------------------------------------------------


def _begun(out: Path, manifest: Manifest, device: Device, measurer: _Measurer) -> tuple[str, dict[str, Item]]:
    """The plan, and what the result holds already, by key.

    A result is begun where there is none, with the plan for this device; a line cut short is taken off.
    """
    head = {
        "format": BUNDLE_FORMAT,
        "device": device.name,
        "threads": device.threads,
        "batch": device.batch,
        "runtime": device.runtime,
        "fingerprint": fingerprint(device),
        "environment": json.loads(json.dumps(environment(device).plain())),
        "manifest": manifest,
    }
    content = out.read_bytes() if out.is_file() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if not whole:
        plan = measurer.plan()
        _append(out, 0, [{"plan": plan, **head}])
        return plan, {}
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
        found, done = lines[0], {line["key"]: line for line in lines[1:]}
        other = next((name for name in head if found[name] != head[name]), None)
        plan = str(found["plan"])
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{out} is no result or is damaged: name another file with --out") from error
    if other is not None:
        raise BundleError(f"{out} was begun with another {other}: name another file with --out")
    _append(out, len(whole), [])
    return plan, done


def _append(out: Path, at: int | None, records: Sequence[Item]) -> None:
    """Writes lines to the end of the result, or after its first `at` bytes, and brings them to the disk."""
    lines = "".join(json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n" for record in records)
    with out.open("ab") as stream:
        if at is not None:
            stream.truncate(at)
        stream.write(lines.encode())
        stream.flush()
        os.fsync(stream.fileno())


# -- measuring ---------------------------------------------------------------------------------------


def _measure_all(
    items: Sequence[Item], measurer: _Measurer, out: Path, done: Mapping[str, Item], end_s: float | None
) -> int:
    """Measures what is not done until the time is up; the number of items that are left."""
    left = [item for item in items if item["key"] not in done]
    progress = _Progress(items, list(done.values()))
    for group in _groups(left, measurer.at_once):
        begun_s = time.perf_counter()
        if end_s is not None and begun_s >= end_s:
            break
        results = measurer.measure(group, progress.tick)
        seconds = (time.perf_counter() - begun_s) / len(group)
        records = [{**result, "seconds": seconds} for result in results]
        _append(out, None, records)
        progress.count(records)
        left = left[len(group) :]
    progress.end()
    return len(left)


def _groups(items: Sequence[Item], at_once: int) -> Iterator[Sequence[Item]]:
    return (items[i : i + at_once] for i in range(0, len(items), at_once))


class _Measurer:
    """Measures groups of items, as the toolkit's own process does."""

    def __init__(self, folder: Path, manifest: Manifest, device: Device) -> None:
        self._folder, self._manifest, self._device = folder, manifest, device
        self._pace = Pace()  # it knows the better how fast the machine can be the longer it is used
        self.at_once: int = manifest["at_once"]
        for name in manifest["shared"]:
            _checked(folder, manifest, name)

    def plan(self) -> str:
        """The plan for this device: the only one, or the one for how long a network takes here."""
        choice = self._manifest["choice"]
        if choice is None:
            return str(next(iter(self._manifest["plans"])))
        timed = self._whole([_checked(self._folder, self._manifest, choice["file"])], "wall")
        is_long = timed.timings[0].undisturbed().median_s > choice["beyond_s"]
        return str(choice["long" if is_long else "short"])

    def measure(self, group: Sequence[Item], tick: Callable[[], object]) -> list[dict[str, Any]]:
        """What each is timed to take, in turn, each in all its ways; and how many of its images it tells right."""
        files = {item["key"]: _checked(self._folder, self._manifest, item["file"]) for item in group}
        found: dict[str, dict[str, Any]] = {item["key"]: {"key": item["key"], "results": {}} for item in group}
        for way in dict.fromkeys(way for item in group for way in item["ways"]):
            chosen = [item["key"] for item in group if way in item["ways"]]
            for key, part in zip(chosen, self._timed([files[key] for key in chosen], way, tick), strict=True):
                found[key]["results"][way] = part["result"]
                if "contention" in part:
                    found[key]["contention"] = part["contention"]
        if self._manifest["images"]:
            for key, file in files.items():
                found[key]["accuracy"] = self._accuracies(file, tick)
        return list(found.values())

    def _timed(self, files: Sequence[Path], way: str, tick: Callable[[], object]) -> list[dict[str, Any]]:
        if way.startswith("parts"):
            effort = PartsEffort(**self._manifest["efforts"]["parts"])
            references = [_checked(self._folder, self._manifest, name) for name in self._manifest["references"]]
            watch = Watch(self._pace)
            opened, beside = (
                [partial(open_parts, file, self._device) for file in each] for each in (files, references)
            )
            timed = time_parts(opened, self._device.batch, effort, beside, self._pace)
            contention = watch.reading().plain()
            return [{"result": parts.plain(), "contention": contention} for parts in timed]
        whole = self._whole(files, way, tick)
        return [{"result": asdict(timing), "contention": whole.contention.plain()} for timing in whole.timings]

    def _whole(self, files: Sequence[Path], way: str, tick: Callable[[], object] = lambda: None) -> Timed:
        effort = Effort(**self._manifest["efforts"][way.partition(" ")[0]])
        return time_whole([self._opener(file) for file in files], effort, self._pace, tick)

    def _opener(self, file: Path) -> Callable[[], Call]:
        return lambda: call_of(self._open(file), self._device.batch)

    def _open(self, file: Path) -> OnnxSession:
        return open_session(file, self._device)

    def _accuracies(self, file: Path, tick: Callable[[], object]) -> dict[str, float]:
        """The share of the images of each split that the model tells right."""
        session, found = self._open(file), {}
        for split, name in self._manifest["images"].items():
            with np.load(self._folder / name) as arrays:
                found[split] = accuracy(session, arrays["x"], arrays["y"])
            tick()
        return found


def _checked(folder: Path, manifest: Manifest, name: str) -> Path:
    """A file of the bundle, found to be the one that was written.

    Raises:
        BundleError: it is missing or another.
    """
    file = folder / name
    if not file.is_file():
        raise BundleError(f"{file} is missing: copy the whole folder that `nas ... --bundle` wrote")
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(2**20):
            digest.update(chunk)
    if digest.hexdigest() != manifest["files"][name]:
        raise BundleError(f"{file} is damaged: copy it from the bundle again")
    return file


class _Progress:
    """A line on standard error: what is done, and how long the rest takes if it goes on so."""

    def __init__(self, items: Sequence[Item], done: Sequence[Item]) -> None:
        self._roles = {item["key"]: item.get("role", "") for item in items}
        self._done: dict[str, float] = {}
        self._on_terminal = sys.stderr.isatty()
        self._shown_s = -1e9
        self.count(done)

    def count(self, records: Sequence[Item]) -> None:
        """Counts items with their seconds."""
        self._done.update({record["key"]: float(record["seconds"]) for record in records})
        self.tick()

    def tick(self) -> None:
        """Shows the line: now and then, and where it is no terminal, every ten seconds."""
        now_s = time.perf_counter()
        if now_s - self._shown_s >= (0.2 if self._on_terminal else 10.0):
            self._shown_s = now_s
            self._write()

    def end(self) -> None:
        """Shows the last line."""
        self._write("\n" if self._on_terminal else "")

    def _write(self, after: str = "") -> None:
        text = f"{len(self._done)} of {len(self._roles)} models, {_duration(self._left_s())} left"
        sys.stderr.write(f"\r{text:<60}{after}" if self._on_terminal else f"{text}\n")
        sys.stderr.flush()

    def _left_s(self) -> float | None:
        """What the rest takes: each as long as those of its role did, on average, or as all did."""
        if not self._done:
            return None
        seconds: dict[str, list[float]] = {}
        for key, took_s in self._done.items():
            seconds.setdefault(self._roles[key], []).append(took_s)
        means = {role: sum(values) / len(values) for role, values in seconds.items()}
        overall = sum(self._done.values()) / len(self._done)
        return sum(means.get(role, overall) for key, role in self._roles.items() if key not in self._done)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown time"
    minutes = int(seconds) // 60
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {int(seconds) % 60} s"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
