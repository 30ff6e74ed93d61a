#!/usr/bin/env bash
# Train on several GPUs of one or more machines: tools/dist_train.sh CONFIG GPUS [train.py's flags]
# More than one machine: NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment of each.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [flags of tools/train.py]" >&2
    exit 2
fi
config=$1 gpus=$2
shift 2
exec torchrun --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$gpus" "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
