import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from collections.abc import Callable
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest

from workflows.tools import sandbox
from workflows.tools.sandbox import Ran
from workflows.tools.sandbox import isolation
from workflows.tools.sandbox import run_python

Run = Callable[..., Coroutine[Any, Any, Ran]]
LINUX = sys.platform == "linux"
pytestmark = pytest.mark.skipif(not LINUX, reason="programs are run on Linux only")


async def run_in_the_open(program: str, *, wall_s: float = 5.0) -> Ran:
    limits = sandbox._Limits(wall_s, 1024, 16, 16 << 10)
    return (await sandbox._run(program, limits, namespaces=False))[0]


@pytest.fixture(params=["namespaces", "open"])
def run(request: pytest.FixtureRequest) -> Run:
    """Both ways that programs are run; the first is skipped where the machine has no namespaces."""
    if request.param == "open":
        return run_in_the_open
    request.getfixturevalue("shut_in")
    return run_python


@pytest.fixture
def shut_in() -> None:
    if isolation().files is not None:
        pytest.skip(f"not on this machine: {isolation().files}")


@pytest.fixture
def marker() -> str:
    return f"marker-{uuid.uuid4().hex}"


def marked(marker: str) -> list[int]:
    """The machine's processes with that word on their command line."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if marker in (process.info["cmdline"] or [])
    ]


async def until_marked(marker: str) -> None:
    async with asyncio.timeout(5):
        while not marked(marker):
            await asyncio.sleep(0.02)


def again(marker: str, code: str) -> str:
    """A program that becomes `code` under a command line with the marker."""
    code = textwrap.dedent(code)
    return (
        f"import os, sys\nos.execv(sys.executable, [sys.executable, '-ISc', {code!r}, {marker!r}])"
    )


# What programs give


@pytest.mark.parametrize(
    ("program", "output", "code"),
    [
        ("print('größer ☃')", "größer ☃\n", 0),
        ("import sys; print('a'); print('b', file=sys.stderr); print('c')", "a\nb\nc\n", 0),
        ("raise SystemExit(3)", "", 3),
        ("raise SystemExit('no')", "no\n", 1),
        ("import os; os._exit(200)", "", 200),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "", -signal.SIGTERM),
        ("import os; os.abort()", "", -signal.SIGABRT),
        ("import sys; print(repr(sys.stdin.read()))", "''\n", 0),
        ("import os; print(os.listdir())", "['program.py']\n", 0),
        ("open('note', 'w').write('kept'); print(open('note').read())", "kept\n", 0),
        ("", "", 0),
    ],
)
async def test_output_and_exit_code(run: Run, program: str, output: str, code: int) -> None:
    ran = await run(program)
    assert ran == Ran(output, code, "exit", truncated=False)


@pytest.mark.parametrize("program", ["x = (", "def f(:", "\x00", "\ud800", "  x = 1"])
async def test_what_is_no_program_is_an_error_of_the_program(run: Run, program: str) -> None:
    ran = await run(program)
    assert ran.exit_code == 1
    assert "Error" in ran.output
    assert "/program.py" not in ran.output


async def test_the_environment_and_open_files_are_not_inherited(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET", "open sesame")
    with (tmp_path / "secret").open("w+") as file:
        os.set_inheritable(file.fileno(), True)
        ran = await run(
            """
import os
assert not {"SECRET", "HOME", "PATH"} & set(os.environ), os.environ
for number in range(3, 1024):
    try:
        os.fstat(number)
    except OSError:
        continue
    raise SystemExit(f"{number} is open")
try:
    import pydantic
except ImportError:
    print("alone")
"""
        )
    assert (ran.output, ran.exit_code) == ("alone\n", 0)


@pytest.mark.slow
async def test_many_at_once(run: Run) -> None:
    rans = await asyncio.gather(*(run(f"print({number})", wall_s=20) for number in range(24)))
    assert [ran.output for ran in rans] == [f"{number}\n" for number in range(24)]


# What is taken from them


async def test_an_endless_loop_ends_at_the_wall_clock(run: Run, marker: str) -> None:
    started_s = time.perf_counter()
    ran = await run(again(marker, "print('on', flush=True)\nwhile True: pass"), wall_s=0.6)
    assert time.perf_counter() - started_s < 2
    assert (ran.ended, ran.exit_code, ran.output) == ("time", None, "on\n")
    assert not marked(marker)


def use_the_systems_python(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        return
    found = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if found is None:
        pytest.skip("root's processes are not counted, and there is no interpreter for others")
    monkeypatch.setattr(sys, "executable", found)
    for prefix in ("base_prefix", "base_exec_prefix"):
        monkeypatch.setattr(sys, prefix, str(Path(found).parents[1]))


# Without a limit, it would stop by itself at 64 processes.
BOMB = """
import os, time
for _ in range(6):
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        print("refused", flush=True)
time.sleep(30)
"""


@pytest.mark.slow
async def test_a_fork_bomb_leaves_no_process(run: Run, marker: str) -> None:
    task = asyncio.create_task(run(again(marker, BOMB), wall_s=1))
    await until_marked(marker)
    await asyncio.sleep(0.3)
    assert 2 <= len(marked(marker)) <= 16
    ran = await task
    assert (ran.ended, "refused" in ran.output) == ("time", True)
    assert not marked(marker)


async def test_without_namespaces_root_becomes_another_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    use_the_systems_python(monkeypatch)
    limits = sandbox._Limits(5, 1024, 16, 1024)
    ran, own_user = await sandbox._run(
        f"""
import os
print(os.getuid() == os.geteuid() >= 65534, os.getgroups())
for attempt in (
    lambda: os.kill({os.getpid()}, 0),
    lambda: os.kill(os.getppid(), 9),
    lambda: open("/proc/{os.getpid()}/environ").read(),
    lambda: open("/root/x", "w"),
    lambda: os.setuid(0),
):
    try:
        print(attempt())
    except PermissionError:
        pass
""",
        limits,
        namespaces=False,
    )
    assert own_user
    assert (ran.output, ran.exit_code) == ("True []\n", 0)


async def test_what_a_program_leaves_running_is_ended(run: Run, marker: str) -> None:
    ran = await run(
        f"""
import os, sys
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            os.close(1)
            os.close(2)
            os.execv(sys.executable, [sys.executable, "-ISc", "import time; time.sleep(60)", {marker!r}])
        os._exit(0)
import time
time.sleep(0.3)
print("done")
"""
    )
    assert (ran.output, ran.exit_code) == ("done\n", 0)
    assert not marked(marker)


async def test_ten_gigabytes_are_refused(run: Run) -> None:
    ran = await run("x = bytearray(10 << 30)")
    assert ran.exit_code == 1
    assert "MemoryError" in ran.output


async def test_a_large_file_is_refused(run: Run) -> None:
    ran = await run("open('big', 'wb').write(bytes(100 << 20))")
    assert ran.exit_code == 1
    assert "OSError" in ran.output


async def test_a_flood_of_output_is_cut_and_stopped(run: Run) -> None:
    before = psutil.Process().memory_info().rss
    started_s = time.perf_counter()
    ran = await run("print('begin')\nfor _ in range(100): print('x' * (1 << 20))\nprint('end')")
    assert time.perf_counter() - started_s < 3
    assert (ran.ended, ran.truncated, ran.exit_code) == ("output", True, None)
    assert ran.output.startswith("begin\nxxx")
    assert len(ran.output) < 17_000
    assert psutil.Process().memory_info().rss - before < 32 << 20


async def test_of_much_output_the_beginning_and_the_end_are_kept(run: Run) -> None:
    ran = await run("print('begin')\nprint('ß' * 20_000)\nprint('end')")
    assert (ran.exit_code, ran.truncated) == (0, True)
    assert ran.output.startswith("begin\nß")
    assert ran.output.endswith("ß\nend\n")
    assert " bytes left out …" in ran.output


async def test_cancelled_it_leaves_nothing(run: Run, marker: str) -> None:
    before = set(Path(tempfile.gettempdir()).glob("sandbox-*"))
    task = asyncio.create_task(run(again(marker, "import time; time.sleep(60)"), wall_s=50))
    await until_marked(marker)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not marked(marker)
    assert set(Path(tempfile.gettempdir()).glob("sandbox-*")) <= before


@pytest.mark.parametrize("delay_s", [0, 0.005, 0.02, 0.05])
async def test_cancelled_while_it_starts_it_leaves_nothing(
    run: Run, marker: str, delay_s: float
) -> None:
    task = asyncio.create_task(run(again(marker, "import time; time.sleep(60)"), wall_s=50))
    await asyncio.sleep(delay_s)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.2)
    assert not marked(marker)


@pytest.mark.parametrize("way", ["run_python", "run_in_the_open"])
async def test_whoever_asked_being_killed_leaves_nothing(
    way: str, marker: str, tmp_path: Path
) -> None:
    program = again(marker, "import time; time.sleep(60)")
    call = (
        f"run_python({program!r}, wall_s=50)"
        if way == "run_python"
        else f"sandbox._run({program!r}, sandbox._Limits(50, 1024, 16, 99), namespaces=False)"
    )
    asking = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import asyncio\nfrom workflows.tools import sandbox\n"
            f"from workflows.tools.sandbox import run_python\nasyncio.run({call})",
        ],
        cwd=Path(sandbox.__file__).parents[2],
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        await until_marked(marker)
    finally:
        asking.kill()
        asking.wait()
    async with asyncio.timeout(5):
        while marked(marker):
            await asyncio.sleep(0.02)


# What namespaces keep from them


@pytest.mark.usefixtures("shut_in")
async def test_nothing_is_written_outside_the_folder(tmp_path: Path) -> None:
    places = [tmp_path / "new", Path("/tmp/new-from-sandbox"), Path.home() / "new-from-sandbox"]
    places += [Path("/dev/shm/new-from-sandbox"), Path(sys.base_prefix, "new-from-sandbox")]
    ran = await run_python(
        f"""
import os
for place in {[str(place) for place in places]}:
    try:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        open(place, "w").write("x")
        print("wrote", place)
    except OSError:
        pass
"""
    )
    assert (ran.output, ran.exit_code) == ("", 0)
    assert not [place for place in places if place.exists()]


@pytest.mark.usefixtures("shut_in")
async def test_nothing_of_the_host_is_read(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden_tests.py"
    hidden.write_text("assert solve(2) == 4")
    hidden.chmod(0o666)
    places = [
        *(str(path) for path in (hidden, Path(__file__), Path(sandbox.__file__))),
        *("/etc/passwd", "/etc/hostname", "/sys/kernel/hostname"),
        *("/proc/self/status", "/proc/1/environ"),
        *(f"/proc/{os.getpid()}/{name}" for name in ("environ", "mem", "cmdline", "maps")),
    ]
    assert hidden.read_text()
    prefixes = [os.path.realpath(sys.base_prefix), os.path.realpath(sys.base_exec_prefix)]
    ran = await run_python(
        f"""
import os
for place in {places}:
    for path in (place, "/proc/1/root" + place, "../.." + place, "/jail" + place):
        try:
            print(path, open(path, "rb").read(99))
        except OSError:
            pass
prefixes = {prefixes}
for folder in os.listdir("/"):
    for path, folders, _ in os.walk("/" + folder):
        if path in ("/box", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/usr", *prefixes):
            folders.clear()
        elif not any(prefix.startswith(path) for prefix in prefixes):
            print(path)
print(os.listdir("/etc"))
"""
    )
    assert (ran.output, ran.exit_code) == ("['ld.so.cache']\n", 0)


@pytest.mark.usefixtures("shut_in")
async def test_no_address_is_reached() -> None:
    accepted = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    abstract = f"\0sandbox-{uuid.uuid4().hex}"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(abstract)
    listener.listen()
    with listener:
        async with server:
            with socket.create_connection(("127.0.0.1", port)):
                await asyncio.sleep(0.05)
            assert len(accepted) == 1
            ran = await run_python(
                f"""
import socket
for family, address in (
    (socket.AF_INET, ("127.0.0.1", {port})),
    (socket.AF_INET, ("192.0.2.1", 80)),
    (socket.AF_INET6, ("::1", {port})),
    (socket.AF_UNIX, {abstract!r}),
):
    try:
        with socket.socket(family) as opened:
            opened.settimeout(1)
            opened.connect(address)
        print("reached", address)
    except OSError:
        pass
try:
    print(socket.getaddrinfo("example.org", 80))
except OSError:
    print("alone")
"""
            )
            await asyncio.sleep(0.05)
    assert (ran.output, ran.exit_code) == ("alone\n", 0)
    assert len(accepted) == 1


@pytest.mark.usefixtures("shut_in")
async def test_no_other_process_is_signalled() -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        ran = await run_python(
            f"""
import os
for process in (os.getppid(), {os.getpid()}, {bystander.pid}, 1):
    try:
        os.kill(process, 9)
        print("signalled", process)
    except OSError:
        pass
for group in (0, 1, {os.getpgrp()}, {os.getpgid(bystander.pid)}):
    if group:
        try:
            os.killpg(group, 9)
            print("signalled group", group)
        except OSError:
            pass
try:
    os.kill(-1, 9)
except OSError:
    pass
print("on")
"""
        )
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    assert "signalled group" not in ran.output
    assert ran.output.endswith("on\n")
    assert ran.exit_code == 0


@pytest.mark.usefixtures("shut_in")
async def test_no_privilege_is_held_or_gained() -> None:
    ran = await run_python(
        """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert libc.capget(header, data) == 0
print("capabilities", sum(data))
for name, call in {
    "user namespace": lambda: libc.unshare(0x10000000),
    "mount namespace": lambda: libc.unshare(0x00020000),
    "mount": lambda: libc.mount(b"x", b"/box", b"tmpfs", 0, None),
    "remount": lambda: libc.mount(None, b"/usr/lib", None, 0x1020, None),
    "host name": lambda: libc.sethostname(b"x", 1),
    "root": lambda: libc.setuid(0),
    "trace": lambda: libc.ptrace(16, 1, 0, 0),
}.items():
    if call() == 0:
        print("gained", name)
"""
    )
    assert (ran.output, ran.exit_code) == ("capabilities 0\n", 0)


@pytest.mark.slow
@pytest.mark.usefixtures("shut_in")
def test_an_ordinary_user_is_kept_from_the_same() -> None:
    """Root's programs are tested above; here the sandbox stands where another user can start it."""
    found = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if os.geteuid() != 0 or found is None:
        pytest.skip("needs root, and an interpreter for other users")
    script = f"""
import asyncio, sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("sandbox", sys.argv[1])
sandbox = sys.modules["sandbox"] = module_from_spec(spec)
spec.loader.exec_module(sandbox)
print(sandbox.isolation())
bomb = asyncio.run(sandbox.run_python({BOMB!r}, wall_s=0.5))
print(bomb.ended, "refused" in bomb.output)
print(asyncio.run(sandbox.run_python('''
import ctypes, os
print(os.getuid(), os.getpid(), os.path.exists("/proc"), os.path.exists("/tmp"))
print(ctypes.CDLL(None).unshare(0x10000000), ctypes.CDLL(None).unshare(0x00020000))
''')).output)
"""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for name in ("sandbox.py", "sandbox_boot.py"):
            shutil.copy(Path(sandbox.__file__).with_name(name), folder)
        said = subprocess.run(
            [found, "-c", script, f"{folder}/sandbox.py"],
            user=65534,
            group=65534,
            extra_groups=[],
            env={},
            cwd="/",
            text=True,
            capture_output=True,
        )
    assert said.stderr == ""
    assert said.stdout.splitlines() == [
        "Isolation(network=None, files=None, processes=None, memory=None)",
        "time True",
        "1 2 False False",
        "-1 -1",
        "",
    ]


# What is said of it


def test_what_holds_is_said_with_the_reason_for_what_does_not() -> None:
    held = isolation()
    assert held.memory is None
    assert (held.network is None) == (held.files is None) == (held.processes is None)
    refused = sandbox._without_namespaces("user namespace: Operation not permitted", own_user=False)
    assert refused.memory is None
    assert refused.network == "no namespaces (user namespace: Operation not permitted)"
    assert "this user" in (refused.files or "")
    own = sandbox._without_namespaces("…", own_user=True)
    assert "cannot end them" in (own.processes or "")
