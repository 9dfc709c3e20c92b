"""The points that a search chose are trained on, each alone and in its own precisions, before they are verified.

Quantization-aware training (LSQ, arXiv:1902.08153; `quant_search.qat`) begins with the weights that a network inherits
and with the ranges that its file has; the supernet's largest network teaches (as in-place distillation does while the
supernet is trained, arXiv:1903.05134).  What became worse in validation accuracy stands as it was.

Each point has files in the run's folder `finetuned`, named after its architecture and policy: `NAME.json` is written
last, and a point that has it is not trained again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latency.device import Device
from latency.runtimes.opening import open_session
from latency.runtimes.session import accuracy
from nas.candidate import Builder, Builds, Candidate, Tuned, Unrounded
from nas.record import Setup
from quant_search.policy import SUFFIX
from quant_search.qat import Augment, Recipe, Teacher, train
from search_spaces.space import Architecture
from supernet.atomic import write_bytes, write_json
from supernet.data import Dataset

FOLDER = "finetuned"
_LR = 0.02  # of 0.005, 0.01 and 0.02, what gave most to small networks in a hundred steps
_DISTILL = 0.5


def finetuned(setup: Setup, builder: Builder, archs: Sequence[Architecture]) -> Builds:
    """The stage that trains networks on before they are verified, if the run asks for it; what makes their files then.

    Raises:
        OSError: the folder cannot be written.
    """
    s = setup
    if not s.settings.finetune:
        return builder
    tuned = FinetunedBuilder(builder, s.folder / FOLDER)
    with s.reporter.stage("finetune", len(archs) * s.settings.finetune) as stage:
        tuning = Tuning(builder, s.dataset, s.device, s.settings.finetune, s.settings.seed, s.space.largest())
        gains = []
        for i, arch in enumerate(archs):
            if tuned.has(arch):
                stage.advance(s.settings.finetune)
            else:
                try:
                    trained = tuning.train(arch, lambda *_: stage.advance())
                except ValueError:  # it has no file at all: verification refuses it, or does without it if it is a twin
                    stage.advance(s.settings.finetune)
                    continue
                tuned.keep(arch, trained)
            gains.append(tuned.tuned(arch).gain)
            stage.say(f"{i + 1} of {len(archs)}, {100 * float(np.median(gains)):+.1f} points in the middle")
    return tuned


def name_of(arch: Mapping[str, Any], policy: Mapping[str, str]) -> str:
    """The name of a point's files: 16 hexadecimal digits of its choices and precisions, whatever space they are of."""
    choices = {name: option for name, option in arch.items() if not name.endswith(SUFFIX)}
    text = json.dumps([sorted(choices.items()), sorted(policy.items())])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def unrounded_file(folder: Path, point: Mapping[str, Any]) -> Path | None:
    """The network of a point of `front.json` in fp32, with the weights that its file has before rounding.

    None where these are the inherited ones.

    Raises:
        ValueError: the file is missing.
    """
    if point.get("weights") != "finetuned":
        return None
    name = name_of(point["arch"], point["policy"])
    file = folder / FOLDER / f"{name}.fp32.onnx"
    if not file.exists():
        raise ValueError(f"{file} is missing: the run's fine-tuned networks were moved or deleted")
    return file


@dataclass(frozen=True, eq=False)
class Trained:
    """The bytes of the file that stands, and of the network before rounding where that was trained."""

    tuned: Tuned
    file: bytes
    unrounded: bytes | None


class FinetunedBuilder:
    """Makes the files of a run: those that were trained on, from its folder, and all others as `builder` does."""

    def __init__(self, builder: Builder, folder: Path) -> None:
        self._builder, self._folder = builder, folder

    def build(self, arch: Architecture) -> Candidate:
        """The file of `arch`.

        Raises:
            ValueError: the network has no ONNX form.
        """
        if not self.has(arch):
            return self._builder.build(arch)
        return self._builder.candidate(arch, self._file(arch, ".onnx").read_bytes(), self.tuned(arch))

    def has(self, arch: Architecture) -> bool:
        """Whether `arch` was trained on."""
        return self._file(arch, ".json").exists()

    def tuned(self, arch: Architecture) -> Tuned:
        """How its training went."""
        return Tuned(**json.loads(self._file(arch, ".json").read_text()))

    def keep(self, arch: Architecture, trained: Trained) -> None:
        """Writes its files, each whole or not at all, that which says so last."""
        if trained.unrounded is not None:
            write_bytes(self._file(arch, ".fp32.onnx"), trained.unrounded)
        write_bytes(self._file(arch, ".onnx"), trained.file)
        write_json(self._file(arch, ".json"), asdict(trained.tuned))

    def _file(self, arch: Architecture, suffix: str) -> Path:
        return self._folder / f"{name_of(arch.values, self._builder.policy(arch))}{suffix}"


class Tuning:
    """Trains single networks of a supernet on."""

    def __init__(
        self, builder: Builder, dataset: Dataset, device: Device, steps: int, seed: int, largest: Architecture
    ) -> None:
        self._builder, self._dataset, self._device = builder, dataset, device
        self._steps, self._seed, self._largest = steps, seed, largest
        self._place = "cuda" if torch.cuda.is_available() else "cpu"
        self._known: tuple[Teacher, float] | None = None

    def train(self, arch: Architecture, progress: Callable[[int, int], None]) -> Trained:
        """Trains the network of `arch`, and keeps the better file; a training that fails leaves the file as it was."""
        start = self._builder.unrounded(arch)
        before = start.file().SerializeToString()
        inherited = self._accuracy(before)
        try:
            file, unrounded = self._after(start, inherited, progress)
        except ValueError as error:  # an operator that torch does not have here, or a loss that is not finite
            return Trained(Tuned(inherited, None, str(error)), before, None)
        tuned = Tuned(inherited, self._accuracy(file))
        return Trained(tuned, file, unrounded) if tuned.kept else Trained(tuned, before, None)

    def _after(self, start: Unrounded, inherited: float, progress: Callable[[int, int], None]) -> tuple[bytes, bytes]:
        """The file after training, and the network before rounding."""
        teacher, score = self._teacher()
        found = train(
            start.model,
            start.groups,
            start.chosen,
            self._dataset.x_train,
            self._dataset.y_train,
            # A supernet whose largest network was trained little, or not at all, has no teacher.
            Recipe(self._steps, lr=_LR, distill=_DISTILL if score > inherited else 0.0, seed=self._seed),
            ranges=start.ranges,
            augment=augmentation(self._dataset),
            teacher=teacher,
            device=self._place,
            progress=progress,
        )
        return found.file().SerializeToString(), found.model.SerializeToString()

    def _teacher(self) -> tuple[Teacher, float]:
        """The supernet's largest network in fp32, and its validation accuracy."""
        if self._known is None:
            network = self._builder.network(self._largest)
            with torch.no_grad():
                parts = [network(part) for part in torch.from_numpy(self._dataset.x_val).split(256)]
            score = float((torch.cat(parts).argmax(1).numpy() == self._dataset.y_val).mean())
            self._known = network.to(self._place), score
        return self._known

    def _accuracy(self, model: bytes) -> float:
        return accuracy(open_session(model, self._device), self._dataset.x_val, self._dataset.y_val)


def augmentation(dataset: Dataset) -> Augment:
    """How a supernet's training changes the images of `dataset`: it shifts them and mirrors those that may be."""
    from supernet.augment import shift_and_flip  # here, since timm takes seconds to load
    from supernet.learner import default_shift

    shift = default_shift(min(dataset.image_shape[1:]))

    def changed(x: Tensor, rng: np.random.Generator) -> Tensor:
        return shift_and_flip(x, shift, dataset.flip, rng)

    return changed
