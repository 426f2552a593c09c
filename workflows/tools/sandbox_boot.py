"""What `sandbox` starts: a script that shuts itself in, runs one program, and ends all that the program left behind.

Apart from `sandbox` because it must fork, which a process with threads cannot safely do; so it is run as
`python -I -S sandbox_boot.py JOB` and imports the standard library alone.

With namespaces (user, mount, pid, network, ipc, uts, cgroup):

1. a helper that stays outside maps a user for the program into the new user namespace;
2. the first process of the pid namespace, whose end is the end of all others in it, makes a root of its own:
   read-only views of the interpreter and the system's libraries, and one small folder in memory to write to;
3. its child gives up all privileges, takes the limits and becomes the program.

Without them the program runs on the machine as it is, under the limits; what descends from it is found and
ended. Where this user is root, whose processes the kernel does not count, it runs as a user of its own: to all
effects if others can read the interpreter, else for the count alone.
"""

import contextlib
import ctypes
import errno
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

_DEVICES = ("null", "zero", "random", "urandom")
_LIBRARIES = ("/lib", "/lib32", "/lib64", "/libx32", "/usr/lib", "/usr/lib32", "/usr/lib64")
_LOADER_CACHE = "/etc/ld.so.cache"
_OWN_USERS = 1 << 30  # far above the users that systems and containers give out
_NOBODY = 65534
_INSIDE = 1  # the program's user and group in its namespace
_BOX_OPTIONS = "size=32m,nr_inodes=4096,mode=777"
_FILE_BYTES = 16 << 20
_OPEN_FILES = 64
_GRACE_S = 5

# From linux/sched.h, linux/mount.h, linux/fcntl.h and linux/prctl.h.
_CLONE_NEW = (
    0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
)
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_SYS_MOUNT_SETATTR = 442
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_ATTR_RDONLY_NOSUID = 1 | 2
_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_LAST_CAPABILITY = 63

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Job:
    """What `sandbox` asks for, as JSON in the one argument."""

    python: str
    prefixes: list[str]
    folder: str
    """Holds program.py; in namespaces, the new root is mounted over it."""
    box: str
    """In namespaces, the program's folder as it sees it."""
    report: int
    """The pipe that is told how it went."""
    namespaces: bool
    wall_s: float
    memory_bytes: int
    processes: int


def main(job: Job) -> None:
    """Run the job; how it went goes to its report pipe."""
    os.set_inheritable(job.report, False)
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        _volunteer_for_the_oom_killer()
        if job.namespaces:
            _run_in_namespaces(job)
        else:
            _run_in_the_open(job)
    except OSError as error:
        _fail(job, error)


def _run_in_namespaces(job: Job) -> None:
    with open(f"{job.folder}/program.py", "rb") as file:
        program = file.read()
    as_root = os.geteuid() == 0
    _enter_namespaces(as_root=as_root)
    init = os.fork()
    if init == 0:
        try:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            _make_root(job, program)
            child = _start(job, (_INSIDE, _INSIDE) if as_root else None, job.processes)
            _report(job, code=_outlive(child))
        except OSError as error:
            _fail(job, error)
        os._exit(0)
    _kill_when_told(job, init)
    os.waitpid(init, 0)


def _run_in_the_open(job: Job) -> None:
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    become, others = None, 0
    if os.geteuid() == 0:
        user = _own_user()
        become = (user, user if _lets_run(user, job) else 0)
        os.chown(job.folder, become[1], become[1])
    else:
        others = _tasks_of_this_user()
    os.chdir(job.folder)
    child = _start(job, become, job.processes + others)
    _kill_when_told(job, child)
    code = _outlive(child)
    _end_descendants()
    _report(job, code=code, own_user=become is not None and become[1] != 0)


def _enter_namespaces(*, as_root: bool) -> None:
    """New namespaces for this process; a helper that stays outside maps the users, as only it may map more than one."""
    user, group, process = os.geteuid(), os.getegid(), os.getpid()
    maps = {"uid_map": f"{_INSIDE} {user} 1", "gid_map": f"{_INSIDE} {group} 1"}
    if as_root:
        own = f"0 0 1\n{_INSIDE} {_own_user()} 1"
        maps = {"uid_map": own, "gid_map": own}
    else:
        maps = {"setgroups": "deny", **maps}  # the kernel wants that of an ordinary user
    entered, tell = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(tell)
        failed = 0
        try:
            if os.read(entered, 1):
                for name, text in maps.items():
                    with open(f"/proc/{process}/{name}", "w") as file:
                        file.write(text)
        except OSError as error:
            failed = error.errno or errno.EIO
        os._exit(failed)
    os.close(entered)
    failed = _libc.unshare(_CLONE_NEW) and ctypes.get_errno()
    if not failed:
        os.write(tell, b"!")
    os.close(tell)
    unmapped = os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1])
    if failed:
        raise OSError(failed, os.strerror(failed), "user namespace")
    if unmapped:
        raise OSError(unmapped, os.strerror(unmapped), "users of the user namespace")


def _make_root(job: Job, program: bytes) -> None:
    """A root with the interpreter, the system's libraries and four devices, read-only, and the program's folder."""
    jail = f"{job.folder}/jail"
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", job.folder, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,mode=755")
    os.makedirs(jail + job.box)
    for source in sorted({*job.prefixes, *_LIBRARIES}):  # a folder comes before what is in it
        _show(source, jail)
    for source in (_LOADER_CACHE, *(f"/dev/{name}" for name in _DEVICES)):
        _show(source, jail)
    _make_read_only(job.folder)
    _mount("tmpfs", jail + job.box, "tmpfs", _MS_NOSUID | _MS_NODEV, _BOX_OPTIONS)
    with open(f"{jail}{job.box}/program.py", "wb") as file:
        file.write(program)
    os.chdir(job.folder)
    _call("pivot_root", b".", b".")
    _call("umount2", b".", _MNT_DETACH)
    os.chroot("jail")  # whoever is in a chroot gets no further user namespace, and so no privileges
    os.chdir(job.box)


def _show(source: str, jail: str) -> None:
    """The same file, folder or link under the new root, if it is there and not there yet."""
    target = jail + source
    if os.path.lexists(target) or not os.path.lexists(source):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
        return
    if os.path.isdir(source):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    _mount(source, target, None, _MS_BIND | _MS_REC)


def _start(job: Job, become: tuple[int, int] | None, processes: int) -> int:
    """A child that becomes the program, as this real and effective user where they are given."""
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        _drop_privileges(become)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of user
        for limit, most in (
            (resource.RLIMIT_AS, job.memory_bytes),
            (resource.RLIMIT_CPU, int(job.wall_s) + 1),
            (resource.RLIMIT_FSIZE, _FILE_BYTES),
            (resource.RLIMIT_NPROC, processes),
            (resource.RLIMIT_NOFILE, _OPEN_FILES),
            (resource.RLIMIT_CORE, 0),
        ):
            hard = resource.getrlimit(limit)[1]
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(limit, (most, most))
        options = ("-I", "-S", "-B", "-u", "-X", "utf8")
        os.execve(job.python, [job.python, *options, "program.py"], {})  # noqa: S606 - no shell is wanted
    except OSError as error:
        _fail(job, error)


def _drop_privileges(become: tuple[int, int] | None) -> None:
    if os.geteuid() == 0:
        for capability in range(_LAST_CAPABILITY + 1):
            _libc.prctl(
                _PR_CAPBSET_DROP, capability, 0, 0, 0
            )  # fails for those that the kernel lacks
    if become is not None:
        real, effective = become
        os.setgroups([])
        os.setresgid(effective, effective, effective)
        os.setresuid(real, effective, effective)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _own_user() -> int:
    """A user that nobody else is at the moment, so that its processes can be counted; nobody, where there is none to spare."""
    user = _OWN_USERS + os.getpid()
    with open("/proc/self/uid_map") as file:
        for line in file:
            first, _, count = map(int, line.split())
            if first <= user < first + count:
                return user
    return _NOBODY


def _lets_run(user: int, job: Job) -> bool:
    """Whether the interpreter can be read by that user: not where it lies in root's home."""
    os.setresuid(user, user, 0)
    try:
        return all(os.access(path, os.R_OK | os.X_OK) for path in (job.python, *job.prefixes))
    finally:
        os.setresuid(0, 0, 0)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # a change of user forgets it


def _tasks_of_this_user() -> int:
    """Threads that count towards the user's limit before the program has any."""
    mine = str(os.getuid())
    return sum(
        int(status["Threads"])
        for status in _statuses().values()
        if status.get("Uid", "").split()[:1] == [mine]
    )


def _outlive(child: int) -> int:
    """The child's exit code, negative for a signal; orphans are buried on the way."""
    while True:
        ended, status = os.wait()
        if ended == child:
            return os.waitstatus_to_exitcode(status)


def _end_descendants() -> None:
    """All descendants killed; orphans become children of this process, so that none is overlooked."""
    while True:
        family = {os.getpid()}
        parents = {pid: int(status["PPid"]) for pid, status in _statuses().items()}
        while found := {pid for pid, parent in parents.items() if parent in family} - family:
            family |= found
        for pid in family - {os.getpid()}:
            _kill(pid)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return


def _statuses() -> dict[int, dict[str, str]]:
    """What /proc says of every process."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/status", errors="replace") as file:
                found[int(name)] = dict(_keys(file))
        except OSError:  # it has just ended
            continue
    return found


def _keys(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        key, _, value = line.partition(":")
        yield key, value.strip()


def _kill_when_told(job: Job, process: int) -> None:
    """Kill when asked to by a signal; or by the clock, should there be nobody left to ask."""
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, lambda *_: _kill(process))
    signal.alarm(int(job.wall_s) + _GRACE_S)


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _volunteer_for_the_oom_killer() -> None:
    """Many processes may together take more than the machine has, for all that each is limited."""
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def _report(job: Job, **what: object) -> None:
    os.write(job.report, json.dumps(what).encode() + b"\n")


def _fail(job: Job, error: OSError) -> NoReturn:
    _report(job, error=f"{error.filename or 'start'}: {error.strerror}")
    os._exit(1)


def _prctl(option: int, argument: int) -> None:
    _call("prctl", option, argument, 0, 0, 0)


def _mount(
    source: str | None, target: str, kind: str | None, flags: int, options: str | None = None
) -> None:
    texts = [None if text is None else text.encode() for text in (source, target, kind, options)]
    _call("mount", *texts[:3], ctypes.c_ulong(flags), texts[3], about=f"mount {target}")


def _make_read_only(target: str) -> None:
    """A mount and all below it."""
    attributes = (ctypes.c_uint64 * 4)(_ATTR_RDONLY_NOSUID, 0, 0, 0)
    _call(
        "syscall",
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_long(_AT_FDCWD),
        target.encode(),
        ctypes.c_long(_AT_RECURSIVE),
        attributes,
        ctypes.c_size_t(ctypes.sizeof(attributes)),
        about="read-only mount",
    )


def _call(name: str, *arguments: object, about: str | None = None) -> None:
    """A function of the C library that says -1 when it fails. Raises OSError."""
    if getattr(_libc, name)(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), about or name)


if __name__ == "__main__":
    main(Job(**json.loads(sys.argv[1])))
