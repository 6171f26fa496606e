"""How the fields of a map become Zarr's shards, piece by piece, and back.

A shard is one object that holds many chunks, one after the other, and at its end an index of where they begin:
https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html. Zarr itself makes a shard from all
of its values at once; here a chunk at a time is compressed and appended, so that neither writing nor reading holds
more than one.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import zarr

DIMENSIONS = ("matrix", "alpha", "beta")
_LONGEST_AXIS = 1 << 20  # entries in a chunk of a coordinate, where that makes at most 64 of them


def _fill_value(dtype: np.dtype) -> float | int:
    return -1 if dtype.kind == "i" else np.nan


def empty(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """A field of which nothing is known yet."""
    return np.full(shape, _fill_value(dtype), dtype)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a field of `shape` (matrices, alphas, betas) is cut: `per_chunk` matrices, and chunks to a shard."""

    shape: tuple[int, int, int]
    per_chunk: int
    chunks_per_shard: int

    @property
    def per_shard(self) -> int:
        return self.per_chunk * self.chunks_per_shard

    def encode(self, values: np.ndarray) -> bytes:
        """The chunk of these values, of at most `per_chunk` matrices."""
        array, contents = self._chunk(values.dtype, len(values))
        array[...] = values
        return contents["c/0/0/0"].to_bytes()

    def decode(self, content: bytes, count: int, dtype: np.dtype) -> np.ndarray:
        """The values of `count` matrices; raises whatever the codecs do where the content is none of theirs."""
        from zarr.core.buffer import default_buffer_prototype

        array, contents = self._chunk(dtype, count)
        contents["c/0/0/0"] = default_buffer_prototype().buffer.from_bytes(content)
        return np.asarray(array[...])

    def _chunk(self, dtype: np.dtype, count: int) -> "tuple[zarr.Array, dict[str, Any]]":
        """An array in memory of one chunk, coded as a chunk of a shard is."""
        import zarr
        from zarr.storage import MemoryStore

        contents: dict[str, Any] = {}
        cells = self.shape[1:]
        array = zarr.create_array(
            MemoryStore(contents),
            shape=(count, *cells),
            chunks=(self.per_chunk, *cells),
            dtype=dtype,
            fill_value=_fill_value(dtype),
            compressors=_compressors(),
            config={"write_empty_chunks": True},
        )
        return array, contents

    def index(self, lengths: Sequence[int]) -> bytes:
        """The end of a shard whose chunks, in order, have these lengths in bytes; the chunks it lacks are the last."""
        import zarr
        from zarr.codecs import Crc32cCodec
        from zarr.storage import MemoryStore

        entries = np.full((self.chunks_per_shard, 2), np.iinfo(np.uint64).max, np.uint64)
        entries[: len(lengths), 0] = np.cumsum([0, *lengths[:-1]])
        entries[: len(lengths), 1] = lengths
        contents: dict[str, Any] = {}
        array = zarr.create_array(
            MemoryStore(contents),
            shape=entries.shape,
            chunks=entries.shape,
            dtype=entries.dtype,
            compressors=(Crc32cCodec(),),
        )
        array[...] = entries
        return contents["c/0/0"].to_bytes()

    def metadata(
        self,
        attributes: Mapping[str, Any],
        variables: Mapping[str, tuple[np.dtype, Mapping[str, Any]]],
        coordinates: Mapping[str, tuple[str, np.ndarray, Mapping[str, Any]]],
    ) -> dict[str, bytes]:
        """Name -> content of all that a Zarr group of these fields holds but for the shards."""
        import zarr
        from zarr.storage import MemoryStore

        contents: dict[str, Any] = {}
        group = zarr.create_group(MemoryStore(contents), attributes=dict(attributes))
        for name, (dtype, described) in variables.items():
            group.create_array(
                name,
                shape=self.shape,
                chunks=(self.per_chunk, *self.shape[1:]),
                shards=(self.per_shard, *self.shape[1:]),
                dtype=dtype,
                fill_value=_fill_value(dtype),
                compressors=_compressors(),
                dimension_names=DIMENSIONS,
                attributes=dict(described),
            )
        for name, (dimension, values, described) in coordinates.items():
            axis = group.create_array(
                name,
                shape=values.shape,
                chunks=(max(min(values.size, _LONGEST_AXIS), -(-values.size // 64)),),
                dtype=values.dtype,
                compressors=_compressors(),
                dimension_names=(dimension,),
                attributes=dict(described),
                config={"write_empty_chunks": True},
            )
            axis[...] = values
        return {key: content.to_bytes() for key, content in contents.items()}


@functools.cache
def _compressors() -> tuple[Any, ...]:
    """Compressed, then with a checksum, so that every reader of the arrays notices damage."""
    from zarr.codecs import Crc32cCodec, ZstdCodec

    return ZstdCodec(level=1), Crc32cCodec()
