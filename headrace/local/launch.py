"""Run as a script: start a service that outlives its caller, and never twice.

`python launch.py LOCK_FILE LOG_FILE PROGRAM ARGUMENT…` detaches, takes an exclusive lock on LOCK_FILE, writes its
process id into it and becomes PROGRAM. A POSIX lock stays with a process through exec, is not inherited by children
and is dropped by the kernel when the process ends, so 'locked' means 'running', whatever was killed or rebooted in
between, and a process id read from a locked file is never a stranger's. Exits when the service holds the lock.
"""

import fcntl
import os
import signal
import sys

LOCK_WAIT_S = 10


def main(lock_file: str, log_file: str, command: list[str]) -> None:
    """Fork; the child becomes the service, the parent exits as soon as it is locked (0) or could not be started (1)."""
    reader, writer = os.pipe()
    if os.fork() != 0:
        os.close(writer)
        answer = os.read(reader, 4096)
        sys.exit(0 if answer == b"locked" else f"error: {answer.decode(errors='replace') or 'it ended at once'}")
    os.setsid()
    try:
        lock = _lock(lock_file)
        log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nowhere = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nowhere, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        os.set_inheritable(lock, True)
        os.write(writer, b"locked")
        os.close(writer)  # an exec that fails now is seen as a service that isn't running, its reason in the log
        os.execv(command[0], command)
    except OSError as error:
        os.write(2, f"error: {command[0]} could not be started: {error}\n".encode())
        os._exit(1)


def _lock(lock_file: str) -> int:
    """The locked file's descriptor. Looking at it takes a shared lock for a moment, hence the wait."""
    lock = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o600)
    signal.alarm(LOCK_WAIT_S)  # its default action ends this process: nothing is started
    fcntl.lockf(lock, fcntl.LOCK_EX)
    signal.alarm(0)
    return lock


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
