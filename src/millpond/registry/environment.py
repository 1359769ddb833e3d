"""The environment that a version was trained in."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Mapping


def canonical_name(name: str) -> str:
    """A distribution's name as PEP 503 normalises it: "Scikit_Learn" is "scikit-learn"."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_packages() -> dict[str, str]:
    """Installed distributions of this interpreter: canonical name -> exact version, sorted by name.

    Where a distribution is found twice, the first on `sys.path` counts, as it does for imports. Distributions with
    broken metadata (no name or no version) are left out.
    """
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        metadata = distribution.metadata
        name, version = metadata["Name"], metadata["Version"]
        if name and version:
            found.setdefault(canonical_name(name), version)
    return dict(sorted(found.items()))


def lock_text(packages: Mapping[str, str]) -> str:
    """`packages` as a requirements file with one exact pin a line, sorted by name."""
    return "".join(f"{name}=={version}\n" for name, version in sorted(packages.items()))


def python_version() -> str:
    """Such as "3.11.7"."""
    return platform.python_version()


def platform_name() -> str:
    """Operating system and processor, such as "Linux-6.1.0-x86_64-with-glibc2.36"."""
    return platform.platform()
