#!/bin/sh
#SBATCH --array=1-8
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --time=04:00:00
#SBATCH --requeue
# A large folder as an array of jobs, each of which does its part, on whichever machine: sbatch restyle.sh IN OUT
# An array that is submitted again does what is left.
#
# The same on one machine: seq 8 | parallel 'SLURM_ARRAY_TASK_ID={} ./restyle.sh IN OUT'
# or: seq 8 | xargs -P 8 -I @ env SLURM_ARRAY_TASK_ID=@ ./restyle.sh IN OUT

export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
exec st-apply -s "${STYLE:-great-wave}" "${1:?}" -o "${2:?}/" --shard "$SLURM_ARRAY_TASK_ID/${SLURM_ARRAY_TASK_COUNT:-8}"
