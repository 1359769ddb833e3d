"""Starts a command so that it ends when its parent does, whatever ended that. Run by path, not imported.

    python -I -S guarded_child.py PARENT_PID kernel|pipe COMMAND...

"kernel" asks Linux to kill this process when the thread that started it ends, and then becomes the command. "pipe",
for other systems, stays its parent and kills its process group when standard input, held by who started it, ends.
Inheritable file descriptors reach the command either way.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading

_PR_SET_PDEATHSIG = 1


def main(parent: int, how: str, command: list[str]) -> int:
    if how == "kernel":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the kernel was asked
            return 1
        try:
            os.execvp(command[0], command)  # noqa: S606
        except OSError as error:
            sys.stderr.write(f"{command[0]} cannot be started: {error.strerror}\n")
            return 127
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False)  # it may inherit sockets
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error.strerror}\n")
        return 127
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the group got it: the child ends, and then this process
    threading.Thread(target=_kill_at_end_of_input, daemon=True).start()
    code = child.wait()
    return 128 - code if code < 0 else code


def _kill_at_end_of_input() -> None:
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
