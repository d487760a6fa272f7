#!/usr/bin/env bash
# A TPU pod slice by the Cloud TPU API: the same command on every host, which finds the others through the metadata
# server. TPU_NAME and ZONE must be set; the checkout and its .venv must be at FOLDER (~/vdm) on every host, and the work
# directory in a bucket. The arguments are those of `python -m vdm`:
#
#   TPU_NAME=slice ZONE=us-east5-a launch/tpu_slice.sh train --config=configs/demo.py --workdir=gs://bucket/runs/slice
#
# First, once:
#   gcloud compute tpus tpu-vm create "$TPU_NAME" --zone="$ZONE" --accelerator-type=v5litepod-16 --version=v2-alpha-tpuv5-lite
#   gcloud compute tpus tpu-vm scp --recurse . "$TPU_NAME":vdm --zone="$ZONE" --worker=all
#   gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone="$ZONE" --worker=all --command='cd vdm && make .venv/installed.txt &&
#     .venv/bin/pip install --require-hashes -r requirements/tpu.txt'
set -euo pipefail
: "${TPU_NAME:?set it to the name of the slice}" "${ZONE:?set it to the zone of the slice}"
words=$(printf ' %q' "$@" --config.run.distributed.name=auto)
exec gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone="$ZONE" --worker=all \
  --command="cd ${FOLDER:-vdm} && source launch/flags.sh tpu && .venv/bin/python -m vdm$words"
