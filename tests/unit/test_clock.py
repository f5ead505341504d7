import subprocess
import sys

from stepwell.clock import Clock, SystemClock, VirtualClock


def test_a_virtual_clock_is_the_system_plus_its_offset():
    system: Clock = SystemClock()
    virtual: Clock = VirtualClock(3_600_000)
    before = system.now_ms()
    assert before + 3_600_000 <= virtual.now_ms() <= system.now_ms() + 3_600_000
    assert system.offset_ms == 0
    moved = VirtualClock()
    moved.offset_ms += 5
    assert moved.offset_ms == 5


def test_importing_stepwell_loads_no_server_no_pydantic_and_no_engine():
    code = (
        "import sys, stepwell; "
        "print([m for m in ('redis', 'pydantic', 'celpy', 'hiredis', 'stepwell_engine', "
        "'stepwell_workers', 'typer', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
