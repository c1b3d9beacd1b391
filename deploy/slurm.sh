#!/usr/bin/env bash
# A sweep on several nodes of a Slurm cluster. The options of the search follow the file's name:
#     sbatch deploy/slurm.sh --arch cnn1 --trials 200
# Submit it from a clone with a .venv (uv sync --extra ray --extra postgres) on storage that all nodes share.
#SBATCH --job-name=sweep
#SBATCH --output=sweep-%j.log
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=32G
#SBATCH --time=04:00:00
# Two minutes before the end this script, not Ray, is told: enough to end the epochs in training.
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
# The job outlives a node that fails; its trials go on elsewhere from their last epoch.
#SBATCH --no-kill
set -euo pipefail

# A working directory takes one sweep at a time, so each job name has its own.
export PATH="$SLURM_SUBMIT_DIR/.venv/bin:$PATH"
mkdir -p "$SLURM_SUBMIT_DIR/jobs/$SLURM_JOB_NAME"
cd "$SLURM_SUBMIT_DIR/jobs/$SLURM_JOB_NAME"
# srun does not take this from sbatch since Slurm 22.05.
export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
# Nodes may be shared with others: a folder, ports and a token of this job's own. Without the token anybody who
# reaches a port of Ray runs code as you.
export RAY_TMPDIR="/tmp/ray-$SLURM_JOB_ID"
RAY_AUTH_TOKEN="$(python -c 'import secrets; print(secrets.token_hex(32))')"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
port=$((20000 + SLURM_JOB_ID % 10000))

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head="${nodes[0]}"
# Not `auto`, which looks at all processes of the machine and may find another job's Ray.
address="$head:$port"

# Runs `ray start` on a node until the job ends. A step a node, so that one which fails takes no other along.
start_ray() {
    local node="$1"
    shift
    # The node's own count of GPUs is known on the node alone.
    # shellcheck disable=SC2016
    srun --nodes=1 --ntasks=1 --nodelist="$node" bash -c '
        mkdir -p -m 700 "$RAY_TMPDIR"
        [[ -O "$RAY_TMPDIR" ]] || { echo "$RAY_TMPDIR is not ours" >&2; exit 1; }
        trap "rm -rf \"$RAY_TMPDIR\"" EXIT
        ray start --block --disable-usage-stats --num-cpus="$SLURM_CPUS_PER_TASK" \
            --num-gpus="${SLURM_GPUS_ON_NODE:-0}" "$@"
    ' ray "$@" &
}

start_ray "$head" --head --port="$port" --include-dashboard=false --ray-client-server-port="$((port + 10000))"
for node in "${nodes[@]:1}"; do
    start_ray "$node" --address="$address"
done

python - "$address" "${#nodes[@]}" <<'PYTHON'
import sys
import time

import ray

address, wanted, deadline = sys.argv[1], int(sys.argv[2]), time.monotonic() + 300
while True:
    try:
        if not ray.is_initialized():
            ray.init(address, log_to_driver=False)
        alive = sum(node["Alive"] for node in ray.nodes())
    except ConnectionError:  # the head is not up yet
        alive = 0
    if alive >= wanted:
        break
    if time.monotonic() > deadline:
        sys.exit(f"{alive} of {wanted} nodes joined Ray within five minutes")
    time.sleep(2)
PYTHON

# Only the orchestrator opens the databases: read after Ray has started, the passwords are not in its workers.
secrets="${SWEEP_ENVIRONMENT:-$HOME/.config/sweep/environment}"
if [[ -f "$secrets" ]]; then
    set -a
    # shellcheck source=/dev/null
    source "$secrets"
    set +a
fi

stopping=false
python -m sweep "$@" --engine ray --address "$address" --work-dir "${SWEEP_WORK_DIR:-$PWD}" &
sweep=$!
trap 'stopping=true; kill -TERM "$sweep" || true' TERM

# A signal ends `wait` early, while the sweep still queues its trials again.
while kill -0 "$sweep" 2>/dev/null; do
    wait "$sweep" || true
done
code=0
wait "$sweep" || code=$?

# 130: the sweep was interrupted and is not finished. The same command goes on in the job's next turn.
if [[ "$stopping" == true && "$code" == 130 ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
