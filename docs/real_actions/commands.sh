#!/usr/bin/env bash
# Every command behind docs/real_actions, from the folder of the project:
#
#   docs/real_actions/commands.sh REAL [VARIANT ...]
#
# REAL holds the videos of two action sets (weizmann/, ut_interaction/) with a table of each
# (weizmann.csv, ut_interaction.csv: path, label, group) and the weights that the configurations
# name. Without variants all are run, one after the other: an hour or so each on two cores.
# Interrupted, the same command goes on; a variant that results.jsonl has is not run again.
set -euo pipefail
real="$(cd "$1" && pwd)"
shift
mkdir -p runs/real_lists
ln -sfn "$real" runs/real_data

prepare() { # set, folds, share of the rest for development
  [ -f "runs/real_lists/$1/folds.csv" ] || vidadapt prepare csv "runs/real_data/$1.csv" \
    --videos "runs/real_data/$1" --folds "$2" --dev_fraction "$3" "runs/real_lists/$1"
}
prepare weizmann leave-one-group-out 0.25 # nine people, of whom two of the other eight develop
prepare ut_interaction 5 0.25             # twenty sequences: four test, four of the rest develop

rates="0.008 0.026 0.08 0.24" # lr 3e-4 to 1e-2 at a batch of 10
low="0.0026 0.008 0.026 0.08" # for what moves the backbone's own weights
bench() {                     # set, variant, options
  vidadapt bench_frames --config "docs/real_actions/$1.yaml" --folds "runs/real_lists/$1" \
    --out "runs/real/$1/$2" --methods "$2" --rates_at 2 "${@:3}"
}
study() { # set, variant
  local kept="docs/real_actions/$1/results.jsonl" grid="$rates"
  if [ -f "$kept" ] && grep -q "\"variant\": \"$2\"" "$kept"; then return; fi
  [ "$2" = full ] && grid="$low"
  # shellcheck disable=SC2086 # a list of words
  case "$2" in
    *_frames | *_random) bench "$1" "$2" --frames 8 --rates $grid ;;
    *) bench "$1" "$2" --frames 2 4 8 --rates $grid ;;
  esac
  # shellcheck disable=SC2086
  case "$2" in
    linear | losa | adaptformer | full) bench "$1" "$2" --frames 8 --rates $grid --seeds 0 1 2 ;;
  esac
  mkdir -p "docs/real_actions/$1"
  sed "s#$PWD#.#g" "runs/real/$1/$2/results.jsonl" >>"$kept" # no paths of this machine
}
variants=(linear adaptformer vpt full losa lora attentive arc st_adapter
  linear_frames adaptformer_frames linear_random adaptformer_random)
[ $# -gt 0 ] && variants=("$@")
for variant in "${variants[@]}"; do
  for set in weizmann ut_interaction; do study "$set" "$variant"; done
done
for set in weizmann ut_interaction; do vidadapt bench_frames --report "docs/real_actions/$set"; done
python -m benchmarks.real_claims docs/real_actions
