#!/usr/bin/env bash
# Everything that only a GPU can show, most telling first.
#
#     bash scripts/gpu_check.sh [folder for logs]      # PYTHON=.venv/bin/python unless python is the right one
#
# Each step is a command that can be typed by itself, with a time limit of its own (3/4 of an hour, all together). One call
# takes LIMIT seconds (540) at most: a step that would get less than half of its own limit is skipped, with a line that
# says so. The same command once more does what was skipped or failed. Delete the folder to measure anew.
# Standard output is one JSON object per step, for docs/results.md; the logs are in the folder.
# DRY=1 runs the same commands on a CPU with tiny sizes, to test the script.
set -u
case ${1:-} in -h | --help) sed -n '2,/^set -u/{/^set -u/d; s/^# \{0,1\}//; p}' "$0" && exit ;; esac
cd "$(dirname "$0")/.." || exit
out=${1:-runs/gpu_check} python=${PYTHON:-python} began=$SECONDS
mkdir -p "$out" && out=$(cd "$out" && pwd) && touch "$out/results.jsonl"
if [ -n "${DRY:-}" ]; then
    limit=${LIMIT:-1800} sizes="2 3" main=4 largest=5 long=150 seconds=0 dreams="4" steps=192
    where="engine=mujoco_warp sim_device=cpu rl_device=cpu"
    small="preset=smoke"
    check="import torch, mujoco_warp"
else
    limit=${LIMIT:-540} sizes="512 8192" main=2048 largest=16384 long=10000000 seconds=8 dreams="600 8192" steps=40000
    where="engine=mujoco_warp sim_device=cuda:0 rl_device=cuda:0"
    small=""
    check="import torch, mujoco_warp; assert torch.cuda.is_available(); torch.zeros(1, device='cuda')"
fi

# done_before NAME: whether an earlier call has run it without an error
done_before() { grep -q "^{\"step\": \"$1\", \"exit\": 0," "$out/results.jsonl"; }

# step NAME SECONDS COMMAND...: run it, and print its exit code, its time and the JSON object in its last line
step() {
    local name=$1 most=$2 left=$((limit - SECONDS + began)) started=$SECONDS code=0
    shift 2
    done_before "$name" && return
    if [ "$left" -lt $((most / 2)) ]; then
        echo "{\"step\": \"$name\", \"skipped\": \"no time left\"}"
        return
    fi
    timeout -k 10 $((most < left ? most : left)) "$@" >"$out/$name.log" 2>&1 || code=$?
    "$python" - "$name" "$code" $((SECONDS - started)) "$out/$name.log" <<'PY' | tee -a "$out/results.jsonl"
import json, sys
name, code, seconds, log = sys.argv[1:]
lines = open(log, errors="replace").read().splitlines() or [""]
result = {"step": name, "exit": int(code), "wall_s": int(seconds)}
try:
    result.update(json.loads(lines[-1]))
except (ValueError, TypeError):
    result["last_line"] = lines[-1][-300:]
print(json.dumps(result))
PY
}

bench="$python scripts/bench.py task=ShadowHandOver $where"
step machine 60 "$python" -c "$check; import json, sys, warp; warp.config.log_level = warp.LOG_ERROR; warp.init()
gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
result = {'python': sys.version.split()[0], 'torch': torch.__version__, 'cuda': torch.version.cuda, 'warp': warp.__version__}
result |= {'gpu': gpu and gpu.name, 'bytes': gpu and gpu.total_memory, 'driver': warp.get_cuda_driver_version()}
print(json.dumps(result))"
# in parts, since one that is cut off begins again; -vv names each test in the log, also of a part that was cut off.
# The learner's needs no kernel of Warp's
pytest="$python -m pytest -vv -m gpu"
step tests_learner 120 $pytest tests --ignore=tests/sim --ignore=tests/training/test_on_gpu.py
# the first engine compiles Warp's kernels for this GPU: minutes, once per machine
step engine_$main 400 $bench suite=engine num_envs=$main seconds=$seconds

watcher=
if ! done_before train_$main && command -v nvidia-smi >/dev/null; then # how busy the GPU is
    gpu=${CUDA_VISIBLE_DEVICES:-0} # the first of those that torch may see; nvidia-smi sees all
    nvidia-smi -i "${gpu%%,*}" --query-gpu=utilization.gpu,memory.used,power.draw --format=csv,noheader,nounits -lms 250 \
        >"$out/nvidia_smi.csv" 2>&1 &
    watcher=$!
fi
step train_$main 180 $bench suite=train num_envs=$main seconds=$((4 * seconds)) $small
if [ -n "$watcher" ]; then
    kill "$watcher"
    awk -F, '{ n++; u += $1; if ($1 > 0) { b++; w += $1 } }
        END { if (n) printf("{\"step\": \"nvidia_smi\", \"samples\": %d, \"utilization\": %.1f, ", n, u / n)
              if (n) printf("\"utilization_when_used\": %.1f}\n", b ? w / b : 0) }' \
        "$out/nvidia_smi.csv" | tee -a "$out/results.jsonl"
fi
for batch in $dreams; do
    step imagine_$batch 120 $bench suite=imagine batch=$batch seconds=$seconds ${DRY:+horizon=2 repeats=1}
done
for size in $sizes $largest; do
    step engine_$size 90 $bench suite=engine num_envs=$size seconds=$seconds
done
# what goes wrong in ten million random steps: by itself, since a slow GPU may not get through in time
step random_$largest 300 $bench suite=engine num_envs=$largest seconds=0 env_steps=$long
# a whole run: evaluation, checkpoints, the end, and its continuation; then its policy measured and filmed
run="$python scripts/train.py task=ShadowHandOver $where num_envs=$main run_dir=$out/run checkpoint=auto $small"
if ! done_before run || [ ! -e "$out/run/checkpoints/last.pt" ]; then # a folder without it did not come along
    rm -rf "$out/run"
    sed -i -E '/"step": "(run|continued|evaluated|filmed)"/d' "$out/results.jsonl"
fi
step run 120 $run max_env_steps=$steps train.eval.episodes=4
step continued 90 $run max_env_steps=$((3 * steps / 2)) train.eval.episodes=4
step evaluated 60 "$python" scripts/evaluate.py checkpoint="$out/run" num_envs=4 episodes=4
step filmed 60 "$python" scripts/play.py checkpoint="$out/run" num_envs=1 steps=10 out="$out/run.gif"
step tests_engine 240 $pytest tests/sim
step tests_runs 240 $pytest tests/training/test_on_gpu.py
step train_${main}_eager 150 $bench suite=train num_envs=$main seconds=$seconds compile=False $small
echo "took $((SECONDS - began)) s; logs in $out" >&2
