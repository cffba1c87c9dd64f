#!/usr/bin/env bash
# Every command behind docs/real_actions, from the folder of the project:
#
#   docs/real_actions/commands.sh REAL [costs|temporal|probe|quick] [SET/VARIANT ...]
#
# REAL holds the videos of two action sets (weizmann/, ut_interaction/) with a table of each
# (weizmann.csv, ut_interaction.csv: path, label, group) and the weights that the configurations
# name. `costs` measures what a step of each variant costs, on a machine that does nothing else (20
# minutes); the runs take these figures, whatever else runs beside them, on processors that compute
# in bf16, as these did: others are refused, and need `costs` and results of their own. `temporal`
# shows the runs of AdaptFormer that are there their videos in other orders of the frames. `probe`
# brings a linear probe on frozen features to its optimum, which a few epochs do not (ten minutes;
# extra `analysis`). `quick` is the smallest part that shows something: linear and AdaptFormer at
# four frames with one rate, a person in three tested, in at most ten minutes.
# Without names all variants are run on both sets, one after the other: half an hour to an hour each
# on two cores. Interrupted, the same command goes on; a variant that results.jsonl has is not run
# again.
set -euo pipefail
real="$(cd "$1" && pwd)"
shift
sets=(weizmann ut_interaction)
variants=(linear adaptformer vpt full losa lora attentive arc st_adapter)
at_eight=(linear_frames adaptformer_frames linear_random adaptformer_random)
mkdir -p runs/real_lists
ln -sfn "$real" runs/real_data

prepare() { # folder of lists, set, folds
  [ -f "runs/real_lists/$1/folds.csv" ] || vidadapt prepare csv "runs/real_data/$2.csv" \
    --videos "runs/real_data/$2" --folds "$3" --dev_fraction 0.25 "runs/real_lists/$1"
}
prepare weizmann weizmann leave-one-group-out # nine people, of whom two of the other eight develop
prepare ut_interaction ut_interaction 5       # twenty sequences: four test, four of the rest develop

bench() { # set, folder of results, options
  vidadapt bench_frames --config "docs/real_actions/$1.yaml" --folds "runs/real_lists/$1" \
    --out "runs/real/$1/$2" "${@:3}"
}
costs() { # set
  bench "$1" costs --cost_only --methods "${variants[@]}" --frames 2 4 8
  bench "$1" costs --cost_only --methods "${at_eight[@]}" --frames 8
  mkdir -p "docs/real_actions/$1/costs"
  cp "runs/real/$1/costs/costs/"*.json "docs/real_actions/$1/costs/"
}

rates="0.008 0.026 0.08 0.24" # lr 3e-4 to 1e-2 at a batch of 10
low="0.0026 0.008 0.026 0.08" # for what moves the backbone's own weights
run() {                       # set, variant
  local kept="docs/real_actions/$1/results.jsonl" frames="2 4 8" grid="$rates"
  if [ -f "$kept" ] && grep -q "\"variant\": \"$2\"" "$kept"; then return; fi
  [ "$2" = full ] && grid="$low"
  # Four frames show whether more of them help, for the three variants of that claim.
  case "$2" in
    *_frames | *_random) frames=8 ;;
    linear | vpt | adaptformer) ;;
    *) frames="2 8" ;;
  esac
  mkdir -p "runs/real/$1/$2/costs"
  cp "docs/real_actions/$1/costs/$2_"[248]f.json "runs/real/$1/$2/costs/"
  # shellcheck disable=SC2086 # lists of words
  bench "$1" "$2" --methods "$2" --rates_at 2 --frames $frames --rates $grid
  # shellcheck disable=SC2086
  case "$2" in
    linear | losa | adaptformer | full)
      bench "$1" "$2" --methods "$2" --rates_at 2 --frames 8 --rates $grid --seeds 0 1 2
      ;;
  esac
  sed "s#$PWD#.#g" "runs/real/$1/$2/results.jsonl" >>"$kept" # no paths of this machine
}

if [ "${1:-}" = costs ]; then
  for set in "${sets[@]}"; do costs "$set"; done
  exit
fi
if [ "${1:-}" = temporal ]; then
  for set in "${sets[@]}"; do
    [ -d "runs/real/$set/adaptformer" ] || continue
    vidadapt temporal --run_dir "runs/real/$set/adaptformer/cells/adaptformer_8f_s0_fold*/run" \
      --out "docs/real_actions/$set/temporal"
    sed -i "s#$PWD#.#g" "docs/real_actions/$set/temporal/temporal.json" # no paths of this machine
  done
  exit
fi
if [ "${1:-}" = probe ]; then
  for set in "${sets[@]}"; do
    sed '/^variants:/,$d' "docs/real_actions/$set.yaml" >"runs/real_lists/$set.yaml"
    for mode in inflate frames; do
      for frames in 2 4 8; do
        vidadapt features "runs/real_data/$set" --out "runs/real_features/${set}_${mode}_$frames" \
          --config "runs/real_lists/$set.yaml" --format safetensors \
          --model.from_image "$mode" --data.num_frames "$frames" --pool mean --num_clips 2
      done
    done
  done
  python -m benchmarks.real_probe docs/real_actions --lists runs/real_lists --features runs/real_features
  exit
fi
if [ "${1:-}" = quick ]; then
  prepare quick weizmann 3
  vidadapt bench_frames --config docs/real_actions/weizmann.yaml --folds runs/real_lists/quick \
    --out runs/real/quick --methods linear adaptformer --frames 4 --rates 0.08 --steps 3
  exit
fi
asked=("$@")
if [ $# -eq 0 ]; then
  for variant in "${variants[@]}" "${at_eight[@]}"; do
    for set in "${sets[@]}"; do asked+=("$set/$variant"); done
  done
fi
for each in "${asked[@]}"; do run "${each%/*}" "${each#*/}"; done
for set in "${sets[@]}"; do
  [ ! -f "docs/real_actions/$set/results.jsonl" ] || vidadapt bench_frames --report "docs/real_actions/$set"
done
python -m benchmarks.real_claims docs/real_actions
