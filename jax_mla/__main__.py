# SPDX-License-Identifier: Apache-2.0
"""`python -m jax_mla explain`: what a decode call comes to on a GPU. `doctor`: what is here.
`bench`: how long decode takes on the default device."""

import argparse
import sys

from jax_mla import bench, doctor, kernel_page
from jax_mla.explain import explain_sizes
from jax_mla.kernels import MODES
from jax_mla.lowering import HEAD_PLANS, IMPLEMENTATIONS
from jax_mla.target import Target, resolve


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m jax_mla", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_explain(commands.add_parser("explain", help="kernel, padding, splits, bytes of a call"))
    _add_doctor(commands.add_parser("doctor", help="what decode can run on here, what is wrong"))
    bench.add_arguments(
        commands.add_parser("bench", help="times decode on the default device"), _positive
    )
    options = parser.parse_args(arguments)
    if options.command == "bench":
        return bench.main(options)
    if options.command == "doctor":
        return doctor.main(as_json=options.json, with_selftest=options.selftest)
    return _explain(options)


def _add_explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--heads", type=_positive, default=4, help="query heads (4)")
    parser.add_argument("--q-len", type=_positive, default=1, help="query tokens per sequence (1)")
    parser.add_argument("--dtypes", choices=kernel_page.DTYPES, default="bf16", help="q-cache")
    parser.add_argument("--mode", choices=MODES, default="split")
    parser.add_argument("--batch", type=_positive, default=32, help="sequences (32)")
    parser.add_argument("--tokens", type=_positive, default=8192, help="of a full sequence (8192)")
    parser.add_argument("--page-size", type=_positive, default=64, help="tokens of a page (64)")
    parser.add_argument("--arch", help="gfx942 or gfx950; default: the GPU here, or gfx942")
    parser.add_argument("--compute-units", type=_positive, help="of --arch (MI300X's, MI355X's)")
    parser.add_argument("--implementation", choices=IMPLEMENTATIONS, default="asm")
    parser.add_argument("--head-plan", choices=HEAD_PLANS)
    parser.add_argument("--num-kv-splits", type=_positive)
    parser.add_argument("--page", action="store_true", help="print docs/kernels.md")


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--selftest", action="store_true", help="run decode on the default device as well"
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {number}")
    return number


def _explain(options: argparse.Namespace) -> int:
    if options.page:
        print(kernel_page.page(), end="")
        return 0
    try:
        target = resolve(None, "rocm")
        if options.arch is not None:
            target = kernel_page.TARGETS.get(options.arch) or Target(options.arch, 1)
        if options.compute_units is not None:
            target = Target(target.arch, options.compute_units)
        said = explain_sizes(
            options.heads,
            target=target,
            dtypes=options.dtypes,
            q_len=options.q_len,
            mode=options.mode,
            batch=options.batch,
            tokens=options.tokens,
            page_size=options.page_size,
            implementation=options.implementation,
            head_plan=options.head_plan,
            num_kv_splits=options.num_kv_splits,
        )
    except (NotImplementedError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
