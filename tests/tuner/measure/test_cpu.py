import os
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest

from tuner.errors import UserError
from tuner.measure import between
from tuner.measure.cpu import CpuMeter

BUSY = "while True: pass"
# A worker that burns half a second and ends, then a long sleep: the work is done by a child that is gone.
HIRES = """
import subprocess, sys, time
burn = "import time\\nwhile time.process_time() < 0.5: pass"
subprocess.run([sys.executable, "-c", burn])
print("done", flush=True)
time.sleep(60)
"""
# The same with a worker that lives on.
KEEPS = """
import subprocess, sys, time
burn = "import time\\nwhile time.process_time() < 0.5: pass\\nprint('done', flush=True)\\ntime.sleep(60)"
subprocess.run([sys.executable, "-c", burn])
"""


@contextmanager
def running(code):
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        yield child
    finally:
        children = psutil.Process(child.pid).children() if child.returncode is None else []
        for process in [*children, child]:
            process.kill()
        child.wait()
        child.stdout.close()


def cpu_s(pid):
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def test_joules_follow_the_cpu_seconds_of_the_process_and_not_the_clock():
    with running(BUSY) as child:
        meter = CpuMeter(child.pid, watts_per_core=20.0)
        before_s, first = cpu_s(child.pid), meter.read()
        time.sleep(0.5)
        last, after_s = meter.read(), cpu_s(child.pid)
        joules = between(meter, first, last).gross_j
    assert joules > 0
    assert joules == pytest.approx(20.0 * (after_s - before_s), abs=20.0 * 0.05)


def test_a_process_that_waits_costs_nothing():
    with running("import time; print('up', flush=True); time.sleep(60)") as child:
        child.stdout.readline()
        meter = CpuMeter(child.pid)
        first = meter.read()
        time.sleep(0.2)
        assert between(meter, first, meter.read()).gross_j <= 10.0 * 0.02


@pytest.mark.parametrize("code", [HIRES, KEEPS])
def test_work_of_children_counts_while_they_live_and_after(code):
    with running(code) as child:
        meter = CpuMeter(child.pid, watts_per_core=1.0)
        assert child.stdout.readline() == b"done\n"
        assert meter.read().joules >= 0.45
        assert meter.read().joules < 5


@pytest.mark.parametrize("reaped", [True, False])
def test_a_server_that_has_ended_is_a_problem(reaped):
    with running(BUSY) as child:
        meter = CpuMeter(child.pid)
        first = meter.read()
        child.kill()
        if reaped:
            child.wait()
        else:
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        reading = between(meter, first, meter.read())
        assert reading.gross_j is None
        assert str(child.pid) in reading.problem


def test_a_process_that_does_not_exist_is_refused():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with pytest.raises(UserError, match=f"process {child.pid}"):
        CpuMeter(child.pid)


def test_the_scope_says_what_was_assumed():
    assert (
        CpuMeter(os.getpid(), watts_per_core=7.5).scope
        == f"server process {os.getpid()} at 7.5 W per busy core"
    )
