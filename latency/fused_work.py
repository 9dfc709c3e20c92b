"""What steps of fused programs do, in numbers: how often native code runs through each of its inner loops.

The counts follow from the shapes and from the way in which kernels cut them: sums of products of a tile of pixels and
vectors of 16 channels, four inputs a dot product; a vector of sums becomes codes; words of four rows are pushed and
sifted (`kernels/native/kernels.hpp`).  A dot product waits for the one before it in the same sum, so that small tiles
take as long as `chain` of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from latency.kernels.lowered import Kind, Layer, Record, Shape
from latency.kernels.packing import INPUTS, LANES

GROUP = 3  # vectors of expanded channels that go through a block together
_CLEARED = 4  # words in the time in which one is pushed
CHUNK = 28  # pixels of a 1x1 convolution that are computed together

TERMS = {
    "step": "steps",
    "tile": "tiles of sums",
    "dot": "dot products of a vector, those that wait included",
    "made": "vectors of sums made codes",
    "table": "vectors of codes looked up",
    "pushed": "vectors of sums made codes of words",
    "word": "words stored",
    "sifted": "tiles of depthwise sums",
    "far": "pixels of depthwise codes of a group that have left the second cache",
    "packed": "all channels, at most four, of 16 pixels made codes",
    "quantized": "four of more channels of 16 pixels made codes",
    "partly": "the last channels of more than four of 16 pixels made codes",
    "resized": "pixels of a resized image, of a channel",
    "patch": "pieces of 16 bytes copied to patches",
    "tap": "vectors of codes multiplied alone",
    "single": "vectors of such sums made codes",
    "pooled": "vectors of codes summed",
    "maximum": "vectors of codes compared",
    "average": "vectors of codes summed as values",
    "add": "vectors of two codes added",
    "multiply": "vectors of two codes multiplied",
    "look": "vectors of codes of a step that looks them up",
    "copy": "pixels copied",
    "dequantized": "vectors of codes made values",
}


class Work(dict[str, float]):
    """How often each of `TERMS` occurs; 0 times where it is not there."""

    def __missing__(self, term: str) -> float:
        return 0.0

    def add(self, other: Work, times: float = 1) -> None:
        """Adds another's terms so many times."""
        for term, count in other.items():
            self[term] += count * times


@dataclass(frozen=True)
class Tiles:
    """How the kernels of an instruction set cut their work.

    Args:
        rows, vectors: of a tile of sums, in pixels and in vectors of 16 channels.
        pixels: of a tile of a depthwise convolution.
        block_rows: pixels of a tile of block-sparse weights.
        chain: dot products of other sums that fit in the time until a sum can be added to again.
    """

    rows: int
    vectors: int
    pixels: int
    block_rows: int
    chain: int


TILES = {
    "avx512": Tiles(rows=8, vectors=3, pixels=14, block_rows=14, chain=4),
    "avx-vnni": Tiles(rows=4, vectors=1, pixels=4, block_rows=6, chain=2),
    "avx2": Tiles(rows=4, vectors=1, pixels=4, block_rows=6, chain=1),
    "portable": Tiles(rows=2, vectors=1, pixels=2, block_rows=2, chain=1),
}


def work_of(record: Record, shapes: Mapping[int, Shape], tiles: Tiles, cache_bytes: int) -> Work:
    """The work of a step on one image.

    Args:
        shapes: of tensors, as `lowered` gives them.
        cache_bytes: of the second cache.
    """
    work = _block(record, shapes, tiles, cache_bytes) if record.kind == Kind.BLOCK else _other(record, shapes, tiles)
    work["step"] += 1
    return work


def _block(record: Record, shapes: Mapping[int, Shape], tiles: Tiles, cache_bytes: int) -> Work:
    depthwise, made = record.depthwise, record.output if record.between is None else record.between
    if depthwise is None or made is None:
        raise ValueError(f"step {record.name!r} is a block without a depthwise layer")
    (height, width, _), (rows, columns, channels) = shapes[record.a], shapes[made]
    k, (_, left, _, right) = depthwise.kernel[0], depthwise.padding
    twos, ones, padded = _pushes(depthwise, height, rows)
    vectors = _vectors(channels)
    lines = 1 if k < INPUTS else INPUTS + 1
    work = Work(word=padded * width * vectors)
    work["word"] += (left + width + right) * -(-vectors // GROUP) * GROUP * lines / _CLEARED
    if record.expand is None:
        work["word"] += (2 * twos + ones) * width * vectors  # two codes go into a word one after the other
    else:
        work["word"] += (twos + ones) * width * vectors
        for group in _even(vectors, GROUP):
            work.add(_pushed(record.expand, group, width, 2, tiles), twos)
            work.add(_pushed(record.expand, group, width, 1, tiles), ones)
    pairs = rows // 2 if depthwise.stride == 1 and k < INPUTS else 0
    work.add(_sifted(k, columns, 2, tiles), pairs * vectors)
    work.add(_sifted(k, columns, 1, tiles), (rows - 2 * pairs) * vectors)
    work["far"] = (
        rows * columns * -(-vectors // GROUP) * _lost(prod(shapes[record.a]) + prod(shapes[made]), cache_bytes)
    )
    if record.project is not None:
        work.add(_in_chunks(record.project, rows * columns, tiles))
    return work


def _lost(used: int, kept: int) -> float:
    """The share of bytes that have left the cache until they are used again; 0 where its size is not known."""
    return max(0.0, 1 - kept / used) if kept else 0.0


def _pushes(depthwise: Layer, height: int, rows: int) -> tuple[int, int, int]:
    """How often a block pushes two rows of its image at once, one of it alone, and one of padding below it."""
    most, stop, following = 2 if depthwise.stride == 1 else 1, depthwise.kernel[0] - depthwise.padding[0], 0
    twos = ones = padded = 0
    first = rows % most or most
    for y in range(first - 1, rows, most):  # the last of the rows of the output that are made together
        below = y * depthwise.stride + stop
        while following < below:
            if (below - following) % 2 == 0 and following + 1 < height:
                twos, following = twos + 1, following + 1
            elif following < height:
                ones += 1
            else:
                padded += 1
            following += 1
    return twos, ones, padded


def _pushed(expand: Layer, group: int, width: int, rows: int, tiles: Tiles) -> Work:
    """So many rows of a group of vectors, expanded."""
    work = Work(pushed=rows * width * group)
    if expand.places is not None:
        vectors = _vectors(expand.channels)
        blocks = expand.places[vectors] * group / vectors  # on average
        work.add(_sparse_sums(width, blocks, group, tiles, rows))
        return work
    for n in (min(tiles.vectors, group - begin) for begin in range(0, group, tiles.vectors)):
        work.add(_sums(expand.inputs, width, n, n, tiles, rows))
    return work


def _sums(depth: int, pixels: int, vectors: int, dots: float, tiles: Tiles, rows: int = 1) -> Work:
    """Tiles of sums of `pixels` in so many vectors, of which each four inputs take so many dot products a pixel.

    Args:
        rows: in each of which there are so many pixels.
    """
    work = Work()
    for columns, count in Counter(_even(pixels, tiles.rows // rows)).items():
        work["dot"] += count * -(-depth // INPUTS) * max(tiles.chain, columns * rows * dots)
        work["tile"] += count
    return work


def _sifted(k: int, width: int, rows: int, tiles: Tiles) -> Work:
    """So many rows of a vector of depthwise sums."""
    words = k // INPUTS + 1
    work = Work(made=rows * width)
    for pixels, count in Counter(_even(width, tiles.pixels)).items():
        work["sifted"] += count
        work["dot"] += count * k * words * max(tiles.chain, rows * pixels)
    return work


def _in_chunks(layer: Layer, pixels: int, tiles: Tiles) -> Work:
    """A 1x1 convolution."""
    work = Work()
    whole, rest = divmod(pixels, CHUNK)
    for count, some in ((whole, CHUNK), (1, rest)):
        if count and some:
            work.add(_products(layer, some, tiles), count)
    return work


def _products(layer: Layer, pixels: int, tiles: Tiles) -> Work:
    """Codes of so many pixels, or patches, that are computed together."""
    vectors, depth = _vectors(layer.channels), layer.inputs * prod(layer.kernel)
    work = Work(made=pixels * vectors)
    if layer.rounding.table is not None:
        work["table"] = pixels * vectors
    spared = 0.5 if (layer.channels - 1) % LANES < LANES // 2 else 0.0  # half of the last vector
    if layer.places is not None:
        ends = layer.places[: vectors + 1]
        work.add(_sparse_sums(pixels, ends[-1] - spared * (ends[-1] - ends[-2]), vectors, tiles))
        return work
    groups = _even(vectors, tiles.vectors)
    for i, n in enumerate(groups):
        work.add(_sums(depth, pixels, n, n - spared * (i == len(groups) - 1), tiles))
    return work


def _sparse_sums(pixels: int, blocks: float, vectors: int, tiles: Tiles, rows: int = 1) -> Work:
    """As `_sums`, of vectors whose weights have so many blocks that are not zero."""
    work = Work()
    for columns, count in Counter(_even(pixels, tiles.block_rows // rows)).items():
        work["dot"] += count * blocks * max(tiles.chain, columns * rows)
        work["tile"] += count * vectors
    return work


def _other(record: Record, shapes: Mapping[int, Shape], tiles: Tiles) -> Work:
    layer, of_a = record.project, shapes[record.a]
    rows, columns, channels = shapes[record.output] if record.output is not None else of_a
    pixels, vectors = rows * columns, _vectors(channels)
    taps = prod(layer.kernel) if layer is not None else 1
    match record.kind, layer:
        case Kind.QUANTIZE, _:
            resized = 0 if record.rows is None else pixels * channels
            times, fours = rows * _vectors(columns), channels // INPUTS
            if channels <= INPUTS:
                return Work(packed=times, resized=resized)
            return Work(quantized=times * fours, partly=times * (channels % INPUTS > 0), resized=resized)
        case Kind.POINTWISE, Layer():
            return _in_chunks(layer, pixels, tiles)
        case Kind.DENSE, Layer():
            work = Work()
            work.add(_products(layer, columns, tiles), rows)
            work["patch"] = pixels * layer.kernel[0] * _vectors(layer.kernel[1] * layer.inputs)
            return work
        case Kind.DEPTHWISE, _:
            return Work(tap=pixels * vectors * taps, single=pixels * vectors)
        case Kind.POOL, _:
            return Work(pooled=of_a[0] * of_a[1] * vectors)
        case (Kind.MAXIMUM | Kind.AVERAGE) as kind, _:
            return Work({kind.name.lower(): pixels * vectors * taps})
        case Kind.ADD, _:
            return Work(add=rows * _vectors(columns * channels))  # a row is one line of codes
        case Kind.MULTIPLY, _:
            return Work(multiply=pixels * vectors)
        case Kind.TABLE, _:
            return Work(look=pixels * vectors)
        case Kind.COPY, _:
            return Work(copy=of_a[0] * of_a[1])
        case Kind.LOGITS, Layer():
            return Work(dot=-(-layer.inputs // INPUTS) * tiles.chain * _vectors(layer.channels))
        case _:
            return Work(dequantized=_vectors(prod(of_a)))


def _vectors(channels: int) -> int:
    return -(-channels // LANES)


def _even(count: int, most: int) -> list[int]:
    """`count` in nearly equal parts of at most `most`, the larger ones first."""
    parts = -(-count // most)
    return [count // parts + (i < count % parts) for i in range(parts)]
