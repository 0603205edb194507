"""What llama.cpp says of the demo model, and what a pool with real workers makes of that."""

from pathlib import Path

from pydantic import ByteSize

from server.config import Config, ModelConfig, PoolConfig
from server.engine_config import EngineConfig
from server.errors import EngineError, Unavailable
from server.ipc import GenerateRequest, Text
from server.need import Need
from server.placement import Placement, least
from server.pool.catalog import Entry, read_catalog
from server.pool.footprints import Footprints
from server.pool.header_cache import HeaderCache
from server.pool.oracle import Oracle
from server.pool.pool import ModelPool
from server.pool.process import COMMAND
from server.pool.spare import Spare
from server.sampling import SamplingParams
from tests.pool.test_pool import running, text

ENGINE = EngineConfig(
    n_ctx=8192,
    n_slots=1,
    n_ubatch=512,
    n_threads=1,
    flash_attn="off",
    prefix_cache=ByteSize(0),
)
"""Its buffers are those of attention's scores, which are a little less than they are estimated."""


class Silent(Oracle):
    """Has no answer."""

    async def beyond(self, entry: Entry, placed: Placement) -> Need:
        raise EngineError(f"no dry run of {entry.id} in {placed.layout.name}")


def configured(path: Path, ram_budget: int) -> Config:
    return Config(
        models={"m": ModelConfig(path=path, engine=ENGINE)},
        hf_cache="off",
        pool=PoolConfig.model_validate({"ram_budget": ram_budget}),
    )


async def serves(config: Config, oracle: Oracle) -> bool:
    """Whether there is room for the model, which then answers."""
    pool = ModelPool(config, Spare(COMMAND), footprints=Footprints(None), oracle=oracle)
    async with running(pool):
        await pool.start()
        try:
            lease = await pool.lease("m", 60)
        except Unavailable as error:
            assert "m needs 0.51 GiB of RAM, all models may take 0.51" in error.message
            return False
        asked = GenerateRequest(Text("One, two, three,"), SamplingParams(temperature=0), 4)
        answer = await text(lease.worker.submit(asked))
        lease.release()
        return answer.startswith(" four")


async def test_llama_lets_a_model_in_that_the_estimate_alone_refuses(model_path: Path) -> None:
    """Just below the estimate, but not below what llama.cpp says."""
    entry = read_catalog(configured(model_path, 0), HeaderCache(None)).entries["m"]
    assert entry.header is not None
    placed = least(entry.header, ENGINE, Need(2**40))
    more = await Oracle().beyond(entry, placed)
    assert -(2**20) < more.ram < -(2**18)
    between = configured(model_path, placed.need.ram + more.ram // 2)
    assert not await serves(between, Silent())
    assert await serves(between, Oracle())
    assert not await serves(configured(model_path, placed.need.ram + 2 * more.ram), Oracle())
