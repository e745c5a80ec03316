# What `run`, `vectors` and `foreign-node` share, sourced from the root: where the clients are, and the toolchains that more
# than one of them uses.

readonly clients=tests/clients built=$PWD/target/clients
mkdir -p "$built"

have() {
  command -v "$1" >/dev/null 2>&1 || unable "$1 is not installed"
}

unable() {
  echo "$1"
  return 1
}

# installed STAMP FILE: whether what FILE locks was installed before, as STAMP, its copy, says.
installed() {
  cmp -s "$1" "$2"
}

needs_python() {
  have python3 || return
  python3 -c 'import ensurepip, tomllib, venv' 2>/dev/null || unable 'needs python3 from 3.11 on, with venv'
}

install_python() {
  local python=$built/python/venv/bin/python requirements=$clients/python/requirements.txt
  installed "$built/python/requirements.txt" "$requirements" && return
  rm -rf "$built/python" || return
  python3 -m venv "$built/python/venv" || return
  "$python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements" || return
  cp "$requirements" "$built/python/requirements.txt"
}

needs_go() {
  have go
}

needs_java() {
  have javac || return
  have mvn || return
  local version
  version=$(javac -version 2>&1 | tr -dc '0-9.')
  ((${version%%.*} >= 17)) || unable 'needs a JDK from 17 on'
}

build_java() {
  mvn --batch-mode --quiet --file "$clients/java/pom.xml" compile
}
