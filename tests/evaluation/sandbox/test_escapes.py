"""Contract: a program that a model wrote passes tests only by giving the right values, and reaches nothing outside.

Every test is an attempt: to fool the judge, to use up the machine, or to reach files, networks and processes.
"""

import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from evaluation.sandbox import Limits, Sandbox, run_tests
from evaluation.sandbox.bubblewrap import candidates as bubblewraps
from evaluation.sandbox.channel import NoAnswerError, Process
from evaluation.sandbox.inside import decode, encode
from evaluation.sandbox.landlock import Sandlock
from evaluation.sandbox.limits import USUAL
from evaluation.sandbox.program import Program
from tests.fixtures.installed import CHECKOUT
from tests.fixtures.waiting import PATIENCE_SECONDS, wait_until

SECRET = 471147
TESTS = f"def check(candidate):\n    assert candidate(20, 3) == {SECRET}\n"


# To fool the judge.

FOOLING = {
    "an object that equals everything": "class E:\n def __eq__(self, other): return True\ndef f(a, b): return E()",
    "a number that equals everything": "class E(int):\n def __eq__(self, other): return True\ndef f(a, b): return E(1)",
    "a list that equals everything": "class E(list):\n def __eq__(self, other): return True\ndef f(a, b): return E()",
    "printing what a judge might print": (
        "print('passed')\nprint('{\"failed\": null}', flush=True)\ndef f(a, b): return 1"
    ),
    "leaving with a good exit code": "import os\nos._exit(0)",
    "leaving while it is called": "import sys\ndef f(a, b): sys.exit(0)",
    "an answer of the judge's on every descriptor": (
        "import os\ndef f(a, b):\n for d in range(64):\n  try: os.write(d, b'{\"failed\": null}\\n')\n"
        "  except OSError: pass\n return 1"
    ),
    "an answer before it is asked": (
        f'import os\nfor d in range(3, 64):\n try: os.write(d, b\'{{"nonce": "", "value": {SECRET}}}\\n\')\n'
        f" except OSError: pass\ndef f(a, b): return 1"
    ),
    "an error of its own": "class E(BaseException):\n def __str__(self): return 1\ndef f(a, b): raise E",
    "nothing": "",
    "no program": "def f(a, b) return",
    "a nest that no parser survives": "def f(a, b):\n x = []\n for _ in range(9000): x = [x]\n return x",
}


@pytest.mark.parametrize("program", FOOLING.values(), ids=FOOLING)
def test_the_judge_is_not_fooled(program: str) -> None:
    assert run_tests(program, "f", TESTS) is not None


def test_the_right_values_pass() -> None:
    assert run_tests(f"def f(a, b): return {SECRET}", "f", TESTS) is None


def test_values_keep_their_types() -> None:
    values = [None, True, 1, -0.5, "ä\ud800", (1, [2]), {1: {2}}, {(1,): b"x"}, 1j, 10**100, float("inf")]
    tests = (
        f"inf = float('inf')\ndef check(candidate):\n for v in {values!r}:\n"
        "  r = candidate(v)\n  assert r == v and type(r) is type(v)\n"
    )
    assert run_tests("def f(value): return value", "f", tests) is None


def test_the_tests_are_not_where_the_program_is() -> None:
    program = (
        "import gc, sys\n"
        "def f(a, b):\n"
        " frame, found = sys._getframe(), []\n"
        " while frame: found.append((frame.f_locals, frame.f_globals, frame.f_code)); frame = frame.f_back\n"
        f" return '{str(SECRET)[::-1]}'[::-1] in repr(found) + repr(gc.get_objects()) + ''.join(sys.orig_argv)\n"
    )
    tests = TESTS.replace(f"== {SECRET}", "is False") + f"    expected = {SECRET}\n"
    assert run_tests(program, "f", tests) is None


def test_tests_that_end_in_the_middle_do_not_spoil_the_next() -> None:
    assert run_tests("import os\ndef f(a, b): os._exit(1)", "f", TESTS) == "it has ended"
    assert run_tests(f"def f(a, b): return {SECRET}", "f", TESTS) is None


def test_programs_can_be_tested_from_threads_that_end() -> None:
    for _ in range(2):
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(run_tests, f"def f(a, b): return {SECRET}", "f", TESTS).result() is None


def test_programs_can_be_tested_by_a_process_with_many_open_files() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, limits[1]))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1024)]
    try:
        assert run_tests(f"def f(a, b): return {SECRET}", "f", TESTS) is None
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# To use up the machine, and to reach what is outside.


def made(kind: str) -> Sandbox:
    return Sandbox(next(bubblewraps()) if kind == "bubblewrap" else Sandlock(), kind)


@pytest.fixture(params=["bubblewrap", "sandlock"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return made(request.param)


def call(
    sandbox: Sandbox, source: str, *arguments: Any, limits: Limits = USUAL, seconds: float = PATIENCE_SECONDS
) -> Any:
    """Return what `f` of the program returns, or the error that it raises, as a string."""
    program = Program(sandbox, source, "f", limits)
    try:
        answer = program.call(encode((arguments, {})), time.monotonic() + seconds)
    finally:
        program.close()
    return answer["error"] if "error" in answer else decode(answer["value"])


def test_an_endless_loop_ends(sandbox: Sandbox) -> None:
    with pytest.raises(NoAnswerError, match="it has ended"):
        call(sandbox, "def f():\n while True: pass", limits=Limits(cpu_seconds=1))


def test_waiting_forever_ends(sandbox: Sandbox) -> None:
    with pytest.raises(NoAnswerError, match="too long"):
        call(sandbox, "import time, signal\nsignal.signal(15, signal.SIG_IGN)\ndef f(): time.sleep(1e6)", seconds=0.5)


def test_endless_output_is_cut_off(sandbox: Sandbox) -> None:
    flood = (
        "import os\ndef f():\n while True:\n  for d in range(3, 9):\n"
        "   try: os.write(d, b'x' * 65536)\n   except OSError: pass"
    )
    with pytest.raises(NoAnswerError, match="bytes"):
        call(sandbox, flood)


def test_printing_goes_nowhere(sandbox: Sandbox) -> None:
    assert call(sandbox, "def f(): print('x' * 10**7, flush=True); return 1") == 1


def test_memory_is_bounded(sandbox: Sandbox) -> None:
    assert "MemoryError" in call(sandbox, "def f(): return len(bytearray(2**30))")


def test_no_second_process(sandbox: Sandbox) -> None:
    bomb = (
        "import os\ndef f():\n for n in range(100):\n"
        "  try:\n   if os.fork() == 0: os._exit(0)\n  except OSError: return n\n return 100"
    )
    assert call(sandbox, bomb) == 0
    assert "Error" in call(sandbox, "import subprocess\ndef f(): subprocess.run(['/python/bin/python', '-c', ''])")


def test_threads_are_bounded(sandbox: Sandbox) -> None:
    bomb = (
        "import threading, time\ndef f():\n for n in range(4096):\n"
        "  try: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "  except RuntimeError: return n\n return 4096"
    )
    assert call(sandbox, bomb) < 512


def test_limits_cannot_be_raised(sandbox: Sandbox) -> None:
    raising = (
        "import resource as r\ndef f(names):\n raised = []\n for n in names:\n  k = getattr(r, n)\n"
        "  try: r.setrlimit(k, (r.getrlimit(k)[1] + 1,) * 2); raised.append(n)\n  except (ValueError, OSError): pass\n"
        " return raised"
    )
    assert call(sandbox, raising, list(USUAL.resources())) == []


def test_files_of_the_user_are_out_of_reach(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "private").write_text("x")
    files = [
        str(file) for file in (tmp_path / "private", Path(__file__), CHECKOUT / "README.md", Path.home() / ".profile")
    ]
    reading = (
        "def f(files):\n r = []\n for p in files:\n  try: r.append(open(p).read(1))\n  except OSError: pass\n return r"
    )
    assert call(sandbox, reading, [*files, "/etc/passwd", "/etc/group", "/dev/mem", "/dev/sda"]) == []


def test_nothing_can_be_written(sandbox: Sandbox, tmp_path: Path) -> None:
    writing = (
        "import os\ndef f(folders):\n made = []\n for folder in folders:\n"
        "  try: open(folder + '/made', 'w').close(); made.append(folder)\n  except OSError: pass\n return made"
    )
    folders = [
        "/",
        "/tmp",
        "/dev",
        "/dev/shm",
        "/python",
        "/python/lib",
        "/usr/lib",
        "/var/tmp",
        str(tmp_path),
        str(Path.home()),
    ]
    assert call(sandbox, writing, folders) == []


def test_other_processes_are_out_of_reach(sandbox: Sandbox) -> None:
    reading = (
        "def f(pid):\n r = []\n for n in ('environ', 'cmdline', 'mem', 'maps'):\n"
        "  try: r.append(open(f'/proc/{pid}/{n}').read(1))\n  except OSError: pass\n return r"
    )
    for pid in (1, os.getpid()):
        assert call(sandbox, reading, pid) == []
    assert "Error" in str(call(sandbox, "import os\ndef f(pid): os.kill(pid, 0)", os.getpid()))


def test_a_signal_to_everybody_reaches_only_the_sandbox(sandbox: Sandbox) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        with suppress(NoAnswerError):  # it hits itself
            call(sandbox, "import os\ndef f(): os.kill(-1, 9)")
        assert bystander.poll() is None
        bystander.communicate(b"\n", timeout=PATIENCE_SECONDS)
        assert bystander.returncode == 0


def test_no_network(sandbox: Sandbox) -> None:
    connecting = (
        "import socket\ndef f(family, address):\n s = socket.socket(family); s.settimeout(5); s.connect(address)"
    )
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        name = f"\0{secrets.token_hex(8)}"
        abstract.bind(name)
        abstract.listen()
        assert "Error" in str(call(sandbox, connecting, int(socket.AF_INET), server.getsockname()))
        assert "Error" in str(call(sandbox, connecting, int(socket.AF_UNIX), name))
    sending = "import socket\ndef f(): return socket.socket(2, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))"
    assert "Error" in str(call(sandbox, sending))


def test_no_variables(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAMMERGE_TEST_TOKEN", "secret")
    assert "secret" not in call(sandbox, "import os\ndef f(): return repr(os.environ)")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of calls are those of x86_64")
def test_rare_calls_are_refused(sandbox: Sandbox) -> None:
    names = ("unshare", "setns", "mount", "ptrace", "keyctl", "memfd_create", "shmget")
    numbers = dict(zip(names, (272, 308, 165, 101, 250, 319, 29), strict=True))
    calling = "import ctypes\ndef f(numbers): return [ctypes.CDLL(None).syscall(n, 0, 0, 0, 0) for n in numbers]"
    assert call(sandbox, calling, list(numbers.values())) == [-1] * len(numbers)


def start(kind: str, marker: str) -> Process:
    """Start a process in a sandbox that answers to no signal that it could answer to; its command has `marker`."""
    stubborn = "import signal, time\nfor s in (1, 2, 13, 15): signal.signal(s, signal.SIG_IGN)\nprint('up', flush=True)"
    return made(kind).kind.start(["-I", "-S", "-c", f"{stubborn}\ntime.sleep(600)  # {marker}"])


def assert_gone(marker: str) -> None:
    def gone() -> bool:
        commands = (command(folder) for folder in Path("/proc").iterdir() if folder.name.isdigit())
        return not any(marker.encode() in each for each in commands)

    wait_until(gone, "the sandbox is gone")


def command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""


def test_nothing_outlives_a_program(sandbox: Sandbox) -> None:
    marker = secrets.token_hex(8)
    process = start(sandbox.label, marker)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.kill()
    process.wait()
    assert_gone(marker)


def test_nothing_outlives_the_process_that_started_it(sandbox: Sandbox) -> None:
    marker = secrets.token_hex(8)
    starting = (
        "import time\nfrom tests.evaluation.sandbox.test_escapes import start\n"
        f"process = start({sandbox.label!r}, {marker!r})\nprint(process.stdout.readline(), flush=True)\ntime.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", starting], stdout=subprocess.PIPE, cwd=CHECKOUT) as starter:
        assert starter.stdout is not None
        assert b"up" in starter.stdout.readline()
        starter.send_signal(signal.SIGKILL)
    assert_gone(marker)
