#!/usr/bin/env bash
# Every command behind docs/frames, from the folder of the project. Interrupted, it goes on where it
# was; alone on two cores it needs about ten hours. Then copy results.jsonl and table.md of a folder
# here, with the study's plots.
# shellcheck disable=SC2086,SC2206 # lists of words are meant to part
set -euo pipefail
export OMP_NUM_THREADS=1
bench() { vidadapt bench_frames --config demo "$@"; }

grid="0.0024 0.008 0.024 0.08 0.24"
study="--out runs/frames_study --frames 2 4 8 --seeds 0 1 2 --rates_at 4"
bench $study --methods linear vpt arc losa adaptformer adaptformer_16 --rates $grid
bench $study --methods full full_tuned --rates 0.0008 $grid
bench --out runs/frames_probe_recipe --methods full_probe --frames 8 --seeds 0 1 2

sweep() { # name of the configuration, learning rates, folder, the two that get three seeds
  local out="runs/frames_sweeps/$3"
  local words=(--sweep "sweeps/$1" --frames 8 --rates $2 --out "$out")
  bench "${words[@]}"
  bench "${words[@]}" --seeds 0 1 2 --methods $4
}
sweep bottleneck 0.024 bottleneck "bottleneck_64 bottleneck_256"
sweep layers 0.024 layers "parallel lower_half"
sweep scale 0.024 scale "scale_1 scale_0.2"
sweep scale "0.008 0.024 0.08" scale_rates "scale_0.2 scale_0.1"
sweep vpt_prompts 0.024 vpt_prompts_0.024 "prompts_16 prompts_2"
sweep vpt_prompts 0.08 vpt_prompts_0.08 "prompts_16 prompts_4"
sweep arc 0.024 arc "per_layer rank_100"
sweep losa 0.08 losa "channel_rank_64 all_mixers"

cells=runs/frames_study/cells
runs=()
for cell in linear_8f_s0_lr0.24 vpt_8f_s0_lr0.08 adaptformer_8f_s0_lr0.024 \
  losa_8f_s0_lr0.08 full_8f_s0_lr0.0024; do
  runs+=("$cells/$cell/run")
done
vidadapt temporal --run_dir "${runs[@]}" --out runs/frames_temporal
vidadapt tsne --run_dir "${runs[@]}" --out runs/frames_tsne
python -m benchmarks.claims docs/frames
