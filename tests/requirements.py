"""What the tests need beside the project's environment, installed where that is allowed, else named.

    python tests/requirements.py

Exits 0 when everything is there. Debian and its relatives: packages are installed when run as root. Clients whose
libraries are older than the project's get environments of their own.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

#: Program -> Debian package.
NEEDED = {
    "chromium": "chromium",
    "git": "git",
    "java": "openjdk-17-jre-headless",
    "redis-server": "redis-server",
    "wrk": "wrk",
}


def main() -> None:
    programs()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from benchmarks.processes import peer

    peer("kserve-client")


def programs() -> None:
    missing = sorted({package for program, package in NEEDED.items() if shutil.which(program) is None})
    if not missing:
        return
    names = " ".join(missing)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.exit(f"The tests need these Debian packages: {names}. Install them: sudo apt-get install {names}")
    print(f"installing Debian packages for the tests: {names}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
    subprocess.run(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    main()
