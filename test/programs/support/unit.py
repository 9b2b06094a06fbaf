"""Runs a program under the system call filter, address families and umask of a systemd unit: unit.py UNIT PROGRAM [ARGUMENT...]

For hosts where systemd is installed but does not run. Linux on x86-64; needs no rights.
"""
import ctypes
import os
import re
import subprocess
import sys

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000
EPERM, EAFNOSUPPORT = 1, 97
SYSTEM_CALL, FIRST_ARGUMENT = 0, 16  # offsets in `struct seccomp_data`
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}


def members(group):
    """The system calls of a group, as this host's systemd knows it."""
    listing = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True)
    names = [line.strip() for line in listing.stdout.splitlines()[1:]]
    calls = set()
    for name in names:
        if name.startswith("@"):
            calls |= members(name)
        elif name and not name.startswith("#"):
            calls.add(name)
    return calls


def allowed(unit):
    calls = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", unit, re.M):
        for item in line.lstrip("~").split():
            group = members(item) if item.startswith("@") else {item}
            calls = calls - group if line.startswith("~") else calls | group
    return calls


class Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("value", ctypes.c_uint32)]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("filter", ctypes.POINTER(Instruction))]


def compiled(calls, numbers, families):
    block = [(LOAD, 0, 0, FIRST_ARGUMENT)]
    block += [(JUMP_IF_EQUAL, len(families) - index, 0, family) for index, family in enumerate(families)]
    block += [(RETURN, 0, 0, FAIL | EAFNOSUPPORT), (RETURN, 0, 0, ALLOW)]
    code = [(LOAD, 0, 0, SYSTEM_CALL), (JUMP_IF_EQUAL, 0, len(block), numbers["socket"]), *block]
    for name in sorted(calls & numbers.keys()):
        code += [(JUMP_IF_EQUAL, 0, 1, numbers[name]), (RETURN, 0, 0, ALLOW)]
    return [*code, (RETURN, 0, 0, FAIL | EPERM)]


def main(path, *command):
    with open(path, encoding="utf8") as file:
        unit = file.read()
    with open("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", encoding="utf8") as file:
        numbers = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", file.read())}
    families = [FAMILIES[name] for name in re.search(r"^RestrictAddressFamilies=(.*)$", unit, re.M)[1].split()]
    code = compiled(allowed(unit), numbers, families)
    program = Program(len(code), (Instruction * len(code))(*[Instruction(*line) for line in code]))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    os.umask(int(re.search(r"^UMask=(\d+)$", unit, re.M)[1], 8))
    os.execvp(command[0], command)


main(*sys.argv[1:])
