#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2025.10.14"]
# ///
"""The steps of .ci/run as nox sessions: ``nox -s lint docs``; the steps make their own environments."""

import subprocess

import nox

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "none"


def _session(step: str) -> None:
    @nox.session(name=step, default=step in ("lint", "tests"))
    def run(session: nox.Session) -> None:
        session.run("bash", ".ci/run", step, external=True)


for step in subprocess.run(["bash", ".ci/run", "--list"], check=True, capture_output=True, text=True).stdout.split():
    _session(step)

if __name__ == "__main__":
    nox.main()
