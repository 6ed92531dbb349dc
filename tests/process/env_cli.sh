# tdmpc2 env from the outside: exit codes, sentences, and an installed copy that finds its files.
set -uo pipefail
tool=$TD_BUILD/bin/tdmpc2
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
passed=0 failed=0

# expect NAME EXIT_CODE TEXT COMMAND...: TEXT must be in what it prints
expect() {
    local name=$1 code=$2 text=$3 out rc; shift 3
    out=$("$@" 2>&1); rc=$?
    if [ $rc -eq "$code" ] && [[ $out == *"$text"* ]]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1)); echo "$name: exit $rc (expected $code), printed: $out"
    fi
}

golden=tests/golden/trajectories/pendulum-swingup.traj.safetensors
cp "$golden" "$work/altered.safetensors"
printf '\x01' | dd of="$work/altered.safetensors" bs=1 seek=$(($(stat -c %s "$golden") - 3)) conv=notrunc status=none
head -c 600 "$golden" > "$work/cut.safetensors"

expect 'list' 0 'walker-walk                  walker         24' "$tool" env list
expect 'check' 0 'saved state' "$tool" env check toy
expect 'check of an unknown task' 2 'did you mean cheetah-run?' "$tool" env check cheetah
expect 'replay' 0 'ok     pendulum-swingup' "$tool" env replay "$golden"
expect 'replay of an altered file' 1 'DIFFER' "$tool" env replay --exact "$golden" "$work/altered.safetensors"
expect 'replay of a cut file' 2 'cut.safetensors' "$tool" env replay "$work/cut.safetensors" "$golden"
expect 'replay of nothing' 2 'usage' "$tool" env replay
expect 'replay of a missing file' 2 'none.safetensors' "$tool" env replay "$work/none.safetensors"
expect 'an unknown part' 2 'usage' "$tool" env fly
expect 'missing model files' 2 'make setup' env TDMPC2_ASSETS="$work" "$tool" env check walker-walk

# Installed elsewhere: beside lib and share, or nothing at all.
mkdir -p "$work/none/bin" "$work/usr/bin" "$work/usr/lib/tdmpc2" "$work/usr/share/tdmpc2"
cp "$tool" "$work/usr/bin"; cp "$tool" "$work/none/bin"
ln -s "$PWD"/third_party/mujoco/lib/libmujoco.so.3.1.2 "$work/usr/lib/tdmpc2/"
ln -s "$PWD"/third_party/dm_control/suite "$work/usr/share/tdmpc2/suite"
ours=tests/golden/trajectories/reacher-three-hard.traj.safetensors
expect 'installed' 0 'ok     pendulum-swingup' "$work/usr/bin/tdmpc2" env replay "$golden"
expect 'installed without our models' 2 'reacher_three.xml is missing' "$work/usr/bin/tdmpc2" env replay "$ours"
expect 'listed as lacking' 0 'not available: the model file' "$work/usr/bin/tdmpc2" env list
ln -s "$PWD"/common/env/dm/models "$work/usr/share/tdmpc2/models"
expect 'installed with them' 0 'ok     reacher-three-hard' "$work/usr/bin/tdmpc2" env replay "$ours"
expect 'nothing lacking' 0 'dog-run                      dog           223' "$work/usr/bin/tdmpc2" env list
expect 'no library' 2 'make setup' "$work/none/bin/tdmpc2" env replay "$golden"
expect 'assets given' 2 'make setup' env TDMPC2_ASSETS="$work/usr/share/tdmpc2" "$work/none/bin/tdmpc2" env replay "$golden"

# One sentence for what is wrong; what the environment printed beside it on demand.
toy=python:tests/support/python/toys.py
expect 'an exception' 1 $'Raise\ntdmpc2 env: '"$toy:Raise: the environment raised RuntimeError: the robot fell over (toys.py line" "$tool" env check "$toy:Raise"
expect 'and its trace' 1 'Traceback' "$tool" env check --verbose "$toy:Raise"
expect 'an abort' 1 "signal 6 (Aborted); it said: 'Fatal Python error: Aborted'" "$tool" env check "$toy:Abort"
expect 'a wrapped state' 0 'ok      saved state' "$tool" env check "$toy:Wrapped"

# A suite is there when its setup came to its end, and so are its assets when they lie there.
suites=(env TDMPC2_SUITES="$work/suites" MS2_ASSET_DIR="$work/assets")
mkdir -p "$work"/suites/venv-{myosuite,maniskill}/bin
ln -s /bin/true "$work/suites/venv-myosuite/bin/python"; ln -s /bin/true "$work/suites/venv-maniskill/bin/python"
expect 'an empty venv' 0 'not available: myo-reach: MyoSuite is not set up: run `make setup-myosuite`' "${suites[@]}" "$tool" env list
expect 'it is not used' 2 'make setup-myosuite' "${suites[@]}" "$tool" env check myo-reach
touch "$work"/suites/venv-{myosuite,maniskill}/.setup
row() { "${suites[@]}" "$tool" env list | grep "^$1 "; }
expect 'its suite is its domain' 0 'MyoSuite' row myo-reach
expect 'a whole one' 0 '    100  yes' row myo-reach
expect 'no assets' 0 'no: its assets are to be downloaded' row pick-ycb
expect 'what to run for them' 0 'not available: pick-ycb: `tdmpc2 env check pick-ycb` names' "${suites[@]}" "$tool" env list
mkdir -p "$work/assets/mani_skill2_ycb"
expect 'assets' 0 '    100  yes' row pick-ycb
expect 'none of the other' 0 'no: its assets' row turn-faucet

# A library that is called OSMesa and draws nothing.
mkdir "$work/gl"
cat > "$work/gl.c" <<'END'
static int any;
void *OSMesaCreateContextExt(unsigned a, int b, int c, int d, void *e) { return &any; }
unsigned char OSMesaMakeCurrent(void *a, void *b, unsigned c, int d, int e) { return 1; }
void OSMesaDestroyContext(void *a) {}
void *OSMesaGetProcAddress(const char *name) { return 0; }
END
cc -w -shared -fPIC -o "$work/gl/libOSMesa.so.8" "$work/gl.c"
fake=(env MUJOCO_GL=osmesa LD_LIBRARY_PATH="$work/gl")
expect 'no OpenGL' 2 'does not draw: install another' "${fake[@]}" "$tool" env check walker-walk obs=rgb
expect 'no OpenGL in the list' 0 'not available: obs=rgb of DMControl'"'"'s tasks: the OSMesa library' "${fake[@]}" "$tool" env list

# Words that are no task.
expect 'a bare prefix' 2 'gym:ID or gym:MODULE:ID' "$tool" env check gym:
expect 'a long name' 2 'too long: at most 191' "$tool" env check "./$(printf '%0200d' 0).so"
expect 'lines in a name' 2 "unknown task 'a?b'" "$tool" env check $'a\nb'

# A suite's Python that is gone is made anew, whatever the stamp says. Its packages are not installed here.
mkdir -p "$work/tree/deploy" "$work/path"
cp deploy/setup-suite "$work/tree/deploy"
printf '#!/bin/sh\necho ok installed\n' > "$work/path/dpkg-query"
cat > "$work/path/python" <<'END'
#!/bin/sh
[ "$2" = venv ] && mkdir -p "$3/bin" && printf '#!/bin/sh\nexit 0\n' > "$3/bin/python" && chmod +x "$3/bin/python"
END
chmod +x "$work"/path/*
setup=(env PATH="$work/path:$PATH" PYTHON=python "$work/tree/deploy/setup-suite" gym)
expect 'a suite is set up' 0 'setup-gym: done' "${setup[@]}"
expect 'it is there' 0 '' "${setup[@]}"
[ -z "$("${setup[@]}" 2>&1)" ] || { failed=$((failed + 1)); echo 'it is set up again though nothing changed'; }
printf '#!/bin/sh\necho no module >&2; exit 1\n' > "$work/tree/third_party/venv-gym/bin/python"
expect 'it does not work any more' 0 'does not work any more (no module): making it anew' "${setup[@]}"
rm "$work/tree/third_party/venv-gym/bin/python"
expect 'it is gone' 0 'setup-gym: done' "${setup[@]}"

echo "[  PASSED  ] $passed test(s)."
[ $failed -eq 0 ] || { echo "[  FAILED  ] $failed test(s)."; exit 1; }
