"""The command that answers for a version natively."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from millpond.serving.ports import ServedModel

_NATIVE = Path(__file__).with_name("native.py")


def native_command(python: Path, directory: Path, served: ServedModel) -> tuple[str, ...]:
    """The program that answers a lane's calls with the raw inputs of a version.

    Args:
        python: Interpreter of the environment that the model needs: `environments.environment_for`.
        directory: The directory that holds `MLmodel`.
        served: The version.
    """
    told = {
        "task": served.task,
        "inputs": dict(served.inputs),
        "outputs": [[each.name, each.type, each.width] for each in served.outputs],
        "matrix": served.matrix,
    }
    # Another environment is not to see what this one's variables and user folder add to the path.
    apart = () if python == Path(sys.executable) else ("-I", "-u")
    return (str(python), *apart, str(_NATIVE), str(directory), json.dumps(told))
