"""Makes a virtual environment for one model that also sees the packages of the interpreter that runs this.

As a script: `python setup_model_venv.py DIRECTORY [REQUIREMENTS]`.
"""

import os
import subprocess
import sys
import venv
from typing import Optional


def setup_model_venv(directory: str, requirements: Optional[str] = None) -> str:
    """Makes the environment, installs the requirements into it, and returns the path of its interpreter."""
    venv.create(directory, system_site_packages=True, with_pip=True, symlinks=os.name != "nt")
    python = os.path.join(directory, "Scripts" if os.name == "nt" else "bin", "python")
    if requirements is not None:
        upgrade = ["install", "-U", "--upgrade-strategy", "only-if-needed", "-r", requirements]
        subprocess.run([python, "-m", "pip"] + upgrade, check=True)
    return python


def main() -> None:
    """The command line."""
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: setup_model_venv.py DIRECTORY [REQUIREMENTS]")
    print(setup_model_venv(*sys.argv[1:]))


if __name__ == "__main__":
    main()
