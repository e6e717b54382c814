"""`make fuzz`: each target for a while under atheris. New inputs that cover more are kept outside the repository.

    python -m tests.fuzz [--seconds S] [--found DIRECTORY] [TARGET...]

A finding is written to DIRECTORY/<target>/crash-*; put it into the corpus when it is mended.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tests.fuzz.targets import CORPUS, INPUT_SIZE_MAX, TARGETS, check_of

RSS_MAX_MB = 768  # of a fuzzer's process, instrumentation included; an input that makes it grow beyond is a finding
INPUT_SECONDS_MAX = 20  # of one input, on the wall


def run_one(target: str, arguments: list[str]) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["p2pd", "tracker"]):
        check = check_of(target)
    atheris.Setup([target, *arguments], check)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all without one")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--found", type=Path, default=Path(".lab/fuzz"), help="where new inputs and findings go")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"{', '.join(sorted(unknown))}: no such target")
    failed = []
    for target in options.targets or TARGETS:
        found = options.found / target
        found.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", f"from tests.fuzz.__main__ import run_one; import sys; "
                   f"run_one({target!r}, sys.argv[1:])"]  # fmt: skip
        command += [
            str(found), str(CORPUS / target), f"-max_total_time={options.seconds}", f"-max_len={INPUT_SIZE_MAX}",
            f"-rss_limit_mb={RSS_MAX_MB}", f"-timeout={INPUT_SECONDS_MAX}", f"-artifact_prefix={found}/",
            "-print_final_stats=1",
        ]  # fmt: skip
        log = found / "log"
        with log.open("w") as output:
            code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode
        lines = log.read_text(errors="replace").splitlines()
        runs = [line.split()[-1] for line in lines if "number_of_executed_units" in line]
        print(
            f"{target}: {runs[0] if runs else '?'} inputs, {'ok' if code == 0 else f'FINDING, see {log}'}", flush=True
        )
        if code:
            failed.append(target)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
