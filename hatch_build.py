"""Builds the libraries in C beside their sources: the kernels of compiled plans, and the reader of numbers."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: Library -> its source.
LIBRARIES = {
    "src/millpond/serving/plans/libkernels.so": "src/millpond/serving/plans/kernels.c",
    "src/millpond/serving/protocol/libnumbers.so": "src/millpond/serving/protocol/numbers.c",
}
#: Sums must round as written: no fused multiply-add, no reordering.
FLAGS = ("-O3", "-std=c11", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off", "-fno-fast-math")


def compiler() -> list[str] | None:
    """The command of a C compiler on this machine, or None."""
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    return next(([found] for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles with $CC, cc, gcc or clang; where there is none, with Zig's, which is installed for the build."""

    def dependencies(self) -> list[str]:
        return [] if self.target_name == "sdist" or compiler() else ["ziglang>=0.13"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        if self.target_name == "sdist":
            return
        root = Path(self.root)
        command = compiler() or [sys.executable, "-m", "ziglang", "cc"]
        for library, source in LIBRARIES.items():
            made = root / f"{library}.{os.getpid()}"
            subprocess.run([*command, *FLAGS, str(root / source), "-o", str(made), "-lm"], check=True)
            made.replace(root / library)
            build_data["artifacts"].append(library)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
