"""Where the CPU kernels' threads come from: the OpenMP runtime of the process, however it was loaded, or none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import labeldrop_bench as lb

ROOT = Path(__file__).parents[1]
MAIN = """
#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <mutex>
#include <set>

#include "threads.h"

std::mutex lock;
std::set<std::pair<int, int>> shares;
std::set<int> threads;

int64_t work(const void*, int thread, int count) {
  usleep(50000);  // long enough for one share not to run after the other
  const std::lock_guard<std::mutex> guard(lock);
  shares.insert({thread, count});
  threads.insert(gettid());
  return thread == 2 ? 7 : thread == 1 ? 9 : labeldrop::kNothing;
}

int main(int count, char** arguments) {
  if (count > 1 && !dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL)) return 1;
  for (int round = 0; round < 2; ++round) printf("%ld ", labeldrop::least_of_threads(3, work, nullptr));
  printf("%zu %zu %d\\n", shares.size(), threads.size(), shares.begin()->second);
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prints what two rounds of three threads found, how many shares and threads there were, what they were told."""
    compiler = os.environ.get("CXX", "c++")
    if sys.platform != "linux" or shutil.which(compiler) is None or not (ROOT / "csrc").exists():
        pytest.skip("compiles a source file of the checkout, on Linux")
    folder = tmp_path_factory.mktemp("threads")
    (folder / "main.cpp").write_text(MAIN, encoding="utf-8")
    place = ROOT / "csrc" / "cpu"
    files = [str(folder / "main.cpp"), str(place / "threads.cpp")]
    command = [compiler, "-std=c++17", f"-I{place}", *files, "-o", str(folder / "program"), "-pthread", "-ldl"]
    subprocess.run(command, check=True)
    return folder / "program"


def run(program: Path, *arguments: str) -> list[str]:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_without_a_runtime_one_thread_does_it_all(program: Path) -> None:
    nothing = str(2**63 - 1)  # what the first of one thread finds
    assert run(program) == [nothing, nothing, "1", "1", "1"]


def test_a_runtime_that_only_its_library_sees_is_found(program: Path, tmp_path: Path) -> None:
    """As a wheel of torch brings it: under a name of its own, for torch alone. Its pool serves both rounds."""
    where = subprocess.run(["c++", "-print-file-name=libgomp.so.1"], capture_output=True, text=True, check=True)
    runtime = Path(where.stdout.strip())
    if not runtime.is_absolute():
        pytest.skip("no OpenMP runtime of the compiler")
    copy = tmp_path / "libgomp-0a1b2c3d.so.1.0.0"
    shutil.copyfile(runtime.resolve(), copy)
    assert run(program, str(copy)) == ["7", "7", "3", "3", "3"]


COUNT_THREADS = """
import os
import torch
import labeldrop_bench as lb

torch.set_num_threads(3)
loss = lb.CrossEntropy(4)
print(len(os.listdir("/proc/self/task")))
for side in (8, 256):
    loss(torch.zeros(2, 4, side, side), torch.zeros(2, side, side, dtype=torch.uint8))
    print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads of a process as Linux lists them")
def test_no_more_threads_are_woken_than_there_is_work_for() -> None:
    place = Path(lb.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", COUNT_THREADS], cwd=place, capture_output=True, text=True, check=True)
    before, tiny, large = map(int, done.stdout.split())
    assert tiny == before
    assert large == before + 2
