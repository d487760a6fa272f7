#!/usr/bin/env bash
# TPU slices on GKE by XPK, which starts the command on every host; JAX finds the others through GKE's variables.
# CLUSTER, WORKLOAD, TPU_TYPE (v5litepod-16, say) and IMAGE (this checkout with its requirements and requirements/tpu.txt
# installed, Python as `python`) must be set, NUM_SLICES (1) may be. The arguments are those of `python -m vdm`:
#
#   CLUSTER=c WORKLOAD=w TPU_TYPE=v5litepod-16 IMAGE=gcr.io/project/vdm launch/xpk.sh train --config=configs/demo.py \
#     --workdir=gs://bucket/runs/xpk
#
# A host that was lost ends the others with 75 and a preempted run ends with 143; it is started again, and goes on, up to
# MAX_RESTARTS (50) times.
set -euo pipefail
: "${CLUSTER:?}" "${WORKLOAD:?}" "${TPU_TYPE:?}" "${IMAGE:?}"
words=$(printf ' %q' "$@" --config.run.distributed.name=auto)
exec xpk workload create --cluster="$CLUSTER" --workload="$WORKLOAD" --tpu-type="$TPU_TYPE" \
  --num-slices="${NUM_SLICES:-1}" --docker-image="$IMAGE" --termination-grace-period-seconds=300 \
  --max-restarts="${MAX_RESTARTS:-50}" --restart-on-user-code-failure \
  --command="source launch/flags.sh tpu && python -m vdm$words"
