"""The process that makes quants."""

from server.engine import errand
from server.engine.llama.quantize import quantize
from server.errands import Advance, Quantize, Quantized


def do(job: Quantize, tell: errand.Tell) -> Quantized:
    """Make one quant, or plan it. Raises EngineError."""

    def advance(n_bytes: int) -> None:
        if job.plan is not None:
            tell(Advance(n_bytes, job.plan.n_bytes))

    return quantize(job, advance)


if __name__ == "__main__":
    errand.run(Quantize, do)
