# SPDX-License-Identifier: Apache-2.0
"""The plan of persistent mode: which compute unit reads which keys of which sequence.

The cuts are those of AITER's planner (get_mla_metadata_v1_2): every sequence costs its blocks of
keys and 16 more; the total, spread over the units, is what each takes before it hands over to the
next. Unlike there, every sequence, cut or not, leaves partial results for the merge, so that the
log-sum-exp and the real heads come out of one place, and a sequence without keys gets no work: a
workgroup ends at the first such work and drops the ones after it. A sequence shorter than q_len is
one work, in which the kernels get the queries that see no key wrong: the merge, which has the
lengths, does not read those.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jax_mla import compat

# Blocks that a sequence costs besides its own (AITER's planner, page size 1).
OVERHEAD = 16
# int32 fields of a work: its place in q, which is group * batch + sequence (some kernels look up in
# qo_indptr where that ends, and mask by it), first row of its partial results, rows of q from, to,
# positions in kv_indices from, to, keys of the sequence after those, unused.
WORK_FIELDS = 8
# Partial results are written and read again: at most this part of what is read of the cache.
_PARTIAL_TRAFFIC = 0.1


@dataclasses.dataclass(frozen=True)
class Plan:
    """Static side of a plan.

    Attributes:
      groups: groups of heads, each of which goes over the keys on its own.
      q_len: query tokens per sequence, all in one work.
      block: tokens; cuts fall on multiples of it. At least q_len.
      units: workgroups of the launch, each on a compute unit of its own.
    """

    groups: int
    q_len: int
    block: int
    units: int

    def max_works(self, batch: int) -> int:
        """Most works that there can be: every unit but the last can end in a cut."""
        return batch * self.groups + self.units - 1


def num_units(
    *, sequences: int, capacity: int, compute_units: int, token_bytes: int, partial_bytes: int
) -> int:
    """Workgroups to spread a batch over: all compute units, or fewer where cuts would cost more.

    A tenth of what is read of the cache, when every sequence is full, bounds the traffic of
    partial results; but every sequence may have a unit of its own.

    Args:
      sequences: in the batch, times the groups of heads.
      capacity: tokens of a full sequence.
      compute_units: of the GPU.
      token_bytes: of one token in the cache.
      partial_bytes: that one work of 16 rows writes and the merge reads.
    """
    works = int(_PARTIAL_TRAFFIC * sequences * capacity * token_bytes / partial_bytes)
    return min(compute_units, max(sequences, works - sequences + 1))


def make_plan(kv_indptr: jax.Array, plan: Plan) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Works for the sequences at hand.

    Args:
      kv_indptr: int32 `[batch + 1]`, where each sequence's keys begin in kv_indices.
      plan: its static side.

    Returns:
      work_indptr: int32 `[units + 1]`, works of each unit.
      work_info: int32 `[max_works, 8]`, see WORK_FIELDS; 0 past the last work.
      reduce_indptr: int32 `[batch * groups + 1]`: the works, and partial results, of group g of
        sequence b are those from `reduce_indptr[b * groups + g]` to the next, in order of keys.
        Work i has its partial results in rows i * q_len and on.
    """
    batch = kv_indptr.shape[0] - 1
    lengths = kv_indptr[1:] - kv_indptr[:-1]
    lengths = jnp.broadcast_to(lengths[:, None], (batch, plan.groups)).reshape(batch * plan.groups)
    pieces = _cut(lengths, plan)
    zero = jnp.zeros_like(pieces.count[:1])
    reduce_indptr = jnp.concatenate([zero, jnp.cumsum(pieces.count, dtype=jnp.int32)])

    # Piece p of a sequence begins after its lead and p - 1 full loads.
    slots = jnp.arange(plan.max_works(batch), dtype=jnp.int32)
    used = slots < reduce_indptr[-1]
    job = _owner(reduce_indptr, slots)
    piece = slots - reduce_indptr[job]
    first = _start(pieces, job, piece) * plan.block
    last = piece == pieces.count[job] - 1
    end = jnp.where(last, lengths[job], _start(pieces, job, piece + 1) * plan.block)

    sequence, group = job // plan.groups, job % plan.groups
    place = group * batch + sequence
    base = kv_indptr[sequence]
    fields = (
        place,
        slots * plan.q_len,
        place * plan.q_len,
        (place + 1) * plan.q_len,
        base + first,
        base + end,
        lengths[job] - end,
        jnp.zeros_like(slots),
    )
    work_info = jnp.where(used[:, None], jnp.stack(fields, axis=1), 0)
    unit = jnp.where(used, pieces.unit[job] + piece, plan.units)
    return _count_before(unit, plan.units), work_info, reduce_indptr


@dataclasses.dataclass(frozen=True)
class _Pieces:
    """How each sequence (of a group) is cut, int32 `[batch * groups]` each.

    Attributes:
      count: pieces; 0 for a sequence without keys.
      unit: of the first piece; the others follow one by one.
      lead: blocks of the first piece where there are others.
      load: blocks of every further piece but the last; the same for all.
    """

    count: jax.Array
    unit: jax.Array
    lead: jax.Array
    load: jax.Array


def _cut(lengths: jax.Array, plan: Plan) -> _Pieces:
    """Deals the sequences' blocks out to units, in order.

    The room of a unit is what it can take of a sequence, the overhead of that already taken off.
    """
    blocks = -(-lengths // plan.block)
    total = jnp.sum(jnp.where(lengths > 0, blocks + OVERHEAD, 0), dtype=jnp.int32)
    load = jnp.maximum(-(-total // plan.units), 1)
    # A cut before the last block, if that is shorter than the queries, would leave a piece whose
    # first queries see nothing; kernels do not mask that, so the piece before it takes the block.
    short_tail = lengths - (blocks - 1) * plan.block < plan.q_len

    def deal(
        state: tuple[jax.Array, jax.Array], job: tuple[jax.Array, jax.Array, jax.Array]
    ) -> Any:
        unit, room = state
        blocks, short_tail, empty = job
        # A unit without room for more than the overhead leaves the sequence to the next.
        full = room <= 0
        start, lead = unit + full, jnp.where(full, load, room)
        cuts = jnp.where(blocks <= lead, 0, 1 + (blocks - lead - 1) // load)
        last_cut = jnp.where(cuts > 0, lead + (cuts - 1) * load, 0)
        absorbed = short_tail & (cuts > 0) & (last_cut == blocks - 1)
        room_after = jnp.where(cuts > 0, load, lead) - (blocks - last_cut) - OVERHEAD
        cuts = cuts - absorbed
        room_after = jnp.where(absorbed, 0, room_after)
        state = jnp.where(empty, unit, start + cuts), jnp.where(empty, room, room_after)
        return state, (jnp.where(empty, 0, cuts + 1), start, lead)

    axes = compat.varying_axes(lengths)
    unit = compat.vary_over(jnp.zeros((), jnp.int32), axes)
    _, (count, unit, lead) = lax.scan(deal, (unit, load), (blocks, short_tail, lengths == 0))
    return _Pieces(count, unit, lead, load)


def _start(pieces: _Pieces, job: jax.Array, piece: jax.Array) -> jax.Array:
    """First block of a piece."""
    return jnp.where(piece == 0, 0, pieces.lead[job] + (piece - 1) * pieces.load)


def _owner(indptr: jax.Array, slots: jax.Array) -> jax.Array:
    """The range of a CSR row pointer that each slot lies in; the last one for slots past the end.

    Not jnp.searchsorted, which takes no symbolic shapes.
    """
    begins = jnp.zeros_like(slots).at[indptr[1:-1]].add(1, mode="drop")
    return jnp.cumsum(begins, dtype=jnp.int32)


def _count_before(unit: jax.Array, units: int) -> jax.Array:
    """`[units + 1]`: how many works belong to units before each."""
    counts = jnp.zeros_like(unit, shape=units + 1).at[unit + 1].add(1, mode="drop")
    return jnp.cumsum(counts, dtype=jnp.int32)
