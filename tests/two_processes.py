"""Code that two processes run together."""

import subprocess
import sys

_BEGIN = """
import sys, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
import labeldrop_bench as lb
rank = int(sys.argv[1])
mine = slice(2 * rank, 2 * rank + 2)  # of four samples
def join():
    dist.init_process_group("gloo", rank=rank, world_size=2, init_method="file://" + sys.argv[2])
torch.manual_seed(0)
"""


def run_in_two_processes(code, folder):
    """Code that calls `join()` when it wants to be one of two. It fails if it does in one of them."""
    command = [sys.executable, "-c", f"{_BEGIN}{code}dist.destroy_process_group()"]
    processes = [
        subprocess.Popen([*command, str(rank), str(folder / "store")], cwd=folder, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
