import threading
from pathlib import Path

from millpond.platform.alone import alone
from millpond.platform.platform import open_project


def project(folder: Path, told: list[str]):
    (folder / "millpond.toml").write_text('[project]\nname = "shop"\n')
    return open_project(folder, listener=lambda step: told.append(f"{step.name}: {step.status}"))


def test_the_second_waits_and_says_so(tmp_path):
    told: list[str] = []
    order: list[str] = []
    entered = threading.Event()

    def second() -> None:
        entered.set()
        with alone(project(tmp_path, told), "table-orders"):
            order.append("second")

    with alone(project(tmp_path, []), "table-orders"):
        thread = threading.Thread(target=second)
        thread.start()
        entered.wait(5)
        while "wait for table-orders: started" not in told and thread.is_alive():
            thread.join(0.01)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]
    assert told == ["wait for table-orders: started", "wait for table-orders: done"]


def test_different_names_do_not_wait(tmp_path):
    told: list[str] = []
    platform = project(tmp_path, told)
    with alone(platform, "table-orders"), alone(platform, "table-priced"):
        pass
    assert told == []
