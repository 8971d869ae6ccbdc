"""Nothing leaves the machine: neither the first run, conversion included, nor any of its child processes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_backbone import write_pictures

import featx

# Whoever sends something to an address of the internet does it by one of these.
CALLS = "connect,sendto,sendmsg,sendmmsg"
INTERNET = re.compile(r"\b(?:connect|sendto|sendmsg|sendmmsg)\(.*\bAF_INET6?\b")
STRACE, UNSHARE = shutil.which("strace"), shutil.which("unshare")

MAIN_JOB = """
import sys
from featx.commands.command_line import main

for command in (
    ["extract", "photos", "--out", "f.h5"],
    ["fit-logistic", "f.h5", "--out", "c.featx"],
    ["predict", "c.featx", "photos"],
    ["predict", "--model", "tf_efficientnet_lite0", "photos/red/000.jpg"],
):
    code = main(command)
    if code:
        sys.exit(f"{command} gave {code}")
telemetry = [name for name in sys.modules if name.startswith("openvino_telemetry")]
sys.exit(f"{telemetry} was loaded" if telemetry else 0)
"""

# Telemetry sends from forked children, so the control does as well.
SENDING = {
    "a datagram": "s.sendto(b'x', ('127.0.0.1', 9))",
    "a connection": "s.connect(('127.0.0.1', 9))",
    "from a child": "os.fork() or s.connect(('127.0.0.1', 9))",
}
CONTROL = "import os, socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n{}\n"


def run_python(code, folder, *wrapper):
    """Run some code in a fresh interpreter, inside a wrapper if one is given."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(featx.__file__).parents[1]),
        "FEATX_CACHE": str(folder / "cache"),  # empty: the network is converted in this run
    }
    command = [*wrapper, sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def strace(folder):
    """Return a wrapper that writes down the calls of a whole process tree."""
    return STRACE, "-f", "--seccomp-bpf", "-qq", "-e", f"trace={CALLS}", "-o", str(folder / "trace")


def sent(folder):
    """Return the calls in a trace that reach for the internet."""
    return [line for line in (folder / "trace").read_text().splitlines() if INTERNET.search(line)]


def can_trace(folder):
    """Return whether this machine lets us trace."""
    return STRACE is not None and run_python("", folder, *strace(folder)).returncode == 0


def can_isolate(folder):
    """Return whether this machine lets us have a network of our own, with nothing in it."""
    return UNSHARE is not None and run_python("", folder, UNSHARE, "-rn").returncode == 0


@pytest.fixture
def folder(tmp_path):
    """A folder with a few pictures and an empty cache."""
    write_pictures(tmp_path / "photos", n_each=3)
    return tmp_path


def test_the_main_job_sends_nothing(folder):
    """Extract, fit and predict, with the network converted on the way, reach for no internet address."""
    if can_trace(folder):
        done = run_python(MAIN_JOB, folder, *strace(folder))
        assert sent(folder) == []
    elif can_isolate(folder):
        done = run_python(MAIN_JOB, folder, UNSHARE, "-rn")
    else:
        pytest.skip("neither strace nor an empty network namespace is to be had on this machine")
    assert done.returncode == 0, done.stderr
    assert "velvet" in done.stdout or "photos/red/000.jpg" in done.stdout
    assert list((folder / "cache").rglob("*.xml"))  # the conversion took place


@pytest.mark.parametrize("what", SENDING)
def test_the_check_sees_what_is_sent(what, folder):
    """A process that does send something, itself or from a child, is found by the check above."""
    code = CONTROL.format(SENDING[what])
    if can_trace(folder):
        run_python(code, folder, *strace(folder))
        assert len(sent(folder)) == 1
        assert "127.0.0.1" in sent(folder)[0]
    elif can_isolate(folder):
        if what == "from a child":
            pytest.skip("an empty network stops what a child sends, but nobody hears of it")
        done = run_python(code, folder, UNSHARE, "-rn")
        assert "Network is unreachable" in done.stderr
    else:
        pytest.skip("neither strace nor an empty network namespace is to be had on this machine")


def test_the_trace_is_read_right(folder):
    """The trace tells an address of the internet from a socket of this machine."""
    lines = [
        '123 connect(3, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("1.2.3.4")}, 16) = 0',
        "123 connect(3, {sa_family=AF_INET6, sin6_port=htons(443)}, 28) = -1 ENETUNREACH",
        '123 sendto(3, "x", 1, 0, {sa_family=AF_INET, sin_port=htons(53)}, 16) = 1',
        '123 connect(3, {sa_family=AF_UNIX, sun_path="/run/x"}, 110) = -1 ENOENT',
        "123 sendto(3, [{nlmsg_len=20}], 20, 0, {sa_family=AF_NETLINK, nl_pid=0}, 12) = 20",
    ]
    (folder / "trace").write_text("\n".join(lines))
    assert sent(folder) == lines[:3]
