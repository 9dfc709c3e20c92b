"""What a device profile is made of: every subject that was measured, with its raw samples, as one JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from latency.parts import Parts
from latency.timing import Timing
from nas.config import first_line
from search_spaces.value import Option
from supernet.atomic import write_bytes

FORMAT = 3  # of the file

Way = Literal["wall", "parts", "wall again", "parts again", "baseline"]
Role = Literal["call", "frame", "block", "network"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Subject(_Record):
    """One model: an empty call, a block on its own, what such a block is framed by, or a network.

    Args:
        arch: the options of the network, or of the network that the block is cut out of, policy included.
        block: its name; of a frame, that of the block whose input it is for.
        kind: the precision, or `mixed`.
        held_out: measured to check the fit, and not for it.
        ways: how it is timed: whole (wall), or by its parts; and again, to know how well that repeats; `baseline` is
            whole too, on the device's baseline.
        results: of each way, its raw samples.
        executed: metrics of `nas.executed`, by name; empty where nobody asked.
    """

    key: str
    role: Role
    arch: dict[str, Option] = Field(default_factory=dict)
    block: str | None = None
    kind: str = "fp32"
    held_out: bool = False
    ways: tuple[Way, ...]
    size_bytes: int = 0
    results: dict[Way, dict[str, Any]] = Field(default_factory=dict)
    executed: dict[str, float] = Field(default_factory=dict)

    def ways_of(self, again: bool) -> tuple[Way, ...]:
        """How it is timed the first time, or again."""
        return tuple(way for way in self.ways if way.endswith("again") == again)

    @property
    def parts(self) -> Parts | None:
        """Its nodes, where it was timed by them."""
        return self.parts_of("parts")

    def parts_of(self, way: Way) -> Parts | None:
        """Its nodes as they were timed in a way; None where that was timed whole, or not at all."""
        return Parts.of(self.results[way]) if way.startswith("parts") and way in self.results else None

    def wall_s(self, way: Way = "wall") -> float:
        """The undisturbed wall time of one call."""
        return Timing.of(self.results[way]).undisturbed().median_s

    def hardly_known(self, way: Way) -> bool:
        """Whether it was hardly left alone as it was timed in a way, so that it may seem up to twice too slow."""
        parts = self.parts_of(way)
        return parts.hardly_known if parts else way in self.results and Timing.of(self.results[way]).doubtful


class ProfiledSpace(_Record):
    """The space that a profile is of, as `nas.spec.build_network` takes it."""

    name: str
    preset: str | None
    input_shape: tuple[int, int, int]
    num_classes: int
    precisions: tuple[str, ...]
    sparsity: tuple[str, ...] = ()
    fingerprint: str


class ProfileData(_Record):
    """A device, a space, and what was measured of one on the other.

    Args:
        environment: of the machine that measured, name to value.
        prices: of the inner loops of kernels whose latencies have a closed form, as `FusedPrices` has them.
        contention: who else used the machine meanwhile, as `Contention.plain` has it; None where all was known.
        wall_s: how long the measuring took, building included.
    """

    format: int = FORMAT
    device: str
    threads: int
    batch: int = 1
    runtime: str
    fingerprint: str
    environment: dict[str, Any]
    space: ProfiledSpace
    seed: int
    prices: dict[str, Any] | None = None
    contention: dict[str, float | None] | None = None
    wall_s: float = 0.0
    subjects: list[Subject]

    def write(self, file: Path) -> None:
        """Writes the profile, whole or not at all; a line per subject."""
        head = self.model_dump(mode="json", exclude={"subjects"})
        lines = ",\n".join(json.dumps(s.model_dump(mode="json"), separators=(",", ":")) for s in self.subjects)
        text = f'{json.dumps(head, indent=1)[:-2]},\n "subjects": [\n{lines}\n]\n}}\n'
        write_bytes(file, text.encode())


def read_profile(file: Path) -> ProfileData:
    """The profile in `file`.

    Raises:
        ValueError: there is none, or it is damaged or of another version.
    """
    if not file.is_file():
        raise ValueError(f"no profile {file}: `nas profile --out FILE` makes one")
    try:
        data = ProfileData.model_validate_json(file.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no device profile of this version: {first_line(error)}") from error
    if data.format != FORMAT:
        raise ValueError(f"{file} is a profile of format {data.format}, this version reads {FORMAT}: profile again")
    return data
