"""`python -m bench`: build what is missing, measure all servers in turn, report the ratios."""

import argparse
import compileall
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
from rich.console import Console

from bench import batched_bench, build, charts, estimates, exact, inprocess, pool, report, starts
from bench.measure import Outcome, Plan, Recorder, Run
from bench.model import EMBEDDED, FIRST, SECOND, ModelError, end_tokens, ensure_model
from bench.scenarios import SCENARIOS
from bench.servers import (
    BEST_FLAGS,
    CORRAL,
    REPOSITORY,
    Setup,
    Spec,
    all_specs,
    candidates,
    is_present,
)

OUT = Path(__file__).resolve().parent / "out"
PEERS = (
    *(spec.name for spec in all_specs("") if spec.name != CORRAL),
    batched_bench.NAME,
)
MORE: dict[str, Callable[[Setup, Plan, Recorder], None]] = {
    "exact": exact.measure,
    "pool": pool.measure,
    "starts": starts.measure,
    "inprocess": inprocess.measure,
    "estimates": estimates.measure,
}
"""What starts its own servers, or none."""
SCENARIO_NAMES = (*(scenario.name for scenario in SCENARIOS), *MORE)


def _choice(choices: Sequence[str]) -> Callable[[str], str]:
    """An argparse type: names of these, joined by commas."""

    def parse(text: str) -> str:
        unknown = set(text.split(",")) - set(choices)
        if unknown:
            raise argparse.ArgumentTypeError(f"{min(unknown)!r} is none of {', '.join(choices)}")
        return text

    return parse


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take medians of")
    parser.add_argument(
        "--only",
        type=_choice(SCENARIO_NAMES),
        nargs="+",
        default=[",".join(SCENARIO_NAMES)],
        help=f"scenarios: {', '.join(SCENARIO_NAMES)}",
    )
    parser.add_argument(
        "--peers",
        type=_choice(PEERS),
        default=",".join(PEERS),
        help=f"servers to compare with, joined by commas: {', '.join(PEERS)}",
    )
    parser.add_argument("--best", default=BEST_FLAGS, help="llama-server's best flags")
    parser.add_argument("--tune", action="store_true", help="look for llama-server's best flags")
    parser.add_argument("--quick", action="store_true", help="one round, to see that all works")
    parser.add_argument(
        "--threads",
        type=int,
        default=psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        help="threads of every server",
    )
    parser.add_argument("--source", type=Path, default=EMBEDDED, help="the GGUF to requantise")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9, help="of the prompts")
    return parser.parse_args()


def _prepare(arguments: argparse.Namespace, peers: set[str], say: Callable[[str], None]) -> Setup:
    """Build and download whatever this run needs and has not got."""
    cache = build.open_cache()
    say(f"building llama-server in {cache.root} (minutes, the first time)")
    build.ensure_binaries(cache)
    if "example" in peers:
        say("preparing the example server's environment")
        build.ensure_example(cache)
    say("requantising the models")
    model, second = (ensure_model(cache.root, q, arguments.source) for q in (FIRST, SECOND))
    # An installed package has its bytecode, and so has what the peers are made of.
    compileall.compile_dir(REPOSITORY / "server", quiet=1)
    folder = Path(tempfile.mkdtemp(prefix="corral-bench-"))
    return Setup(cache, model, second, tuple(end_tokens(model)), arguments.threads, folder)


def _measure(setup: Setup, plan: Plan, names: set[str], recorder: Recorder) -> None:
    if plan.scenarios:
        Run(plan, setup, recorder).run()
    for name, measure in MORE.items():
        if name in names:
            measure(setup, plan, recorder)


def _describe(arguments: argparse.Namespace, setup: Setup, n_rounds: int) -> dict[str, str]:
    """What a reader needs to judge the figures."""
    memory = psutil.virtual_memory().total / 2**30
    return {
        "machine": f"{_processor()}, {os.cpu_count()} logical cores, {memory:.0f} GiB",
        "model": setup.model.name,
        "llama-cpp-python": build.llama_cpp_version(),
        "python": platform.python_version(),
        "threads": str(setup.n_threads),
        "rounds": str(n_rounds),
        "seed": str(arguments.seed),
        "logs": str(setup.folder),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _show(console: Console, outcome: Outcome, comparisons: list[report.Comparison]) -> None:
    figures = report.figure_rows(outcome.measurements)
    console.print(report.rich_table("Figures", report.FIGURES_HEAD, figures))
    if comparisons:
        rows = report.comparison_rows(comparisons)
        console.print(report.rich_table("Ratios, ours / peer", report.COMPARISON_HEAD, rows))
    for remark in report.remarks(outcome, comparisons):
        console.print(f"[yellow]{remark}")


def _choose_servers(arguments: argparse.Namespace, console: Console) -> list[Spec]:
    if arguments.tune:
        return list(candidates())
    wanted = {CORRAL, *arguments.peers.split(",")}
    specs = [spec for spec in all_specs(arguments.best) if spec.name in wanted]
    if not all(is_present(spec) for spec in specs):
        console.print("[yellow]Corral is not there (no server/__main__.py): peers only, no ratios")
    return [spec for spec in specs if is_present(spec)]


def main() -> int:
    """Run the benchmark; 1 if anything could not be measured."""
    # Leave by way of the context managers that stop the servers.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    arguments = _parse_arguments()
    console = Console()
    only = {name for names in arguments.only for name in names.split(",")}
    specs = _choose_servers(arguments, console)
    n_rounds = 1 if arguments.quick else arguments.rounds
    chosen = [scenario for scenario in SCENARIOS if scenario.name in only]
    with_ceilings = batched_bench.NAME in arguments.peers.split(",") and not arguments.tune
    plan = Plan(specs, chosen, n_rounds, arguments.seed, with_ceilings)
    try:
        with console.status("") as status:
            setup = _prepare(arguments, {spec.name for spec in specs}, status.update)
            recorder = Recorder(n_rounds, status.update)
            _measure(setup, plan, set() if arguments.tune else only, recorder)
    except (build.BuildError, ModelError) as error:
        console.print(f"[red]{error}")
        return 1
    outcome = recorder.outcome
    comparisons = list(report.compare(outcome.measurements))
    _show(console, outcome, comparisons)
    folder = OUT / "tune" if arguments.tune else OUT
    report.write(folder, _describe(arguments, setup, n_rounds), outcome, comparisons)
    pictures = charts.draw(folder, comparisons, {spec.name: spec.title for spec in specs})
    console.print(f"written to {folder}: results.json, results.md, {len(pictures)} charts")
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
