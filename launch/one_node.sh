#!/usr/bin/env bash
# One node, one process a GPU. NUM_PROCESSES (8), PLATFORM (gpu) and PORT (12321) may be set; the arguments are those of
# `python -m vdm`:
#
#   launch/one_node.sh train --config=configs/demo.py --workdir=runs/node --config.run.mesh.fsdp=8
#
# SIGTERM and Ctrl-C reach all processes. The exit code is that of the first process, by number, that ended otherwise than with 0.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/flags.sh "${PLATFORM:-gpu}"
processes=${NUM_PROCESSES:-8}
pids=()
for ((process = 0; process < processes; process++)); do
  JAX_LOCAL_DEVICE_IDS=$process "${PYTHON:-.venv/bin/python}" -m vdm "$@" \
    --config.run.distributed.name=given \
    --config.run.distributed.given.coordinator_address="localhost:${PORT:-12321}" \
    --config.run.distributed.given.num_processes="$processes" \
    --config.run.distributed.given.process_id="$process" &
  pids+=($!)
done
trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' TERM INT
code=0
for pid in "${pids[@]}"; do
  ended=0
  wait "$pid" || ended=$?
  while kill -0 "$pid" 2>/dev/null; do # a signal to this script ends the wait, not the process
    ended=0
    wait "$pid" || ended=$?
  done
  ((code)) || code=$ended
done
exit "$code"
