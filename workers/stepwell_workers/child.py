"""A child process that runs a worker, and the child's side: which one it is, and its parent's end.

A child is in a session of its own: the terminal's Ctrl-C reaches it once, through its parent.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from typing import Final, Self

_FD: Final = "STEPWELL_PARENT_FD"
_INDEX: Final = "STEPWELL_PROCESS"


class Child:
    """A running child process.

    child = await Child.start([sys.executable, "-m", "stepwell.cli", "worker", "app:client"])
    child.send(signal.SIGTERM)
    code = await child.ended()
    """

    def __init__(self, process: asyncio.subprocess.Process, pipe: int) -> None:
        self._process = process
        self._pipe = pipe

    @classmethod
    async def start(
        cls, command: Sequence[str], *, index: int = 0, env: Mapping[str, str] | None = None
    ) -> Self:
        """Start `command`; it may call `watch_parent` and `process_index`. Raises OSError."""
        # The child reads from a pipe that only we can write to, so it ends when we do, by whatever.
        # PDEATHSIG would be shorter, but fires when the *thread* that forked ends; macOS has none.
        reader, writer = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                env={**(os.environ if env is None else env), _FD: str(reader), _INDEX: str(index)},
                pass_fds=(reader,),
                start_new_session=True,
            )
        except BaseException:
            os.close(writer)
            raise
        finally:
            os.close(reader)
        return cls(process, writer)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if it has ended."""
        try:
            self._process.send_signal(number)
        except ProcessLookupError:
            pass

    async def ended(self) -> int:
        """Wait for its end: the exit code, or minus the signal that killed it."""
        code = await self._process.wait()
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        return code


def describe(code: int) -> str:
    """An exit code in words: `exit code 3`, `SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def process_index() -> int:
    """Which of its parent's children this process is, from 0; 0 without a parent."""
    return int(os.environ.get(_INDEX, "0"))


def watch_parent() -> bool:
    """In a child: send oneself SIGTERM, so drain, when the parent ends. False without a parent."""
    descriptor = os.environ.pop(_FD, "")  # popped: it means nothing to children of ours
    if not descriptor:
        return False
    threading.Thread(
        target=_wait_for_end, args=(int(descriptor),), name="stepwell-parent", daemon=True
    ).start()
    return True


def _wait_for_end(descriptor: int) -> None:
    os.set_inheritable(descriptor, False)
    os.read(descriptor, 1)  # nothing is ever written: it returns at the end of the last writer
    os.kill(os.getpid(), signal.SIGTERM)
