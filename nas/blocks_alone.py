"""What the blocks of a profile take on their own, without what stands around them where they are measured."""

from __future__ import annotations

from latency.attribution import LEAST_S
from latency.blocks import TracedBlock
from nas.anatomy import Anatomy
from nas.profile_data import ProfileData, Subject, Way

_NOTICED = 0.05  # of a call; medians of two sessions differ by 2 to 3 %


class BlocksAlone:
    """The measured blocks of a profile.

    Around each is an empty call or, for a run-time that takes whole networks only, a frame for the shape of its input.
    """

    def __init__(self, data: ProfileData, anatomy: Anatomy) -> None:
        self._blocks = {s.key: _block_of(s, anatomy) for s in data.subjects if s.role in ("block", "frame")}
        self._call = next((s for s in data.subjects if s.role == "call"), None)
        self._frames = {self.block_of(s).input_shape: s for s in data.subjects if s.role == "frame"}
        # Of a block whose frame was left out, nothing is known.
        of_blocks = [s for s in data.subjects if s.role == "block"]
        self.subjects = [s for s in of_blocks if self._around(s) is not None]

    def block_of(self, subject: Subject) -> TracedBlock:
        """The block that a subject is, or that it is for."""
        return self._blocks[subject.key]

    def seconds(self, subject: Subject, way: Way = "wall") -> float:
        """The time of a call, less what is around it: on the profile's own device by parts, where these are told."""
        return max(self._less_around(subject, way), LEAST_S)

    def tells(self, subject: Subject, way: Way = "wall") -> bool:
        """Whether the block makes a call longer by so much that it is more than noise."""
        return self._less_around(subject, way) >= _NOTICED * _seconds(subject, way)

    def _less_around(self, subject: Subject, way: Way) -> float:
        around = self._around(subject)
        return _seconds(subject, way) - (_seconds(around, way) if around else 0.0)

    def _around(self, subject: Subject) -> Subject | None:
        return self._frames.get(self.block_of(subject).input_shape) if self._frames else self._call


def _block_of(subject: Subject, anatomy: Anatomy) -> TracedBlock:
    traced = anatomy.tracer.trace(anatomy.joined(subject.arch))
    return next(block for block in traced if block.name == subject.block)


def _seconds(subject: Subject, way: Way) -> float:
    parts = None if way == "baseline" else subject.parts
    return parts.profiled_s if parts else subject.wall_s(way)
