#!/usr/bin/env bash
# Every command behind docs/real_images, from the folder of the project:
#
#   docs/real_images/commands.sh REAL [costs] [VARIANT ...]
#
# REAL holds cifar10/{train,test}/CLASS/*.jpg, 100 images a class in each, and the weights that
# cifar10.yaml names. 200 of the training images choose the learning rates and the epochs; the test
# images are scored once a run. `costs` measures what a step of each variant costs, on a machine that
# does nothing else (two minutes); the runs take these figures, whatever else runs beside them.
# Without names all variants are run, two hours on two cores; interrupted, the same command goes on,
# and a variant that results.jsonl has is not run again.
set -euo pipefail
real="$(cd "$1" && pwd)"
shift
here=docs/real_images
mkdir -p runs/real_lists runs/real
ln -sfn "$real" runs/real_data
[ -f runs/real_lists/cifar10/prepared.json ] || vidadapt prepare imagefolder runs/real_data/cifar10 \
  runs/real_lists/cifar10 --dev_fraction 0.2
sed 's#^data:#data:\n  lists: runs/real_lists/cifar10#' "$here/cifar10.yaml" >runs/real/cifar10.yaml

variants=(linear losa vpt arc lora adaptformer full)
if [ "${1:-}" = costs ]; then
  vidadapt bench_frames --config runs/real/cifar10.yaml --out runs/real/cifar10/costs --cost_only \
    --methods "${variants[@]}" --frames 1
  mkdir -p "$here/costs"
  for file in runs/real/cifar10/costs/costs/*.json; do
    sed "s#$PWD#.#g" "$file" >"$here/costs/${file##*/}" # no paths of this machine
  done
  exit
fi

run() { # variant
  local kept="$here/results.jsonl" rates="0.01 0.03 0.1" # lr 1e-3 to 1e-2 at a batch of 25
  if [ -f "$kept" ] && grep -q "\"variant\": \"$1\"" "$kept"; then return; fi
  case "$1" in # wider where the best of three would be the last one
    full) rates="0.0001 0.0003 0.001 0.003 0.01" ;;
    linear | losa | vpt) rates="0.01 0.03 0.1 0.3 1" ;;
  esac
  mkdir -p "runs/real/cifar10/$1/costs"
  cp "$here/costs/$1_1f.json" "runs/real/cifar10/$1/costs/"
  # shellcheck disable=SC2086 # lists of words
  vidadapt bench_frames --config runs/real/cifar10.yaml --out "runs/real/cifar10/$1" \
    --methods "$1" --frames 1 --seeds 0 1 2 --rates $rates
  sed "s#$PWD#.#g" "runs/real/cifar10/$1/results.jsonl" >>"$kept" # no paths of this machine
}

asked=("$@")
[ $# -gt 0 ] || asked=("${variants[@]}")
for each in "${asked[@]}"; do run "$each"; done
vidadapt bench_frames --report "$here"
