"""Stand-ins for the commands of Slurm: jobs run on this machine, one task after the other."""

from __future__ import annotations

from pathlib import Path

# Runs the tasks of the array in the background, and notes which have ended
_SBATCH = """#!/bin/bash
cp "$1" "{folder}/submitted-$$.sh"
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
script=$(cat "$1")
(
  for task in $(seq 0 "${{last:-0}}"); do
    export SLURM_JOB_ID=7$task SLURM_JOB_NUM_NODES=1 SLURM_NTASKS=1 SLURM_NODEID=0 SLURM_PROCID=0
    export SLURM_LOCALID=0 SLURM_JOB_NODELIST=$(hostname)
    id=$$
    if [ -n "$last" ]; then export SLURM_ARRAY_JOB_ID=$$ SLURM_ARRAY_TASK_ID=$task; id=$$_$task; fi
    [ -n "$last" ] || export SLURM_JOB_ID=$$
    bash -c "$script"
    echo "$id|COMPLETED|$(hostname)" >> "{folder}/ended"
  done
) >"{folder}/log-$$" 2>&1 </dev/null &
echo "Submitted batch job $$"
"""
_SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do
  case "$1" in --output|--error) shift 2 ;; *) shift ;; esac
done
exec "$@"
"""
_SACCT = """#!/bin/bash
echo "JobID|State|NodeList"
cat "{folder}/ended" 2>/dev/null || true
"""


def install_slurm(folder: Path) -> Path:
    """Write the commands into `folder`/bin, and return that folder for the PATH.

    Scripts that were submitted are `folder`/submitted-*.sh.
    """
    bin_folder = folder / "bin"
    bin_folder.mkdir(parents=True)
    for name, text in (
        ("sbatch", _SBATCH), ("srun", _SRUN), ("sacct", _SACCT), ("scancel", "#!/bin/bash\n"),
    ):  # fmt: skip
        path = bin_folder / name
        path.write_text(text.format(folder=folder) if "{folder}" in text else text)
        path.chmod(0o755)
    return bin_folder


def submitted(folder: Path) -> list[str]:
    """Return the scripts that were submitted, without their paths."""
    return [path.read_text() for path in sorted(folder.glob("submitted-*.sh"))]
