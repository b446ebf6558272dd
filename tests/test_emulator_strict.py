# SPDX-License-Identifier: Apache-2.0
"""The emulator ends a launch that hardware would let pass, and its report says why and where."""

import importlib.util
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from emulator.machine import Counters, Fault, Machine

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("ziglang"), reason="no assembler: pip install ziglang==0.17.1"
)

SOURCE = Path(__file__).parent / "emulator_kernels" / "strict.s"
STRICT = {"waits": 2}
POISON = np.uint32(0xA5A5A5A5)


@cache
def code_object(arch: str) -> bytes:
    """strict.s assembled and linked."""
    zig = (sys.executable, "-m", "ziglang")
    target = ("-target", "amdgcn-amd-amdhsa", f"-mcpu={arch}")
    with tempfile.TemporaryDirectory() as folder:
        part, whole = Path(folder, "strict.o"), Path(folder, "strict.co")
        subprocess.run([*zig, "clang", *target, "-c", SOURCE, "-o", part], check=True)
        subprocess.run([*zig, "ld.lld", "-shared", part, "-o", whole], check=True)
        return whole.read_bytes()


on_archs = pytest.mark.parametrize("arch", ["gfx942", "gfx950"])


class Run:
    """One launch of a kernel of strict.s on fresh memory."""

    def __init__(self, kernel: str, items: int = 64, arch: str = "gfx942", **options: int) -> None:
        self.x = np.arange(100, 100 + max(items, 256), dtype=np.uint32)
        self.y = np.full(max(items, 256), POISON)
        self.machine = Machine(arch, **STRICT | options)
        self.machine.register(self.x, "x", writable=False)
        self.machine.register(self.y, "y", written=False)
        self.code = self.machine.load(code_object(arch))
        self.kernel, self.items = kernel, items

    def launch(self, **changes: object) -> Counters:
        block = np.array([self.x.ctypes.data, self.y.ctypes.data], np.uint64).tobytes()
        arguments = dict(grid=(1, 1, 1), block=(self.items, 1, 1), args=block)
        return self.code.launch(self.kernel, **arguments | changes)


FAULTS = [
    ("load_not_awaited", 64, "load is outstanding.*v_add_u32 v2, 1, v2"),
    ("load_overwritten", 64, "load is outstanding.*v_mov_b32 v2"),
    ("wrong_counter", 64, "load is outstanding.*v_add_u32"),
    ("second_of_two", 64, "load is outstanding.*v_add_u32 v3"),
    ("scalar_not_awaited", 64, "load is outstanding.*s_add_u32 s8"),
    ("scalar_partly_awaited", 64, "load is outstanding.*s_add_u32 s8"),
    ("lds_not_awaited", 64, "load is outstanding.*v_add_u32 v2"),
    ("flat_partly_awaited", 64, "load is outstanding.*v_add_u32 v4"),
    ("load_used_late", 64, "load is outstanding.*v_add_u32 v2"),
    ("stored_data_overwritten", 64, "store wider than 64 bits.*v_mov_b32 v5"),
    ("barrier_without_wait", 256, "without waiting.*written +by wave.*ds_write.*ds_read.*LDS byte"),
    ("wait_without_barrier", 256, "no s_barrier in between.*written +by wave.*ds_read"),
    ("barrier_with_weak_wait", 256, "without waiting.*ds_read.*LDS byte"),
    ("overwritten_by_another_wave", 256, "another wave wrote.*ds_write_b32 v2, v0"),
    ("load_to_lds_not_awaited", 64, "own load has yet to fill.*buffer_load.*lds.*ds_read"),
    ("memory_without_barrier", 256, "no s_barrier in between.*global_load.*'y'"),
    ("barrier_mismatch", 128, "s_barrier that 1 of the workgroup's 2 waves never reach"),
    ("store_beyond", 256, "store of 4 bytes outside.*lane +63.*0 bytes past the end of 'y'"),
    ("store_to_x", 64, "store of 4 bytes is not allowed in 'x'.*at byte 0 of 'x'"),
    ("lds_beyond", 64, "LDS address 0x800 is outside the 2048 bytes"),
    ("scratch_beyond", 64, "scratch offset 0x8 is outside the 8 bytes"),
    ("misaligned_atomic", 64, "misaligned 4-byte atomic.*at byte 2 of 'y'"),
    ("misaligned_scalar", 64, "misaligned scalar access.*at byte 2 of 'x'"),
    ("jump_away", 64, "program counter 0x.* is outside the code"),
    ("unknown_encoding", 64, "unknown instruction encoding.*ffffffff"),
    ("not_implemented", 64, "v_cubeid_f32 is not implemented"),
]


@on_archs
@pytest.mark.parametrize(("kernel", "items", "report"), FAULTS, ids=[f[0] for f in FAULTS])
def test_reported(kernel: str, items: int, report: str, arch: str) -> None:
    with pytest.raises(Fault, match=f"(?s){report}") as caught:
        Run(kernel, items, arch).launch()
    for line in (rf"kernel +{kernel} \({arch}\)", r"workgroup +\(0, 0, 0\)", r"wave +\d"):
        assert caught.match(line)


CLEAN = {
    "add_one": (64, lambda x: x + 1),
    "first_of_two": (64, lambda x: x + 1),
    "exchange_lds": (256, lambda x: (np.arange(len(x)) + 64) % 256),
    "exchange_memory": (256, lambda x: (np.arange(len(x)) + 64) % 256),
    "load_to_lds_awaited": (64, lambda x: x),
    "stored_data_kept": (64, lambda x: np.tile([1, 2, 3, 4], len(x))),
}


@on_archs
@pytest.mark.parametrize("kernel", CLEAN)
def test_the_correct_twin_is_clean(kernel: str, arch: str) -> None:
    items, expected = CLEAN[kernel]
    run = Run(kernel, items, arch, uninitialised=1)
    run.launch()
    wanted = expected(run.x[:items])[: len(run.y)]
    np.testing.assert_array_equal(run.y[: len(wanted)], wanted)
    assert (run.y[len(wanted) :] == POISON).all()


@pytest.mark.parametrize("kernel", ["load_used_late", "barrier_with_weak_wait"])
def test_what_hand_written_kernels_do_passes_unless_strict(kernel: str) -> None:
    Run(kernel, 256, waits=1).launch()


@pytest.mark.parametrize("kernel", ["load_not_awaited", "lds_not_awaited", "scalar_not_awaited"])
def test_use_at_once_is_reported_even_then(kernel: str) -> None:
    with pytest.raises(Fault, match="load is outstanding"):
        Run(kernel, waits=1).launch()
    Run(kernel, waits=0).launch()


def test_a_bare_barrier_is_reported_even_then() -> None:
    with pytest.raises(Fault, match="without waiting"):
        Run("barrier_without_wait", 256, waits=1).launch()


def test_uninitialised_lds() -> None:
    Run("lds_never_written").launch()
    with pytest.raises(Fault, match=r"(?s)nothing has written.*ds_read_b32.*LDS byte 0x0"):
        Run("lds_never_written", uninitialised=1).launch()


def test_never_written_memory() -> None:
    run = Run("add_one", uninitialised=1)
    swapped = np.array([run.y.ctypes.data, run.y.ctypes.data], np.uint64).tobytes()
    with pytest.raises(Fault, match=r"(?s)nothing has written.*at byte 0 of 'y'"):
        run.launch(args=swapped)
    run.launch()  # the kernel itself writes what it then may read
    run.launch(args=swapped)
    np.testing.assert_array_equal(run.y[:64], run.x[:64] + 2)


def test_too_few_arguments() -> None:
    with pytest.raises(Fault, match="8 bytes of arguments; it declares 16"):
        Run("add_one").launch(args=bytes(8))


@pytest.mark.parametrize(("arch", "limit"), [("gfx942", 64), ("gfx950", 160)])
def test_lds_limit(arch: str, limit: int) -> None:
    Run("exchange_lds", 256, arch).launch(dynamic_lds=limit * 1024 - 2048)
    with pytest.raises(Fault, match=f"{limit * 1024 + 4} bytes of LDS; {arch} has {limit * 1024}"):
        Run("exchange_lds", 256, arch).launch(dynamic_lds=limit * 1024 - 2048 + 4)


def test_workgroup_limits() -> None:
    with pytest.raises(Fault, match="1025 work-items; the limit is 1024"):
        Run("add_one").launch(block=(1025, 1, 1))
    Run("many_registers").launch(block=(512, 1, 1))
    with pytest.raises(Fault, match="do not fit a SIMD"):
        Run("many_registers").launch(block=(1024, 1, 1))


def test_instruction_limit() -> None:
    with pytest.raises(Fault, match="more than 1000 instructions"):
        Run("endless", max_instructions=1000).launch()


def test_unknown_kernel_and_option() -> None:
    with pytest.raises(Fault, match=r"no kernel 'nothing'.*add_one"):
        Run("nothing").launch()
    with pytest.raises(Fault, match="no option 'speed'"):
        Machine("gfx942", speed=1)


def test_wrong_architecture() -> None:
    with pytest.raises(Fault, match="is for gfx950, the device is gfx942"):
        Machine("gfx942").load(code_object("gfx950"))


@pytest.mark.parametrize("size", [0, 63, 500, 4000])
def test_truncated_code_object(size: int) -> None:
    with pytest.raises(Fault, match=r"ELF|truncated"):
        Machine("gfx942").load(code_object("gfx942")[:size])


def test_extents_confine_a_launch() -> None:
    """Two arrays in one allocation, as under JAX: an overrun of one element is seen."""
    arena = np.full(1024, POISON)
    machine = Machine("gfx942", **STRICT)
    machine.register(arena, "arena")
    x, y, neighbour = arena[:64], arena[64:128], arena[128:192]
    x[:] = np.arange(64)
    code = machine.load(code_object("gfx942"))
    block = np.array([x.ctypes.data, y.ctypes.data], np.uint64).tobytes()
    launch = dict(grid=(1, 1, 1), block=(64, 1, 1), args=block)
    extents = [(x, "x", False), (y, "y", True)]

    counters = code.launch("add_one", **launch, extents=extents)
    np.testing.assert_array_equal(y, x + 1)
    assert set(counters.traffic) == {"x", "y", "kernel arguments"}
    assert counters.traffic["y"].written_distinct == 256

    code.launch("store_beyond", **launch)  # without extents the arena hides it
    assert neighbour[0] == 63
    neighbour[:] = POISON
    with pytest.raises(Fault, match=r"(?s)lane +63.*0 bytes past the end of 'y'"):
        code.launch("store_beyond", **launch, extents=extents)
    assert (neighbour == POISON).all()
    with pytest.raises(Fault, match="not allowed in 'x'"):
        code.launch("store_to_x", **launch, extents=extents)
    with pytest.raises(Fault, match="does not lie in one registered allocation"):
        code.launch("add_one", **launch, extents=[(np.zeros(4), "elsewhere", True)])


def test_counters_and_traffic() -> None:
    run = Run("add_one", 256)
    touched = run.machine.track(run.x)
    arguments = run.machine.track_arguments(16)
    counters = run.launch(block=(128, 1, 1), grid=(3, 1, 1))
    assert (counters.workgroups, counters.waves, counters.barriers) == (3, 6, 0)
    assert counters.scalar_memory == 6
    assert counters.vector_memory == 12
    assert counters.vector == 12
    assert counters.control == 18  # two s_waitcnt and s_endpgm
    assert counters.instructions == 6 + 12 + 12 + 18
    x, y = counters.traffic["x"], counters.traffic["y"]
    assert (x.read_total, x.read_distinct, x.written_total) == (3 * 512, 512, 0)
    assert (y.written_total, y.written_distinct, y.read_total) == (3 * 512, 512, 0)
    assert counters.traffic["kernel arguments"].read_distinct == 16
    assert (touched[:512] == 1).all() and not touched[512:].any()
    assert (arguments == 1).all()


def test_barriers_are_counted_once_a_wave() -> None:
    assert Run("exchange_lds", 256).launch().barriers == 4


@pytest.mark.parametrize("options", [dict(threads=2), dict(resident=3), dict(quantum=1000)])
def test_scheduling_changes_nothing(options: dict[str, int]) -> None:
    run = Run("exchange_lds", 256, **options)
    counters = run.launch(grid=(7, 1, 1))
    np.testing.assert_array_equal(run.y, (np.arange(256) + 64) % 256)
    assert counters.workgroups == 7
    assert counters.traffic["y"].written_distinct == 1024
