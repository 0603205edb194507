"""Why there is no room for a model, with the numbers."""

from server.need import Need
from server.pool.eviction import Evict, TooLarge, Verdict, Wait


def no_room(id: str, need: Need, total: Need, verdict: Verdict) -> str:
    """What those who wait for the model are told."""
    text = f"model {id} needs {_sizes(need)}, all models may take {_sizes(total)}"
    match verdict:
        case TooLarge(left=left, pinned=pinned) if pinned:
            text += f", of which {', '.join(pinned)}, pinned, leave {_sizes(left)}"
        case TooLarge():
            text += "; pool.ram_budget and pool.gpu_budget set what they may"
        case Evict(ids=ids) | Wait(ids=ids):
            text += f"; it is preloaded beside {', '.join(ids)}, which leave too little"
    return text


def _sizes(need: Need) -> str:
    """`3.20 GiB of RAM and 10.00 GiB of GPU 0`."""
    parts = [f"{need.ram / 2**30:,.2f} GiB of RAM"]
    parts += [f"{n / 2**30:,.2f} GiB of GPU {i}" for i, n in enumerate(need.gpus)]
    parts += [f"the RPC server {endpoint}" for endpoint in sorted(need.servers)]
    return " and ".join(parts)
