"""Runs the server on the example platform, in a process of its own: `STATE PORT [plain]`. Prints one JSON line."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from faces_example import ExamplePlatform  # noqa: E402

from millpond.access.local import local_admin  # noqa: E402
from millpond.access.store import AccessStore  # noqa: E402
from millpond.core.errors import MillpondError  # noqa: E402
from millpond.server.app import Services, session_cookie  # noqa: E402
from millpond.server.control import serve  # noqa: E402
from millpond.server.processes import Child  # noqa: E402
from millpond.server.sockets import part_socket  # noqa: E402


def mlflow():
    """Takes a while to load, and answers with the path it sees."""
    from starlette.responses import JSONResponse

    time.sleep(1.5)

    async def app(scope, receive, send):
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        await JSONResponse({"path": scope["path"], "headers": headers})(scope, receive, send)

    return app


def main() -> int:
    state, port = Path(sys.argv[1]), int(sys.argv[2])
    admin = local_admin(state)
    worker = part_socket(state / "run", "inference")
    platform = ExamplePlatform(state)
    access = AccessStore.open(state / "platform.db")
    services = Services(access, platform, platform, (worker,), "0.0.0", session_cookie(state))
    children = [Child("inference", [sys.executable, str(HERE / "faces_worker.py"), str(worker)], socket=worker)]

    def announce(banner) -> None:
        said = {"url": banner.url, "login_url": banner.login_url, "token": admin.token}
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()

    try:
        serve(services, state=state, announce=announce, children=children, load_mlflow=mlflow, port=port)
    except MillpondError as error:
        sys.stdout.write(json.dumps(error.to_dict()) + "\n")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
