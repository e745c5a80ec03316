# The checks of what is under deploy/: a part of tests/run, which reads it.
# shellcheck shell=bash

# --- Deployment, as far as it goes without an engine ------------------------------------------------------------------

deploy_checks() {
  if installed hadolint install_hadolint; then
    check hadolint "$tools/python/bin/hadolint" deploy/Dockerfile
  fi
  if installed compose-config build_compose_config; then
    check compose-config "$tools/bin/compose-config" deploy/compose.yaml
    check compose-config-bites compose_config_bites
  fi
  if have promtool; then
    check prometheus-config promtool check config deploy/prometheus.yml
  else
    skip prometheus-config 'promtool is not installed (Debian: prometheus)'
  fi
}

build_compose_config() {
  have go || unable 'go is not installed' || return
  (cd tests/compose && go vet . && go build -o "$tools/bin/compose-config" .) || unable 'tests/compose could not be built'
}

# Changes to a copy, each of which must be seen.
compose_config_bites() {
  local copy=$logs/deploy-changed change status
  for change in 's/read_only: true/read_only: false/' 's/cap_drop: \[ALL\]/cap_drop: []/' 's/65532:65532/0:0/' \
    's/no-new-privileges:true/no-new-privileges:false/' '/mem_limit: 1g/d' '/pids_limit/d' 's/127.0.0.1:7443:/7443:/' \
    's/networks: \[operators\]/networks: [operator]/' '/^  node-11-data:/d' 's/stop_grace_period/stop_grace_time/' \
    's/target: gateway}/target: gatway}/' '0,/node-44:7519/s//node-44:7520/' 's/subpath: node.51/subpath: node\/44/' \
    's/{condition: service_completed_successfully}/{condition: service_done}/' 's/, "gateway-data:[^"]*"//' \
    's/"gateway-data:[^"]*"/"node-11-data:\/var\/lib\/tongxing"/'; do
    rm -rf -- "$copy" && mkdir -p "$copy/deploy" || return
    cp deploy/compose.yaml deploy/prometheus.yml deploy/Dockerfile "$copy/deploy" || return
    sed -i "$change" "$copy/deploy/compose.yaml" || return
    ! cmp -s deploy/compose.yaml "$copy/deploy/compose.yaml" || unable "nothing to change by $change" || return
    status=0
    "$tools/bin/compose-config" "$copy/deploy/compose.yaml" || status=$?
    ((status == 1)) || unable "not seen, status $status: $change" || return
  done
}

# --- Programs of their own, from what deploy/prepare made -------------------------------------------------------------

programs=()   # the process ids of the gateway and the nodes

prepared() {
  local federation=$logs/prepared port
  port=$(free_ports)
  check build-programs cargo build -p gateway -p province-stub
  [[ $outcome == ok ]] || return 0
  rm -rf -- "$federation"
  check prepare prepare_twice "$federation" "$port"
  [[ $outcome == ok ]] || return 0
  check prepared-start start_programs "$federation" "$port"
  local asked=false
  if [[ $outcome == ok ]]; then
    # It is no answer to the client unless a receipt comes with it.
    rm -f -- "$logs/prepared-python.log"
    ask_with_clients prepared "$federation" python
    [[ ! -e $logs/prepared-python.log ]] || asked=true
    if $asked; then check prepared-log logs_come_home "$federation"; fi
  fi
  check prepared-stop stop_programs
  if $asked; then check prepared-new-disk begin_new_logs "$federation" "$port"; fi
}

# A copy of the logs whose pages are another file's from the fifth on: `gateway log verify` says so.
damage_pages() {
  local data=$1/gateway/data
  cp "$data/record.redb" "$data/record.kept" || return
  dd if=/dev/urandom of="$data/record.redb" bs=4096 seek=4 count=400 conv=notrunc status=none || return
  local found
  if found=$("$built/gateway" log verify --config "$1/gateway/gateway.toml" 2>&1); then
    unable 'damaged pages were not found'
    return
  fi
  printf '%s\n' "$found"
  mv "$data/record.kept" "$data/record.redb"
}

# Three ports in a row that nobody has, nor those that deploy/prepare gives the private listeners.
free_ports() {
  local port offset
  while true; do
    port=$((20000 + RANDOM % 10000))
    for offset in 0 1 2 400 401 402; do
      if port_is_taken $((port + offset)); then continue 2; fi
    done
    echo "$port"
    return
  done
}

# Twice, once as in containers: roots and log keys stay, and the programs take a private listener beyond loopback. A data
# directory may be anywhere.
prepare_twice() {
  local federation=$1 port=$2 roots key
  prepare_federation "$federation" "$port" --bind 0.0.0.0 || return
  roots=$(grep '^roots\|^log_keys' "$federation/trust-list.toml") || return
  key=$("$built/gateway" log key --data-dir "$federation/gateway/data") || return
  [[ $roots == *$'\n'"log_keys = [\"$key\"]" ]] || unable 'not the key of its logs' || return
  "$built/gateway" serve --check --config "$federation/gateway/gateway.toml" || return
  "$built/province-stub" serve --check --config "$federation/node/44/node.toml" || return
  prepare_federation "$federation" "$port" || return
  [[ $roots == "$(grep '^roots\|^log_keys' "$federation/trust-list.toml")" ]] || unable 'other roots or log keys' || return
  prepare_federation "$federation.elsewhere" "$port" --data "$PWD/$federation.elsewhere/data" || return
  "$built/gateway" serve --check --config "$federation.elsewhere/gateway/gateway.toml" || return
  key=$("$built/gateway" log key --data-dir "$federation.elsewhere/data") || return
  grep -qF "log_keys = [\"$key\"]" "$federation.elsewhere/trust-list.toml" || unable 'not its key, elsewhere' || return
  rm -rf -- "$federation.elsewhere" || return
  [[ -z $(find "$federation" -name '*key*' -type f -perm /077) ]] || unable 'others can read a key'
}

prepare_federation() {
  local federation=$1 port=$2
  shift 2
  deploy/prepare --dir "$federation" --programs "$built" --gateway "localhost:$port" \
    --node "11=localhost:$((port + 1))" --node "44=localhost:$((port + 2))" "$@"
}

# Beside the gateway that serves: its logs verify, and what was asked is at home soon.
logs_come_home() {
  local federation=$1 said tenths
  for ((tenths = 0; tenths < 100; tenths++)); do
    said=$("$built/gateway" log verify --config "$federation/gateway/gateway.toml") || { printf '%s\n' "$said" && return 1; }
    if [[ $said =~ '44: '([1-9][0-9]*)' records, kept from 0, '([0-9]+)' at home' ]] &&
      ((BASH_REMATCH[1] == BASH_REMATCH[2])); then
      printf '%s\n' "$said"
      return
    fi
    sleep 0.1
  done
  printf '%s\n' "$said"
  unable 'the records are not at home'
}

# As after a disk was lost: other logs, whose key the trust list has beside the one of the old ones, which are evidence.
begin_new_logs() {
  local federation=$1 port=$2 config=$1/gateway/gateway.toml kept=$logs/prepared-44.checkpoint old new
  old=$("$built/gateway" log key --data-dir "$federation/gateway/data") || return
  "$built/gateway" log checkpoint --config "$config" --log 44 >"$kept" || return
  "$built/gateway" log verify --config "$config" --checkpoint "$kept" || return
  "$built/gateway" log show --config "$config" --log 44 | grep -q 'consent [0-9a-f]\{32\} exchange' || return
  "$built/gateway" log export --config "$config" --out "$kept.export" || return
  grep -q '"owner":"44","record":' "$kept.export" || return
  [[ $(stat -c %a "$kept.export") == 600 ]] || unable 'an export that others may read' || return
  # Pages that are not what was written: a finding, whatever becomes of who reads them.
  damage_pages "$federation" || return
  mv -- "$federation/gateway/data" "$federation/gateway/data.lost" || return
  prepare_federation "$federation" "$port" || return
  new=$("$built/gateway" log key --data-dir "$federation/gateway/data") || return
  grep -xF "log_keys = [\"$new\", \"$old\"]" "$federation/trust-list.toml" || unable 'not both keys' || return
  "$built/gateway" serve --check --config "$config" || return
  if "$built/gateway" log verify --config "$config" --checkpoint "$kept"; then
    unable 'the new logs pass for the old ones'
    return
  fi
  mv -- "$federation/gateway/data" "$federation/gateway/data.new" || return
  mv -- "$federation/gateway/data.lost" "$federation/gateway/data" || return
  "$built/gateway" log verify --config "$config" --checkpoint "$kept"
}

start_programs() {
  local federation=$1 port=$2 offset
  "$built/gateway" serve --config "$federation/gateway/gateway.toml" >"$logs/prepared-gateway.log" 2>&1 </dev/null &
  programs+=("$!")
  for offset in 1 2; do
    local code=$((offset == 1 ? 11 : 44))
    "$built/province-stub" serve --config "$federation/node/$code/node.toml" >"$logs/prepared-$code.log" 2>&1 </dev/null &
    programs+=("$!")
  done
  for offset in 400 401 402; do
    wait_until_ready $((port + offset)) || { cat "$logs"/prepared-*.log && return 1; }
  done
}

# wait_until_ready PORT: until a private listener says so.
wait_until_ready() {
  local tenths
  for ((tenths = 0; tenths < start_limit * 10; tenths++)); do
    if [[ $(ask_if_ready "$1" 2>/dev/null) == *' 200 OK'* ]]; then return; fi
    kill -0 "${programs[@]}" || unable 'a program ended before it was ready' || return
    sleep 0.1
  done
  unable "nothing is ready on port $1 within $start_limit s"
}

ask_if_ready() {
  exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3 &&
    cat <&3
}

stop_programs() {
  local program status=0
  for program in "${programs[@]}"; do stop "$program" || status=$?; done
  if ((status == 0)); then programs=(); fi
  return "$status"
}
